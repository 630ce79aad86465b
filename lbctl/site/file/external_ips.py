"""The rules for external IPs and their services."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from lbctl.site.file.health_checks import check_times, keep_ports_apart
from lbctl.site.file.keepers import KeeperRules
from lbctl.site.file.loader import Draft, Loader
from lbctl.site.file.register import Register
from lbctl.site.file.servers import Owner, ServerRules
from lbctl.site.file.slices import check_routers, check_sliced
from lbctl.site.file.yaml_reader import did_you_mean, in_quotes, line_of
from lbctl.site.model import FILTERINGS, MAPPINGS
from lbctl.values.addresses import Address, Network
from lbctl.values.owners import owner_of


@dataclass(frozen=True, slots=True)
class LoadBalancers:
    """What is known of the load balancers. names: None if some are not known, so that none can be called unknown."""

    names: list[str] | None
    standby: frozenset[str]


class ExternalIpRules:
    """Remembers what must not occur twice."""

    def __init__(self, loader: Loader, register: Register, load_balancers: LoadBalancers, servers: ServerRules,
                 keepers: KeeperRules) -> None:
        self._loader, self._register = loader, register
        self._load_balancers, self._servers, self._keepers = load_balancers, servers, keepers
        self._owner_lines: dict[int, tuple[Address, int]] = {}
        self._inside: list[tuple[Network, int]] = []

    def check(self, external_ips: list[Draft]) -> None:
        """All of a site."""
        for external_ip in external_ips:
            self._external_ip(external_ip)
        self._servers.check_others()
        check_routers(external_ips, self._loader)
        for external_ip in external_ips:
            for other, node in external_ip.items("not_with"):
                if other == external_ip.address("address"):
                    self._loader.problem(node, f"not_with: {other} can't be apart from itself")
                elif self._register.where(("external IP", other)) is None:
                    self._loader.problem(node, f"not_with: there is no external IP {other}")

    def _external_ip(self, draft: Draft) -> None:
        address = draft.address("address")
        if address is not None:
            self._check_address(address, draft.nodes["address"])
        self._check_names(draft)
        self._check_inner_addresses(draft, address)
        for prefix, node in draft.items("inside"):
            self._check_inside(prefix, node, address)
        if (router := draft.address("router")) is not None:
            self._servers.not_an_lbs("router", draft)
            self._loader.same_version(router, address, draft.nodes["router"], "router")
        if draft.word("filtering") not in (None, FILTERINGS[0]) and draft.word("mapping") in (None, MAPPINGS[0]):
            self._loader.problem(
                draft.nodes["filtering"],
                f"filtering: {draft.word('filtering')} needs mapping: endpoint-independent; else one port is several "
                "inside hosts' at once, and nobody can tell whose a datagram is",
            )
        owner = Owner(draft, f"in line {line_of(draft.node)}") if draft.word("nat") != "full" else None
        self._check_services(draft.parts("services"), address, owner)
        if draft.word("nat") == "full":
            keep_ports_apart(draft, self._loader)
        check_sliced(draft, self._loader)
        self._keepers.check_copies(draft)

    def _check_address(self, address: Address, node: yaml.Node) -> None:
        self._register.once(node, ("external IP", address), f"the external IP {address} is already used")
        other, line = self._owner_lines.setdefault(owner_of(address.packed), (address, line_of(node)))
        if other != address:
            self._loader.problem(
                node,
                f"the external IP {address} can't be told from {other} (line {line}) in the switches' cookies, "
                "which hold a checksum of IPv6 addresses: take another address",
            )

    def _check_names(self, draft: Draft) -> None:
        """Of the load balancers that it may be on."""
        name = draft.word("load_balancer")
        if name is not None:
            node = draft.nodes["load_balancer"]
            if name in self._load_balancers.standby:
                self._loader.problem(
                    node, f"load balancer {name} is standby: it gets external IPs by failover or by hand only"
                )
            self._check_name(name, node)
        for name, node in draft.items("only_on"):
            self._check_name(name, node)

    def _check_name(self, name: str, node: yaml.Node) -> None:
        names = self._load_balancers.names
        if names is not None and name not in names:
            self._loader.problem(node, f"unknown load balancer {in_quotes(name)}: {did_you_mean(name, names)}")

    def _check_inner_addresses(self, draft: Draft, external: Address | None) -> None:
        """Its gateway and its internal IPs."""
        gateway = draft.address("gateway")
        if gateway is not None:
            node = draft.nodes["gateway"]
            self._register.once(node, ("internal address", gateway),
                                f"the gateway {gateway} already belongs to another external IP; each needs its own")
            self._loader.same_version(gateway, external, node, "gateway")
        for address, node in draft.items("internal_ips"):
            self._register.once(node, ("internal address", address), f"the internal IP {address} is already used")
            self._loader.same_version(address, external, node, "internal IP")

    def _check_inside(self, prefix: Network, node: yaml.Node, external: Address | None) -> None:
        for other, line in self._inside:
            if other.version == prefix.version and other.overlaps(prefix):
                self._loader.problem(
                    node, f"inside {prefix} overlaps {other} (line {line}): a host has one NAT gateway"
                )
        for network in self._loader.networks.get("external_network", ()):
            if network.version == prefix.version and network.overlaps(prefix):
                self._loader.problem(
                    node, f"inside {prefix} overlaps external_network {network}: its hosts are outside"
                )
        self._inside.append((prefix, line_of(node)))
        self._loader.same_version(prefix, external, node, "inside")

    def _check_services(self, services: list[Draft], external: Address | None, owner: Owner | None) -> None:
        """Of one external IP."""
        own = Register(self._loader)
        for service in services:
            protocol, port = service.word("protocol"), service.number("port")
            if protocol is not None and port is not None:
                own.once(
                    service.nodes["port"],
                    (protocol, port),
                    f"this external IP already has a service on {protocol} port {port}",
                )
            if (check := service.values.get("health_check")) is not None:
                check_times(check, self._loader)
            self._servers.check(service.parts("servers"), external, owner)
