"""The external IPs of a site file, with their services and servers."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from lbctl.site.file.fields import FieldReader
from lbctl.site.file.health_checks import CheckReader
from lbctl.site.file.keepers import KeeperReader
from lbctl.site.file.servers import ServerReader
from lbctl.site.file.tunnels import TunnelReader
from lbctl.site.file.yaml_reader import did_you_mean, line_of, quoted
from lbctl.site.model import KINDS, NAT_KINDS, PORTS, SCHEDULERS, ExternalIp, Service
from lbctl.values.addresses import Address, Network
from lbctl.values.owners import owner_of
from lbctl.values.protocols import PROTOCOL_NUMBERS

_ANY = ("copies", "only_on", "not_with")
_KEYS = {
    "nat: destination": (("address", "load_balancer", "gateway", "services"), ("kind", "nat", *_ANY)),
    "nat: full": (("address", "load_balancer", "internal_ips", "services"), ("kind", "nat", "gateway", "port_range", *_ANY)),
    "kind: nat-gateway": (("address", "load_balancer", "gateway", "inside", "router"), ("kind", "port_range", *_ANY)),
}
"""Which keys an external IP must have, and may have."""
_ONLY_FOR = {key: " or ".join(kind for kind, both in _KEYS.items() if key in {*both[0], *both[1]})
             for required, optional in _KEYS.values() for key in (*required, *optional)}
"""Which kinds of external IPs have a key."""


class ExternalIpReader:
    """Reads external IPs, and remembers what must not occur twice. names: the LBs; None if they are not all known."""

    def __init__(self, reader: FieldReader, external: Sequence[Network], internal: Sequence[Network], names: list[str] | None,
                 standby: set[str], tunnels: TunnelReader, keepers: KeeperReader) -> None:
        self._reader = reader
        self._keepers, self._standby = keepers, standby
        self._servers = ServerReader(reader, internal, tunnels)
        self._checks = CheckReader(reader)
        self._external, self._internal = external, internal
        self._names = names
        self._owner_lines: dict[int, tuple[Address, int]] = {}
        self._named_apart: list[tuple[Address, yaml.Node]] = []
        self._inside: list[tuple[Network, int]] = []

    def read(self, nodes: list[yaml.Node]) -> list[ExternalIp | None]:
        found = [self._external_ip(node) for node in nodes]
        self._servers.check_others()
        for other, node in self._named_apart:
            if ("external IP", other) not in self._reader.seen:
                self._reader.problem(node, f"not_with: there is no external IP {other}")
        return found

    def _external_ip(self, node: yaml.Node) -> ExternalIp | None:
        problems = len(self._reader.problems)
        kind = self._reader.deciding(node, "kind", KINDS)
        nat = self._reader.deciding(node, "nat", NAT_KINDS)
        if len(self._reader.problems) > problems:
            return None  # which other keys it needs is not known
        required, optional = _KEYS[f"kind: {kind}" if kind == "nat-gateway" else f"nat: {nat}"]
        values = self._reader.mapping(node, "external IP", required, optional, _ONLY_FOR)
        if values is None:
            return None
        address = self._reader.address_in(values.get("address"), "address", self._external, "external_network")
        if address is not None:
            self._check_external(address, values["address"])
        name = self._assigned_to(values.get("load_balancer"))
        gateway = self._gateway(values.get("gateway"), address)
        internal_ips = [self._internal_ip(item, address) for item in self._items(values, "internal_ips")]
        ports = self._reader.port_range(values["port_range"], "port_range") if "port_range" in values else PORTS
        inside = [self._inside_prefix(item, address) for item in self._items(values, "inside")]
        router = self._servers.other("router", values, self._external, "external_network")
        self._reader.same_version(router, address, values.get("router"), "router")
        where = f"in line {line_of(node)}"
        services = [self._service(where, nat == "destination", address, item) for item in self._items(values, "services")]
        if nat == "full" and ports:
            self._checks.keep_apart(ports, values.get("port_range"), services)
        copies = self._keepers.copies(values.get("copies"), nat, kind == "nat-gateway", list(filter(None, services)))
        only_on = frozenset(filter(None, (self._assigned_to(item, "only_on") for item in self._items(values, "only_on"))))
        not_with = frozenset(filter(None, (self._apart(item, address) for item in self._items(values, "not_with"))))
        if address is None or name is None or ports is None:
            return None
        return ExternalIp(address, name, gateway, nat, tuple(filter(None, services)), (), kind, tuple(filter(None, internal_ips)),
                          ports, tuple(filter(None, inside)), router, copies=copies,
                          only_on=only_on, not_with=not_with)

    def _check_external(self, address: Address, node: yaml.Node) -> None:
        self._reader.once(node, ("external IP", address), f"the external IP {address} is already used")
        other, line = self._owner_lines.setdefault(owner_of(address.packed), (address, line_of(node)))
        if other != address:
            self._reader.problem(node, f"the external IP {address} can't be told from {other} (line {line}) in the switches' cookies, "
                                 "which hold a checksum of IPv6 addresses: take another address")

    def _apart(self, node: yaml.Node, address: Address | None) -> Address | None:
        """One that it shall not be with."""
        other = self._reader.address(node, "not_with")
        if other is not None and other == address:
            self._reader.problem(node, f"not_with: {other} can't be apart from itself")
        elif other is not None:
            self._named_apart.append((other, node))
        return other

    def _assigned_to(self, node: yaml.Node | None, key: str = "load_balancer") -> str | None:
        name = self._reader.raw(node, key, "the name of a load balancer")
        if key == "load_balancer" and name in self._standby:
            self._reader.problem(node, f"load balancer {name} is standby: it gets external IPs by failover or by hand only")
        if name is None or node is None or self._names is None or name in self._names:
            return name
        self._reader.problem(node, f"unknown load balancer {quoted(name)}: {did_you_mean(name, self._names)}")
        return None

    def _gateway(self, node: yaml.Node | None, external: Address | None) -> Address | None:
        gateway = self._reader.address_in(node, "gateway", self._internal, "internal_network")
        if gateway is not None and node is not None:
            self._reader.once(node, ("internal address", gateway),
                              f"the gateway {gateway} already belongs to another external IP; each needs its own")
            self._reader.same_version(gateway, external, node, "gateway")
        return gateway

    def _internal_ip(self, node: yaml.Node, external: Address | None) -> Address | None:
        address = self._reader.address_in(node, "internal IP", self._internal, "internal_network")
        if address is not None:
            self._reader.once(node, ("internal address", address), f"the internal IP {address} is already used")
            self._reader.same_version(address, external, node, "internal IP")
        return address

    def _inside_prefix(self, node: yaml.Node, external: Address | None) -> Network | None:
        prefix = self._reader.network(node, "inside", prefix=True)
        if prefix is None:
            return None
        for other, line in self._inside:
            if other.version == prefix.version and other.overlaps(prefix):
                self._reader.problem(node, f"inside {prefix} overlaps {other} (line {line}): a host has one NAT gateway")
        for network in self._external:
            if network.version == prefix.version and network.overlaps(prefix):
                self._reader.problem(node, f"inside {prefix} overlaps external_network {network}: its hosts are outside")
        self._inside.append((prefix, line_of(node)))
        self._reader.same_version(prefix, external, node, "inside")
        return prefix

    def _service(self, where: str, exclusive: bool, external: Address | None, node: yaml.Node) -> Service | None:
        """where: its external IP is. exclusive: its servers belong to this external IP alone."""
        values = self._reader.mapping(node, "service", ("protocol", "port", "servers"), ("scheduler", "health_check"))
        if values is None:
            return None
        protocol = self._reader.choice(values.get("protocol"), "protocol", tuple(PROTOCOL_NUMBERS))
        port = self._reader.whole(values.get("port"), "port", 1, 65535)
        if protocol is not None and port is not None:
            self._reader.once(values["port"], ("service", where, protocol, port),
                              f"this external IP already has a service on {protocol} port {port}")
        scheduler: str | None = SCHEDULERS[0]
        if "scheduler" in values:
            scheduler = self._reader.choice(values["scheduler"], "scheduler", SCHEDULERS)
        check = self._checks.check(values["health_check"], protocol) if "health_check" in values else None
        servers = self._servers.servers(where if exclusive else None, external, self._items(values, "servers"))
        if protocol is None or port is None or scheduler is None:
            return None
        return Service(protocol, port, scheduler, servers, check)

    def _items(self, values: dict[str, yaml.Node], key: str) -> list[yaml.Node]:
        return self._reader.items(values.get(key), key)
