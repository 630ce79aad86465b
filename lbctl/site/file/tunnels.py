"""Servers behind tunnels (seed modification 5), as a site file has them."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from lbctl.site.file.fields import FieldReader
from lbctl.site.file.yaml_reader import line_of
from lbctl.site.model import TRANSPORTS, TUNNEL_OVERHEAD, Hop, LoadBalancer, Tunnel
from lbctl.values.addresses import Address

PORT_KEYS = {transport: f"{transport}_port" for transport in TRANSPORTS if transport in TUNNEL_OVERHEAD}
"""A load balancer's keys for the names of its tunnel ports, by transport."""
SERVER_KEYS = (("remote",), ("key", "mtu"))
"""Which keys a server behind a tunnel must have besides `transport`, and may have."""
SMALLEST_MTU = {4: 576, 6: 1280}
"""Bytes that each link must take, by IP version of what it carries (RFC 791: what each host takes; RFC 8200)."""
_KEY_BITS = {"vxlan": 24, "geneve": 24, "gre": 32}


def first_tunnel_key(server: yaml.Node) -> yaml.Node | None:
    """The first key of a server that only one behind a tunnel may have."""
    pairs = server.value if isinstance(server, yaml.MappingNode) else []
    return next((key for key, _ in pairs if key.value in (name for names in SERVER_KEYS for name in names)), None)


class TunnelReader:
    """internal_mtu: bytes that what carries the tunnels takes."""

    def __init__(self, reader: FieldReader, internal_mtu: int, load_balancers: Sequence[LoadBalancer]) -> None:
        self._reader = reader
        self._internal_mtu = internal_mtu
        self._load_balancers = load_balancers
        self._tunnels: dict[Address, tuple[Tunnel | None, str]] = {}

    def tunnel(self, transport: str, server: Address | None, values: dict[str, yaml.Node]) -> Tunnel | None:
        """The tunnel of that transport that a server with these keys is behind."""
        remote = self._remote(values.get("remote"))
        largest = 2 ** _KEY_BITS[transport] - 1
        key = self._reader.whole(values["key"], "key", 0, largest) if "key" in values else 0
        mtu = self._mtu(transport, server, values)
        for lb in self._load_balancers:
            if transport not in dict(lb.tunnel_ports):
                self._reader.problem(values.get("transport"), f"transport {transport} needs a tunnel port at each load balancer, and "
                                     f"{lb.name} has no {PORT_KEYS[transport]}")
        return None if remote is None or key is None or mtu is None else Tunnel(transport, remote, key, mtu)

    def check_hop(self, hop: Hop, node: yaml.Node) -> None:
        """A next hop is behind one tunnel, or behind none."""
        tunnel, where = self._tunnels.setdefault(hop.address, (hop.tunnel, f"in line {line_of(node)}"))
        if tunnel != hop.tunnel:
            self._reader.problem(node, f"{hop.address} is reached by another tunnel than {where}: there is one way to an address")

    def known(self, hop: Hop, where: str) -> None:
        """A next hop that something else has already."""
        self._tunnels.setdefault(hop.address, (hop.tunnel, where))

    def _remote(self, node: yaml.Node | None) -> Address | None:
        remote = self._reader.address(node, "remote")
        if remote is not None and remote.version != 4:
            self._reader.problem(node, f"remote {remote} is IPv6: a tunnel is carried by IPv4 (what is inside may be IPv6)")
            return None
        return remote

    def _mtu(self, transport: str, server: Address | None, values: dict[str, yaml.Node]) -> int | None:
        overhead = TUNNEL_OVERHEAD[transport]
        most, least = self._internal_mtu - overhead, SMALLEST_MTU[server.version if server else 4]
        why = f"internal_mtu {self._internal_mtu} less the {overhead} bytes that {transport} adds"
        node = values.get("mtu", values.get("transport"))
        mtu = self._reader.whole(values["mtu"], "mtu", 1, 0xFFFF) if "mtu" in values else most
        if mtu is None:
            return None
        if mtu > most:
            self._reader.problem(node, f"mtu {mtu} is more than the tunnel can carry: at most {most}, which is {why}")
        elif mtu < least:
            what = f"mtu {mtu}" if "mtu" in values else f"the tunnel's mtu {mtu} ({why})"
            self._reader.problem(node, f"{what} is too small: packets to {server or 'a server'} may have {least} bytes, which no network "
                                 "may refuse")
        else:
            return mtu
        return None
