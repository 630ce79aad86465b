"""The site file: YAML -> `lbctl.model.Site`, or all its problems at once, each with file and line.

The format is shown by examples/site.yaml. Every list needs at least one item (to take a service out
of use, remove the service, not its last server). What may be left out has the defaults of `lbctl.model`.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TypeVar

import yaml

from lbctl.site.file import keepers as config_keepers
from lbctl.site.file.external_ips import ExternalIpReader
from lbctl.site.file.fields import FieldReader
from lbctl.site.file.tunnels import PORT_KEYS, TunnelReader
from lbctl.site.file.yaml_reader import ConfigError, Problem
from lbctl.site.model import ALGORITHMS, FAILOVERS, REBALANCE_MODES, LoadBalancer, Rebalance, Settings, Site

__all__ = ["ConfigError", "Problem", "load", "parse"]

MAX_BYTES = 4 * 1024 * 1024
_SETTING_LIMITS = {"linger": (1, 0xFFFF), "internal_mtu": (576, 0xFFFF)}
"""OpenFlow has 16 bits for a flow's timeout; an IP packet has at most 64 KiB."""
_SETTING_CHOICES = {"failover": FAILOVERS, "mode": REBALANCE_MODES, "algorithm": ALGORITHMS}
Fields = TypeVar("Fields", Settings, Rebalance)


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
    """Reads the parts of one site file."""

    def __init__(self, reader: FieldReader) -> None:
        self._reader = reader
        self._names: list[str] = []
        self._names_complete = True

    def site(self, root: yaml.Node) -> Site | None:
        required = ("load_balancers", "external_network", "internal_network", "external_ips")
        values = self._reader.mapping(root, "site file", required, ("settings", "rebalance", *config_keepers.KEYS))
        if values is None:
            return None
        external = self._reader.networks(values.get("external_network"), "external_network")
        internal = self._reader.networks(values.get("internal_network"), "internal_network")
        for outer, inner in itertools.product(external, internal):
            if outer.version == inner.version and outer.overlaps(inner):
                self._reader.problem(values["internal_network"],
                                     f"internal_network {inner} overlaps external_network {outer}: they must be apart")
        balancers = [self._load_balancer(node) for node in self._reader.items(values.get("load_balancers"), "load_balancers")]
        settings = self._fields(Settings, values["settings"], "settings") if "settings" in values else Settings()
        rebalance = self._fields(Rebalance, values["rebalance"], "rebalance") if "rebalance" in values else Rebalance()
        tunnels = TunnelReader(self._reader, settings.internal_mtu, [lb for lb in balancers if lb])
        keepers = config_keepers.KeeperReader(self._reader, values)
        standby = {lb.name for lb in balancers if lb and lb.standby}
        ips = ExternalIpReader(self._reader, external, internal, self._names if self._names_complete else None, standby, tunnels, keepers)
        external_ips = ips.read(self._reader.items(values.get("external_ips"), "external_ips"))
        if self._reader.problems:
            return None
        return Site(tuple(filter(None, balancers)), external, internal, tuple(filter(None, external_ips)), settings,
                    keepers.keepers, rebalance)

    def _load_balancer(self, node: yaml.Node) -> LoadBalancer | None:
        required = ("name", "dpid", "external_port", "internal_port")
        values = self._reader.mapping(node, "load balancer", required, (*PORT_KEYS.values(), "standby", "capacity"))
        name = self._reader.name(values.get("name"), "name") if values else None
        if name is None or name in self._names:
            # The name that is meant is not known, so "unknown load balancer" would name a problem that is none.
            self._names_complete = False
        if values is None:
            return None
        if name is not None:
            self._names.append(name)
            self._reader.once(values["name"], ("name", name), f"the name {name!r} is already used")
        dpid = self._reader.dpid(values.get("dpid"), "dpid")
        if dpid is not None:
            self._reader.once(values["dpid"], ("dpid", dpid), f"the dpid {dpid:016x} is already used")
        ports = self._ports(values)
        external_port, internal_port = ports.pop("external_port", None), ports.pop("internal_port", None)
        capacity = self._reader.positive(values["capacity"], "capacity") if "capacity" in values else 1.0
        standby = self._reader.boolean(values["standby"], "standby") if "standby" in values else False
        if name is None or dpid is None or external_port is None or internal_port is None or standby is None or capacity is None:
            return None
        tunnel_ports = tuple((transport, ports[key]) for transport, key in PORT_KEYS.items() if key in ports)
        return LoadBalancer(name, dpid, external_port, internal_port, tunnel_ports, capacity, standby)

    def _ports(self, values: dict[str, yaml.Node]) -> dict[str, str]:
        """Key -> name of the port, of those that can be read."""
        ports: dict[str, str] = {}
        for key in ("external_port", "internal_port", *PORT_KEYS.values()):
            port = self._reader.port_name(values[key], key) if key in values else None
            same = next((other for other, name in ports.items() if name == port), None)
            if same is not None:
                self._reader.problem(values[key], f"{key} is the same as {same}, {port!r}: a load balancer needs a port for each")
            elif port is not None:
                ports[key] = port
        return ports

    def _fields(self, kind: type[Fields], node: yaml.Node, what: str) -> Fields:
        """A mapping whose keys are the fields of a dataclass, all of which have defaults."""
        fields = dataclasses.fields(kind)
        values = self._reader.mapping(node, what, (), [field.name for field in fields]) or {}
        given: dict[str, int | float | str | None] = {}
        for field in fields:
            if field.name not in values:
                continue
            if field.name in _SETTING_CHOICES:
                given[field.name] = self._reader.choice(values[field.name], field.name, _SETTING_CHOICES[field.name])
            elif isinstance(field.default, bool):
                given[field.name] = self._reader.boolean(values[field.name], field.name)
            elif isinstance(field.default, float):
                given[field.name] = self._reader.positive(values[field.name], field.name)
            else:
                low, high = _SETTING_LIMITS.get(field.name, (1, 0xFFFFFFFF))
                given[field.name] = self._reader.whole(values[field.name], field.name, low, high)
        return kind(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
