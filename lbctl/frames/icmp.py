"""ICMP errors (RFC 792, RFC 4443) that answer a packet.

Frames in, frames out; IPv4 or IPv6 by the frame.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from lbctl.frames.fragments import decode_start
from lbctl.frames.packets import Malformed, Packet, checksum, ip_frame, transport_checksum
from lbctl.values.addresses import is_host
from lbctl.values.protocols import ETHERNET_HEADER, ICMP, ICMPV6, TTL

_HEAD = Struct("!BBHI")
_TOS_INTERNETWORK_CONTROL = 0xC0
_QUERIES = {ICMP: frozenset((0, 8, 13, 14, 15, 16, 17, 18)), ICMPV6: frozenset(range(128, 256))}
"""ICMP types that are no errors; a type that is not known might be one."""
_LIMIT = {4: 576, 6: 1280}
"""Longest packet that an error may be, by IP version (RFC 1812 4.3.2.3, RFC 4443 2.4)."""


class Error(NamedTuple):
    """Type and code of an error, and its second word, for IPv4 and for IPv6."""

    ipv4: tuple[int, int, int]
    ipv6: tuple[int, int, int]


HOST_UNREACHABLE = Error((3, 1, 0), (1, 3, 0))
PORT_UNREACHABLE = Error((3, 3, 0), (1, 4, 0))
PROTOCOL_UNREACHABLE = Error((3, 2, 0), (4, 1, 6))
"""IPv6 says this with the place of the next-header field (RFC 4443 3.4)."""
TTL_EXPIRED = Error((11, 0, 0), (3, 0, 0))


def too_big(mtu: int) -> Error:
    """Fragmentation needed (RFC 1191), packet too big (RFC 4443): the next link takes `mtu` bytes."""
    return Error((3, 4, mtu), (2, 0, mtu))


def error(frame: bytes, kind: Error, source_mac: bytes, source: bytes) -> bytes | None:
    """The frame with that error, from `source`, which answers the IP packet in `frame`.

    None where RFC 1122 3.2.2 and RFC 4443 2.4 forbid one: to an ICMP error, to broadcast and multicast, to a fragment
    other than the first, to a source that is not one host; and to a malformed frame.
    """
    try:
        packet = decode_start(frame)
    except Malformed:
        return None
    if packet.eth_dst[0] & 1 or not is_host(packet.dst) or is_error(frame, packet):
        return None
    version = 4 if len(packet.src) == 4 else 6
    head = 28 if version == 4 else 48
    quoted = frame[ETHERNET_HEADER:packet.payload_offset + packet.payload_length][:_LIMIT[version] - head]
    kind_and_code = kind.ipv4 if version == 4 else kind.ipv6
    return message(packet.eth_src, source_mac, source, packet.src, *kind_and_code, quoted)


def is_error(frame: bytes, packet: Packet) -> bool:
    """Is it ICMP, and no query?"""
    if packet.protocol not in _QUERIES:
        return False
    return packet.payload_length == 0 or frame[packet.payload_offset] not in _QUERIES[packet.protocol]


def message(eth_dst: bytes, eth_src: bytes, src: bytes, dst: bytes, kind: int, code: int, word: int, body: bytes, *,
            ttl: int = TTL) -> bytes:
    """A frame with one ICMP message, checksum included. word: the 4 bytes after the checksum."""
    data = _HEAD.pack(kind, code, 0, word) + body
    if len(src) == 4:
        protocol, total = ICMP, checksum(data)
    else:
        protocol, total = ICMPV6, transport_checksum(ICMPV6, src, dst, data)
    return ip_frame(eth_dst, eth_src, src, dst, protocol, _HEAD.pack(kind, code, total, word) + body, ttl=ttl,
                    tos=_TOS_INTERNETWORK_CONTROL if kind not in _QUERIES[protocol] else 0)
