"""Multicast listener discovery (MLDv2, RFC 3810; version 1, RFC 2710): a switch that snoops lets neighbour
solicitations through to those alone who have reported that they listen to the address's group, and asks for reports."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lbctl.frames.discovery import link_local, multicast_mac, solicited_node
from lbctl.frames.packets import Malformed, ip_frame, transport_checksum
from lbctl.values.protocols import ICMPV6

QUERY, OLD_REPORT, REPORT = 130, 131, 143
"""ICMPv6 types; the old one is version 1's."""
IS_EXCLUDE, TO_EXCLUDE = 2, 4
"""Types of a record: listens to all sources; does so from now on (RFC 3810 5.2.12)."""
HOP_LIMIT = 1
RECORDS = 70
"""In a report at most: with 1500 bytes there is room for 72."""
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000016")
"""All that are able to do MLDv2."""
_HOP_BY_HOP = 0
_LINK_LOCAL = bytes.fromhex("fe80")
_ROUTER_ALERT = bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0])
"""A hop-by-hop header with the option that such reports must have (RFC 2711), and padding."""


class Query(NamedTuple):
    """group: 16 bytes, who listens to it is asked; None: to any. delay: seconds in which to answer. old: by version 1,
    whose reports alone such a switch knows."""

    group: bytes | None
    delay: float
    old: bool


def report(source_mac: bytes, addresses: Sequence[bytes]) -> bytes:
    """The frame by which the port with that MAC says that it listens from now on to the solicited-node groups of these
    addresses (16 bytes each)."""
    return _report(source_mac, TO_EXCLUDE, [solicited_node(address) for address in addresses])


def answers(source_mac: bytes, groups: Sequence[bytes], old: bool) -> Iterator[bytes]:
    """The frames by which the port with that MAC answers that it listens to these groups."""
    if old:
        for group in groups:
            yield _message(source_mac, group, struct.pack("!BBHHH", OLD_REPORT, 0, 0, 0, 0) + group)
        return
    for first in range(0, len(groups), RECORDS):
        yield _report(source_mac, IS_EXCLUDE, groups[first:first + RECORDS])


def decode_query(frame: bytes) -> Query:
    """Raises Malformed, also of what a router has forwarded (RFC 3810 5.1.14)."""
    if len(frame) < 86 or frame[12:14] != b"\x86\xdd" or frame[20] != _HOP_BY_HOP or frame[21] != HOP_LIMIT:
        raise Malformed("not a multicast listener query")
    start, end = 62 + 8 * frame[55], 54 + int.from_bytes(frame[18:20])
    message = frame[start:end]
    if (frame[54] != ICMPV6 or frame[22:24] != _LINK_LOCAL or end > len(frame) or len(message) < 24
            or message[0] != QUERY):
        raise Malformed("not a multicast listener query")
    if transport_checksum(ICMPV6, frame[22:38], frame[38:54], message):
        raise Malformed("a multicast listener query with a wrong checksum")
    old = len(message) == 24
    code = int.from_bytes(message[4:6])
    if not old and code >= 0x8000:
        code = (code & 0xFFF | 0x1000) << (code >> 12 & 7) + 3
    group = message[8:24]
    return Query(group if any(group) else None, code / 1000, old)


def _report(source_mac: bytes, kind: int, groups: Sequence[bytes]) -> bytes:
    records = b"".join(struct.pack("!BBH", kind, 0, 0) + group for group in groups)
    return _message(source_mac, ALL_ROUTERS, struct.pack("!BBHHH", REPORT, 0, 0, 0, len(groups)) + records)


def _message(source_mac: bytes, to: bytes, data: bytes) -> bytes:
    source = link_local(source_mac)
    total = transport_checksum(ICMPV6, source, to, data)
    body = _ROUTER_ALERT + data[:2] + total.to_bytes(2) + data[4:]
    return ip_frame(multicast_mac(to), source_mac, source, to, _HOP_BY_HOP, body, ttl=HOP_LIMIT)
