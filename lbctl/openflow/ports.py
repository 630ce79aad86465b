"""The ports of an LB, as far as its flows need to know them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lbctl.openflow.flow import Match
from lbctl.site.model import ExternalIp, Hop, Tunnel
from lbctl.values.addresses import Address
from lbctl.values.side import EXTERNAL, INTERNAL, Side


@dataclass(frozen=True, slots=True)
class Port:
    """A port as the switch reports it: OpenFlow number and MAC (text). limit: bytes of an IP packet that its network
    takes; None: larger ones do not come."""

    number: int
    mac: str
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    external: Port
    internal: Port
    tunnels: Mapping[str, Port] = field(default_factory=dict)
    """By transport. Their MAC is the internal port's: Open vSwitch gives a tunnel port another one each time that it
    starts."""

    def side_of(self, number: int) -> Side:
        """Where what comes in by the port with that OpenFlow number comes from."""
        return EXTERNAL if number == self.external.number else INTERNAL

    def of(self, side: Side, tunnel: Tunnel | None = None) -> Port:
        """The port of that side; on the internal one, the port to that tunnel."""
        return self.external if side is EXTERNAL else self.to(tunnel)

    def to(self, tunnel: Tunnel | None) -> Port:
        """The port to what is behind that tunnel; None: to the internal network. That one too if there is no such
        tunnel port: what is sent as if it came from there meets no flow."""
        return self.tunnels.get(tunnel.transport, self.internal) if tunnel else self.internal

    def ways(self, hops: Iterable[Hop]) -> set[tuple[Port, Tunnel | None]]:
        """How to send to all hosts on the internal network, and to what is behind the tunnels of these hops."""
        return {(self.internal, None)} | {(self.to(hop.tunnel), hop.tunnel) for hop in hops}

    def hops(self, external_ip: ExternalIp) -> dict[Address, Hop]:
        """Those of its hops that there is a port to."""
        hops = external_ip.hops()
        if all(hop.tunnel is None or hop.tunnel.transport in self.tunnels for hop in hops.values()):
            return hops
        return {server: hop for server, hop in hops.items()
                if hop.tunnel is None or hop.tunnel.transport in self.tunnels}

    def inside(self, external_ip: ExternalIp) -> list[Port]:
        """The ports to its servers or inside hosts."""
        used = {hop.tunnel.transport for hop in self.hops(external_ip).values() if hop.tunnel}
        return [self.internal, *(port for transport, port in self.tunnels.items() if transport in used)]


def comes_by(port: Port, tunnel: Tunnel | None = None) -> Match:
    """What comes in by that port; from a tunnel only what its other end has sent, with the right key."""
    if tunnel is None:
        return {"in_port": port.number}
    return {"in_port": port.number, "tunnel_id": tunnel.key, "tun_ipv4_src": str(tunnel.remote)}
