"""ICMP errors about translated packets: what they quote, and the same packet before or after translation.

Bytes in, bytes out. Checksums are changed by what has changed under them (RFC 1624), never computed anew: what was
wrong stays wrong, so that its receiver notices. Lengths do not change, so the MTU that an error tells stays true, and
so do the extensions of RFC 4884 behind a quoted packet.
"""

from __future__ import annotations

from typing import NamedTuple

from lbctl.frames.packets import FRAGMENT_HEADER, SKIPPED_HEADERS, Packet
from lbctl.values.keys import pack_key, unpack_key
from lbctl.values.protocols import ETHERNET_HEADER, ICMP, ICMPV6, TCP, TTL, UDP

HEADER = 8
"""Bytes of an ICMP error before the packet that it quotes."""
QUOTED_TRANSPORT = 8
"""Bytes of the quoted packet's payload that every error has (RFC 792)."""
_ADDRESSES = {4: 12, 6: 8}
"""Where the addresses are in an IP header, by IP version."""
_CHECKSUM = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}
_IDENTIFIER = 4
"""Where they are in what IP carries: the checksum; ICMP's echo identifier."""
_ECHOES = {ICMP: (8, 0), ICMPV6: (128, 129)}
"""Types of echo request and reply."""


class Carried(NamedTuple):
    """What an IP packet, or its beginning, carries.

    key: as in the access table; an ICMP echo's has its identifier as both ports, since both of its ends go by it.
    transport: where in the packet its TCP, UDP or ICMP header starts.
    """

    key: bytes
    transport: int


def quoted(frame: bytes, packet: Packet) -> Carried | None:
    """What the packet carries that the ICMP error in `frame` quotes. None: nothing that a connection can be found
    by."""
    found = carried(frame[packet.payload_offset + HEADER:packet.payload_offset + packet.payload_length])
    return found if found and len(unpack_key(found.key)[1]) == len(packet.src) else None


def carried(data: bytes) -> Carried | None:
    """Of an IP packet whose end may be missing. None: too short, a fragment other than the first, or neither TCP nor
    UDP nor an ICMP echo."""
    if not data:
        return None
    place = _ipv6_transport(data) if data[0] >> 4 == 6 else _ipv4_transport(data)
    if place is None or len(data) < place[1] + QUOTED_TRANSPORT:
        return None
    protocol, start = place
    first = _ADDRESSES[data[0] >> 4]
    size = 4 if first == 12 else 16
    if protocol in _ECHOES:
        if data[start] not in _ECHOES[protocol]:
            return None
        ports = 2 * (int.from_bytes(data[start + _IDENTIFIER:start + _IDENTIFIER + 2]),)
    else:
        ports = int.from_bytes(data[start:start + 2]), int.from_bytes(data[start + 2:start + 4])
    source, destination = data[first:first + size], data[first + size:first + 2 * size]
    return Carried(pack_key(protocol, source, ports[0], destination, ports[1]), start)


def _ipv4_transport(data: bytes) -> tuple[int, int] | None:
    """Protocol, and where what it carries starts."""
    header = (data[0] & 15) * 4
    if data[0] >> 4 != 4 or len(data) < 20 or header < 20 or int.from_bytes(data[6:8]) & 0x1FFF:
        return None
    return (data[9], header) if data[9] in (TCP, UDP, ICMP) else None


def _ipv6_transport(data: bytes) -> tuple[int, int] | None:
    if len(data) < 40:
        return None
    protocol, start = data[6], 40
    while protocol in SKIPPED_HEADERS or protocol == FRAGMENT_HEADER:
        if start + 8 > len(data):
            return None
        if protocol == FRAGMENT_HEADER:
            if int.from_bytes(data[start + 2:start + 4]) >> 3:
                return None
            protocol, start = data[start], start + 8
        else:
            protocol, start = data[start], start + 8 + data[start + 1] * 8
    return (protocol, start) if protocol in (TCP, UDP, ICMPV6) else None


def readdressed(data: bytes, transport: int, key: bytes) -> bytes:
    """An IP packet, or its beginning, with the addresses and ports of `key`. transport: where its TCP, UDP or ICMP
    header starts; so much of it is there as `carried` asks for."""
    protocol, source, source_port, destination, destination_port = unpack_key(key)
    first = _ADDRESSES[4 if len(source) == 4 else 6]
    addresses, new_addresses = slice(first, first + 2 * len(source)), source + destination
    if protocol in _ECHOES:
        ports, new_ports = slice(transport + _IDENTIFIER, transport + _IDENTIFIER + 2), source_port.to_bytes(2)
    else:
        ports, new_ports = slice(transport, transport + 4), source_port.to_bytes(2) + destination_port.to_bytes(2)
    out = bytearray(with_addresses(data, source, destination))
    place = transport + _CHECKSUM[protocol]
    if len(data) >= place + 2 and not (protocol == UDP and data[place:place + 2] == b"\0\0"):
        pseudo_header = protocol != ICMP
        _update(out, place, data[addresses] * pseudo_header + data[ports], new_addresses * pseudo_header + new_ports)
        if protocol == UDP and out[place:place + 2] == b"\0\0":
            out[place:place + 2] = b"\xff\xff"
    out[ports] = new_ports
    return bytes(out)


def with_addresses(data: bytes, source: bytes, destination: bytes) -> bytes:
    """An IP packet, or its beginning, with these addresses in its header; what it carries stays."""
    first = _ADDRESSES[4 if len(source) == 4 else 6]
    addresses, new_addresses = slice(first, first + 2 * len(source)), source + destination
    out = bytearray(data)
    if len(source) == 4:
        _update(out, 10, data[addresses], new_addresses)
    out[addresses] = new_addresses
    return bytes(out)


def echo_reply(data: bytes, first: bool) -> bytes:
    """An echo request, or a fragment of one, as its reply, but for the addresses (RFC 792, RFC 4443). first: it has the
    ICMP header."""
    out = bytearray(data)
    if data[0] >> 4 == 4:
        out[8] = TTL
        _update(out, 10, data[8:10], bytes(out[8:10]))
    else:
        out[7] = TTL
    if first:
        found = carried(data)
        assert found is not None, "a first fragment that was decoded has its ICMP header"
        at = found.transport
        out[at] = _ECHOES[found.key[0]][1]
        _update(out, at + _CHECKSUM[found.key[0]], data[at:at + 2], bytes(out[at:at + 2]))
    return bytes(out)


def readdressed_frame(frame: bytes, packet: Packet, key: bytes, eth_dst: bytes) -> bytes:
    """The whole frame of a TCP or UDP packet or an ICMP echo, with the addresses and ports of `key`, to that MAC."""
    header = carried(frame[ETHERNET_HEADER:])
    assert header is not None, "a decoded packet has its transport header"
    end = packet.payload_offset + packet.payload_length
    return eth_dst + frame[6:ETHERNET_HEADER] + readdressed(frame[ETHERNET_HEADER:end], header.transport, key)


def translated_error(frame: bytes, packet: Packet, transport: int, key: bytes, ends: tuple[bytes, bytes]) -> bytes:
    """The frame of an ICMP error that tells the same about the packet of `key`.

    transport: where in the quoted packet its TCP, UDP or ICMP header starts. ends: source and destination of the error.
    """
    source, destination = ends
    start, end = packet.payload_offset, packet.payload_offset + packet.payload_length
    old = frame[start + HEADER:end]
    new = readdressed(old, transport, key)
    first = ETHERNET_HEADER + _ADDRESSES[4 if len(source) == 4 else 6]
    addresses, new_addresses = slice(first, first + 2 * len(source)), source + destination
    out = bytearray(frame[:end])
    if len(source) == 4:
        _update(out, ETHERNET_HEADER + 10, frame[addresses], new_addresses)
        _update(out, start + 2, old, new)
    else:
        _update(out, start + 2, frame[addresses] + old, new_addresses + new)
    out[addresses], out[start + HEADER:] = new_addresses, new
    return bytes(out)


def _update(data: bytearray, place: int, old: bytes, new: bytes) -> None:
    """The checksum at `place` after `old` has become `new` (RFC 1624); both are of one length, and begin at an even
    place."""
    odd = b"\0" * (len(old) & 1)
    was = int.from_bytes(data[place:place + 2])
    # 2**16 is 1 modulo 0xffff, so the remainder of a whole number is the ones' complement sum of its words.
    total = (0xFFFF - was - int.from_bytes(old + odd) + int.from_bytes(new + odd)) % 0xFFFF
    data[place:place + 2] = (0xFFFF - total if total else 0).to_bytes(2)
