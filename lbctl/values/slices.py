"""What a slice of a service's clients is (docs/slices.md).

It is what the bits 1 to 8 of the client's port say, or, where all connections of a client shall meet one server, the
last 8 bits of its address. Bit 0 of the port says nothing: Linux's connect() takes ports of one parity
(net/ipv4/inet_hashtables.c). A host's next connections differ in the low bits first, so the shares are right for one
client as for many, and neighbouring slices have different servers.
"""

from __future__ import annotations

from typing import NamedTuple

from lbctl.values.addresses import Address
from lbctl.values.keys import unpack_key

SLICES = 256
"""Of a service: with 10 servers the largest share is 1.016 of the mean, with 50 1.17; 64 would make 1.09 and 1.56."""
PORT_MASK = (SLICES - 1) << 1


class Sent(NamedTuple):
    """What the clients of a slice have sent, as far as it was counted. last: when some of it was seen."""

    packets: int = 0
    bytes: int = 0
    last: float | None = None


NOTHING_SENT = Sent()


class Count(NamedTuple):
    """How many connections a server had, and when."""

    connections: int
    at: float


def slice_of(key: bytes, by_client: bool) -> int:
    """Which slice a connection of that key is in. by_client: is it the client's address that tells?"""
    _, client, port, _, _ = unpack_key(key)
    return client[-1] if by_client else slice_of_port(port)


def slice_of_port(port: int) -> int:
    """The slice, by its port, of a client."""
    return (port & PORT_MASK) >> 1


def clients_of(external_ip: Address, number: int) -> str:
    """The addresses that a slice by address is made of, as address/mask: one that is no prefix."""
    kind = type(external_ip)
    return f"{kind(number)}/{kind(SLICES - 1)}"
