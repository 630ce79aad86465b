"""IP addresses and endpoints."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_IPV6_SPECIAL = bytes(15)


def address_order(address: Address) -> tuple[int, bytes]:
    """Sorts addresses of both IP versions, which do not compare with one another."""
    return address.version, address.packed


class Endpoint(NamedTuple):
    """An address and a transport port."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.address.version == 4 else f"[{self.address}]:{self.port}"


def is_host(address: bytes) -> bool:
    """Whether the address can be one host's: not unspecified, loopback, multicast, reserved or broadcast."""
    if len(address) == 16:
        return address[0] != 0xFF and address[:15] != _IPV6_SPECIAL
    return address[0] < 224 and address[0] != 0 and address[0] != 127
