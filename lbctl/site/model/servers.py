"""Servers of services, and how they are reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_args

from lbctl.site.forms import PORT, Choice, HostAddress, Inline, Whole
from lbctl.site.keys import Key
from lbctl.values.addresses import Address, Endpoint

Transport = Literal["ethernet", "vxlan", "geneve", "gre"]
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
"""How an LB reaches a server: on the internal network, or through a tunnel (seed modification 5)."""
TUNNEL_OVERHEAD: dict[Transport, int] = {"vxlan": 50, "geneve": 50, "gre": 42}
"""Bytes that a tunnel over IPv4 adds to the packets inside: IP, UDP or GRE with a key, its own header, and the Ethernet
header inside (RFC 7348, RFC 8926 without options, RFC 2890)."""
KEY_BITS: dict[Transport, int] = {"vxlan": 24, "geneve": 24, "gre": 32}
"""Of a tunnel's key."""
_TUNNELS = tuple(f"transport: {transport}" for transport in TUNNEL_OVERHEAD)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel that a server is at the other end of."""

    transport: Annotated[Transport, Key(
        Choice(TRANSPORTS), "how it is reached; all but ethernet are tunnels", required=False)]
    remote: Annotated[Address, Key(HostAddress(), "the tunnel's other end, an IPv4 address", required_for=_TUNNELS)]
    key: Annotated[int, Key(
        Whole(0, 2**32 - 1, {f"transport: {transport}": 2**bits - 1 for transport, bits in KEY_BITS.items()}),
        "the tunnel's VNI or key", only_for=_TUNNELS)] = 0
    mtu: Annotated[int, Key(
        Whole(1, 0xFFFF), "bytes that an IP packet in the tunnel may have", only_for=_TUNNELS,
        derived="all that internal_mtu leaves")] = 1450


class Hop(NamedTuple):
    """Whose MAC a packet for a server gets: its own or a router's; and through which tunnel (None: the internal
    network)."""

    address: Address
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A real server of a service."""

    address: Annotated[Address, Key(
        HostAddress(), "its address; in internal_network, unless it is behind a router or a tunnel")]
    port: Annotated[int, Key(PORT, "where it serves")]
    weight: Annotated[int, Key(
        Whole(0, 65535), "counts with every scheduler but round-robin; 0: no new connections", changeable=True,
    )] = 1
    next_hop: Annotated[Address | None, Key(
        HostAddress(), "the router on the internal network that it is behind",
        absent="it is on that network itself")] = None
    tunnel: Annotated[Tunnel | None, Key(
        Inline(Tunnel, decided_by="transport", unless=TRANSPORTS[0], whose="a tunnel's"),
        "the tunnel that it is behind")] = None
    max_connections: Annotated[int | None, Key(
        Whole(1, 1_000_000), "it gets no new connection while it has so many of its external IP", absent="no limit",
        changeable=True, shown="at most {} connections")] = None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.port)

    @property
    def hop(self) -> Hop:
        return Hop(self.next_hop or self.address, self.tunnel)
