"""Multicast listener reports (MLDv2, RFC 3810): a switch that snoops lets neighbour solicitations through to those
alone who have reported that they listen to the address's group."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from lbctl.frames.discovery import link_local, multicast_mac, solicited_node
from lbctl.frames.packets import ip_frame, transport_checksum
from lbctl.values.protocols import ICMPV6

REPORT, TO_EXCLUDE = 143, 4
"""The ICMPv6 type; and of a record: listens to all sources from now on (RFC 3810 5.2.12)."""
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000016")
"""All that are able to do MLDv2."""
_HOP_BY_HOP = 0
_ROUTER_ALERT = bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0])
"""A hop-by-hop header with the option that such reports must have (RFC 2711), and padding."""


def report(source_mac: bytes, addresses: Sequence[bytes]) -> bytes:
    """The frame by which the port with that MAC says that it listens to the solicited-node groups of these addresses
    (16 bytes each)."""
    source = link_local(source_mac)
    records = b"".join(struct.pack("!BBH", TO_EXCLUDE, 0, 0) + solicited_node(address) for address in addresses)
    data = struct.pack("!BBHHH", REPORT, 0, 0, 0, len(addresses)) + records
    total = transport_checksum(ICMPV6, source, ALL_ROUTERS, data)
    body = _ROUTER_ALERT + data[:2] + total.to_bytes(2) + data[4:]
    return ip_frame(multicast_mac(ALL_ROUTERS), source_mac, source, ALL_ROUTERS, _HOP_BY_HOP, body, ttl=1)
