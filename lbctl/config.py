"""The site file: YAML -> `lbctl.model.Site`, or all its problems at once, each with file and line.

The format is shown by examples/site.yaml. Every list needs at least one item (to take a service out
of use, remove the service, not its last server). `nat`, `scheduler`, `weight` and `settings` may be left out;
the defaults are those of `lbctl.model`.
"""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import yaml

from lbctl.config_fields import FieldReader
from lbctl.config_yaml import ConfigError, Problem, did_you_mean, line_of, quoted
from lbctl.model import (
    NAT_KINDS,
    PROTOCOL_NUMBERS,
    SCHEDULERS,
    ExternalIp,
    LoadBalancer,
    Server,
    Service,
    Settings,
    Site,
)

__all__ = ["ConfigError", "Problem", "load", "parse"]

MAX_BYTES = 4 * 1024 * 1024
MAX_WEIGHT = 65535

_NAT_LATER = ("full",)
_PROTOCOLS_LATER = ("udp", "icmp", "sctp")
_SETTING_LIMITS = {"linger": 0xFFFF}
"""What OpenFlow has fewer than 32 bits for (a flow's timeout)."""


def load(path: str | Path) -> Site:
    """Read and validate a site file. Raises ConfigError, also when it cannot be read."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([Problem(file, None, "there is no such file")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Problem(file, None, f"cannot be read: {reason}")]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError([Problem(file, None, f"larger than {MAX_BYTES // 1024**2} MiB: this is no site file")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise ConfigError([Problem(file, line, message)]) from None
    return parse(text, file)


def parse(text: str, file: str = "site file") -> Site:
    """Validate the text of a site file; `file` is the name that problems carry. Raises ConfigError."""
    reader = FieldReader(file)
    root = reader.compose(text)
    site = None
    if root is not None:
        site = _SiteReader(reader).site(root)
    elif not reader.problems:
        reader.problem(None, "the file is empty: examples/site.yaml shows what belongs into it")
    if site is None or reader.problems:
        raise ConfigError(reader.problems)
    return site


class _SiteReader:
    """Reads the parts of one site file, and remembers what must not occur twice."""

    def __init__(self, reader: FieldReader) -> None:
        self._reader = reader
        self._seen: dict[tuple[object, ...], int] = {}
        self._external_network: IPv4Network | None = None
        self._internal_network: IPv4Network | None = None
        self._names: list[str] = []
        self._names_complete = True
        self._servers: list[tuple[IPv4Address, yaml.Node]] = []
        self._server_owners: dict[IPv4Address, tuple[int, int]] = {}

    def site(self, root: yaml.Node) -> Site | None:
        required = ("load_balancers", "external_network", "internal_network", "external_ips")
        values = self._reader.mapping(root, "site file", required, ("settings",))
        if values is None:
            return None
        external = self._external_network = self._reader.network(values.get("external_network"), "external_network")
        internal = self._internal_network = self._reader.network(values.get("internal_network"), "internal_network")
        if external and internal and external.overlaps(internal):
            self._reader.problem(
                values["internal_network"],
                f"internal_network {internal} overlaps external_network {external}: they must be apart",
            )
        balancers = [self._load_balancer(node) for node in self._items(values, "load_balancers")]
        ips = [self._external_ip(index, node) for index, node in enumerate(self._items(values, "external_ips"))]
        self._check_servers_against_gateways()
        settings = self._settings(values["settings"]) if "settings" in values else Settings()
        if self._reader.problems or external is None or internal is None:
            return None
        return Site(tuple(filter(None, balancers)), external, internal, tuple(filter(None, ips)), settings)

    def _load_balancer(self, node: yaml.Node) -> LoadBalancer | None:
        required = ("name", "dpid", "external_port", "internal_port")
        values = self._reader.mapping(node, "load balancer", required)
        name = self._reader.name(values.get("name"), "name") if values else None
        if name is None or name in self._names:
            # The name that is meant is not known, so "unknown load balancer" would name a problem that is none.
            self._names_complete = False
        if values is None:
            return None
        if name is not None:
            self._names.append(name)
            self._once(values["name"], ("name", name), f"the name {name!r} is already used")
        dpid = self._reader.dpid(values.get("dpid"), "dpid")
        if dpid is not None:
            self._once(values["dpid"], ("dpid", dpid), f"the dpid {dpid:016x} is already used")
        external_port = self._reader.port_name(values.get("external_port"), "external_port")
        internal_port = self._reader.port_name(values.get("internal_port"), "internal_port")
        if external_port is not None and external_port == internal_port:
            self._reader.problem(
                values["internal_port"],
                f"internal_port is the same as external_port, {external_port!r}: a load balancer needs two ports",
            )
        if name is None or dpid is None or external_port is None or internal_port is None:
            return None
        return LoadBalancer(name, dpid, external_port, internal_port)

    def _external_ip(self, index: int, node: yaml.Node) -> ExternalIp | None:
        required = ("address", "load_balancer", "gateway", "services")
        values = self._reader.mapping(node, "external IP", required, ("nat",))
        if values is None:
            return None
        address = self._reader.address_in(values.get("address"), "address", self._external_network, "external_network")
        if address is not None:
            self._once(values["address"], ("external IP", address), f"the external IP {address} is already used")
        name = self._assigned_to(values.get("load_balancer"))
        gateway = self._reader.address_in(values.get("gateway"), "gateway", self._internal_network, "internal_network")
        if gateway is not None:
            self._once(
                values["gateway"],
                ("gateway", gateway),
                f"the gateway {gateway} already belongs to another external IP; each needs its own",
            )
        nat = self._reader.choice(values["nat"], "nat", NAT_KINDS, _NAT_LATER) if "nat" in values else NAT_KINDS[0]
        owner = (index, line_of(node)) if nat == "destination" else None
        services = [self._service(index, owner, item) for item in self._items(values, "services")]
        if address is None or name is None or gateway is None or nat is None:
            return None
        return ExternalIp(address, name, gateway, nat, tuple(filter(None, services)))

    def _assigned_to(self, node: yaml.Node | None) -> str | None:
        name = self._reader.raw(node, "load_balancer", "the name of a load balancer")
        if name is None or node is None or name in self._names:
            return name
        if self._names_complete:
            self._reader.problem(node, f"unknown load balancer {quoted(name)}: {did_you_mean(name, self._names)}")
        return None

    def _service(self, index: int, owner: tuple[int, int] | None, node: yaml.Node) -> Service | None:
        values = self._reader.mapping(node, "service", ("protocol", "port", "servers"), ("scheduler",))
        if values is None:
            return None
        protocol = self._reader.choice(values.get("protocol"), "protocol", tuple(PROTOCOL_NUMBERS), _PROTOCOLS_LATER)
        port = self._reader.whole(values.get("port"), "port", 1, 65535)
        if protocol is not None and port is not None:
            self._once(
                values["port"],
                ("service", index, protocol, port),
                f"this external IP already has a service on {protocol} port {port}",
            )
        scheduler: str | None = SCHEDULERS[0]
        if "scheduler" in values:
            scheduler = self._reader.choice(values["scheduler"], "scheduler", SCHEDULERS)
        nodes = self._items(values, "servers")
        servers = [self._server(owner, item) for item in nodes]
        self._check_servers_differ(servers, nodes)
        if protocol is None or port is None or scheduler is None:
            return None
        return Service(protocol, port, scheduler, tuple(filter(None, servers)))

    def _server(self, owner: tuple[int, int] | None, node: yaml.Node) -> Server | None:
        values = self._reader.mapping(node, "server", ("address", "port"), ("weight",))
        if values is None:
            return None
        address = self._reader.address_in(values.get("address"), "address", self._internal_network, "internal_network")
        port = self._reader.whole(values.get("port"), "port", 1, 65535)
        weight = self._reader.whole(values["weight"], "weight", 1, MAX_WEIGHT) if "weight" in values else 1
        if address is not None:
            self._servers.append((address, values["address"]))
            self._check_owner(address, owner, values["address"])
        if address is None or port is None or weight is None:
            return None
        return Server(address, port, weight)

    def _check_servers_differ(self, servers: list[Server | None], nodes: list[yaml.Node]) -> None:
        lines: dict[object, int] = {}
        for server, node in zip(servers, nodes, strict=True):
            if server is None:
                continue
            if server.endpoint in lines:
                self._reader.problem(
                    node,
                    f"server {server.endpoint} is already in this service (line {lines[server.endpoint]}): "
                    "remove one, and give the other a weight",
                )
            lines.setdefault(server.endpoint, line_of(node))

    def _check_owner(self, address: IPv4Address, owner: tuple[int, int] | None, node: yaml.Node) -> None:
        if owner is None:
            return
        index, line = self._server_owners.setdefault(address, owner)
        if index != owner[0]:
            self._reader.problem(
                node,
                f"server {address} already belongs to the external IP in line {line}; "
                "with nat: destination a server belongs to one external IP",
            )

    def _check_servers_against_gateways(self) -> None:
        for address, node in self._servers:
            line = self._seen.get(("gateway", address))
            if line is not None:
                self._reader.problem(node, f"server {address} has the address of the gateway in line {line}")

    def _settings(self, node: yaml.Node) -> Settings:
        fields = dataclasses.fields(Settings)
        values = self._reader.mapping(node, "settings", (), [field.name for field in fields]) or {}
        given: dict[str, int | float | None] = {}
        for field in fields:
            if field.name not in values:
                continue
            if isinstance(field.default, float):
                given[field.name] = self._reader.positive(values[field.name], field.name)
            else:
                high = _SETTING_LIMITS.get(field.name, 0xFFFFFFFF)
                given[field.name] = self._reader.whole(values[field.name], field.name, 1, high)
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]

    def _items(self, values: dict[str, yaml.Node], key: str) -> list[yaml.Node]:
        return self._reader.items(values.get(key), key)

    def _once(self, node: yaml.Node, key: tuple[object, ...], message: str) -> None:
        """Note a problem if the key was seen before; the message gets the line where."""
        if key in self._seen:
            self._reader.problem(node, f"{message} (line {self._seen[key]})")
        else:
            self._seen[key] = line_of(node)
