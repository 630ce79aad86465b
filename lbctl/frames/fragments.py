"""Fragments of IP packets (RFC 791 section 3.2, RFC 8200 section 4.5): reading them, giving them other addresses, and
cutting packets into them.

Frames and IP packets in, the same out. A fragment is translated as it came, never put together with others: the first
one has the ports and the checksum, which is changed by what has changed (RFC 1624); the others have addresses alone.
"""

from __future__ import annotations

from typing import NamedTuple

from lbctl.frames.icmp_translation import Carried, carried, readdressed, with_addresses
from lbctl.frames.packets import FRAGMENT_HEADER, SKIPPED_HEADERS, Malformed, Packet, checksum, decode
from lbctl.values.addresses import is_host
from lbctl.values.keys import unpack_key
from lbctl.values.protocols import ETHERNET_HEADER

LARGEST = 0xFFFF
"""Bytes that fragments together may have."""
_IPV4, _IPV6 = 20, 40
"""Bytes of a header without options."""
_MORE = 0x2000
_COPIED = 0x80
"""Flag of an IPv4 option: all fragments have it."""


class Fragment(NamedTuple):
    """One fragment.

    datagram: what all fragments of one packet share, and no other's do at the time: addresses and identification, with
    IPv4 the protocol too. offset, length: of what it holds, in bytes of what the packet carried. end: of the IP packet
    in the frame.
    """

    datagram: bytes
    source: bytes
    destination: bytes
    offset: int
    length: int
    last: bool
    end: int


def decode_fragment(frame: bytes) -> Fragment:
    """Of an untagged Ethernet frame. Raises Malformed, also for what is whole."""
    found = _ipv6_fragment(frame) if frame[12:14] == b"\x86\xdd" else _ipv4_fragment(frame)
    if frame[6] & 1 or not is_host(found.source):
        raise Malformed("source is not a host")
    if found.length <= 0 or found.length % 8 and not found.last or found.offset + found.length > LARGEST:
        raise Malformed("bad fragment length")
    return found


def _ipv4_fragment(frame: bytes) -> Fragment:
    start = ETHERNET_HEADER
    if len(frame) < start + _IPV4:
        raise Malformed("truncated")
    header, total = (frame[start] & 15) * 4, int.from_bytes(frame[start + 2:start + 4])
    place = int.from_bytes(frame[start + 6:start + 8])
    offset, last = (place & 0x1FFF) * 8, not place & _MORE
    if frame[start] >> 4 != 4 or header < _IPV4 or last and not offset:
        raise Malformed("not a fragment")
    if start + total > len(frame):
        raise Malformed("truncated")
    source, destination = frame[start + 12:start + 16], frame[start + 16:start + 20]
    datagram = source + destination + frame[start + 9:start + 10] + frame[start + 4:start + 6]
    return Fragment(datagram, source, destination, offset, total - header, last, start + total)


def _ipv6_fragment(frame: bytes) -> Fragment:
    at, _ = _fragment_header(frame)
    end = ETHERNET_HEADER + _IPV6 + int.from_bytes(frame[18:20])
    place = int.from_bytes(frame[at + 2:at + 4])
    source, destination = frame[22:38], frame[38:54]
    datagram = source + destination + frame[at + 4:at + 8]
    return Fragment(datagram, source, destination, place & 0xFFF8, end - at - 8, not place & 1, end)


def _fragment_header(frame: bytes) -> tuple[int, int]:
    """Where an IPv6 packet's fragment header is in its frame, and where the byte that says so. Raises Malformed."""
    at, told = ETHERNET_HEADER + _IPV6, ETHERNET_HEADER + 6
    if len(frame) < at or frame[ETHERNET_HEADER] >> 4 != 6 or at + int.from_bytes(frame[18:20]) > len(frame):
        raise Malformed("truncated")
    end = at + int.from_bytes(frame[18:20])
    while at + 8 <= end:
        if frame[told] == FRAGMENT_HEADER:
            return at, told
        if frame[told] not in SKIPPED_HEADERS:
            raise Malformed("not a fragment")
        at, told = at + 8 + frame[at + 1] * 8, at
    raise Malformed("truncated")


def decode_first(frame: bytes) -> Packet:
    """What the first fragment of a packet tells of it; payload_length: of the fragment. Raises Malformed, also where
    the header that has the ports is cut (RFC 1858: no sane host does that)."""
    if frame[12:14] != b"\x86\xdd":
        return decode(frame[:20] + bytes(2) + frame[22:])
    at, told = _fragment_header(frame)
    length = int.from_bytes(frame[18:20]) - 8
    head = bytearray(frame[:at])
    head[told], head[18:20] = frame[at], length.to_bytes(2)
    packet = decode(bytes(head) + frame[at + 8:])
    return packet._replace(payload_offset=packet.payload_offset + 8)


def decode_start(frame: bytes) -> Packet:
    """A whole packet, or the first fragment of one. Raises Malformed."""
    try:
        return decode(frame)
    except Malformed as refused:
        if refused.reason != "fragment" or decode_fragment(frame).offset:
            raise
    return decode_first(frame)


def first_carried(frame: bytes, fragment: Fragment) -> Carried | None:
    """What a connection, or an echo, is found by. None: neither TCP nor UDP nor an echo, or too short."""
    return carried(frame[ETHERNET_HEADER:fragment.end])


def translated(frame: bytes, fragment: Fragment, key: bytes) -> bytes:
    """The fragment as an IP packet with the addresses and ports of `key`."""
    data = frame[ETHERNET_HEADER:fragment.end]
    if fragment.offset:
        _, source, _, destination, _ = unpack_key(key)
        return with_addresses(data, source, destination)
    found = carried(data)
    assert found is not None, "what a way was found by"
    return readdressed(data, found.transport, key)


def cut(data: bytes, mtu: int) -> list[bytes]:
    """An IPv4 packet, or a fragment of one, as packets of at most `mtu` bytes (RFC 791: at least 68), in order."""
    if len(data) <= mtu:
        return [data]
    size = (data[0] & 15) * 4
    place = int.from_bytes(data[6:8])
    first, rest = bytearray(data[:size]), _copied_options(data[:size])
    step = (mtu - size) // 8 * 8
    pieces = []
    for at in range(0, len(data) - size, step):
        body = data[size + at:size + at + step]
        head = bytearray(first if at == 0 else rest)
        more = place & _MORE or (_MORE if size + at + step < len(data) else 0)
        head[2:4] = (size + len(body)).to_bytes(2)
        head[6:8] = (more | (place & 0x1FFF) + at // 8).to_bytes(2)
        head[10:12] = bytes(2)
        head[10:12] = checksum(bytes(head)).to_bytes(2)
        pieces.append(bytes(head) + body)
    return pieces


def _copied_options(header: bytes) -> bytes:
    """The header of the fragments after the first: options that they do not have are replaced by "no operation"."""
    out, at = bytearray(header), _IPV4
    while at < len(header) and header[at] != 0:
        length = 1 if header[at] == 1 else max(2, header[at + 1]) if at + 1 < len(header) else 1
        if not header[at] & _COPIED:
            end = min(at + length, len(header))
            out[at:end] = b"\1" * (end - at)
        at += length
    return bytes(out)
