"""Translation of ICMP errors: there and back is the same, checksums stay right, and no bytes do harm."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.frames import icmp, packets
from lbctl.frames.icmp_translation import Carried, carried, quoted, readdressed, readdressed_frame, translated_error
from lbctl.values.keys import inverse_key, pack_key, unpack_key
from lbctl.values.protocols import ICMP, ICMPV6, TCP, UDP

LB_MAC, ROUTER_MAC, HOP_MAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02", b"\x02\0\0\0\0\x03"
CHECKSUM = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}
MTU = 1300

PORT = st.integers(0, 0xFFFF)


def addresses(version: int) -> st.SearchStrategy[bytes]:
    """Of hosts."""
    head = st.sampled_from([b"\x0a", b"\xc6", b"\xcb"]) if version == 4 else st.sampled_from([b"\x20", b"\xfd"])
    return st.builds(
        bytes.__add__, head, st.binary(min_size=3 if version == 4 else 15, max_size=3 if version == 4 else 15)
    )


@st.composite
def keys(draw: st.DrawFn, version: int, protocol: int) -> bytes:
    ports = draw(PORT), draw(PORT)
    if protocol in (ICMP, ICMPV6):
        ports = ports[:1] * 2
    return pack_key(protocol, draw(addresses(version)), ports[0], draw(addresses(version)), ports[1])


def packet_of(key: bytes, body: bytes, udp_checksum: bool = True) -> bytes:
    """An IP packet that carries that key, with right checksums."""
    protocol, source, source_port, destination, destination_port = unpack_key(key)
    ports = struct.pack("!HH", source_port, destination_port)
    if protocol == TCP:
        head = ports + struct.pack("!IIBBHHH", 1, 2, 0x50, 0x10, 100, 0, 0)
    elif protocol == UDP:
        head = ports + struct.pack("!HH", 8 + len(body), 0)
    else:
        head = struct.pack("!BBHHH", 8 if protocol == ICMP else 128, 0, 0, source_port, 1)
    data = bytearray(head + body)
    total = (
        packets.checksum(bytes(data))
        if protocol == ICMP
        else packets.transport_checksum(protocol, source, destination, bytes(data))
    )
    if protocol == UDP:
        total = (total or 0xFFFF) * udp_checksum
    data[CHECKSUM[protocol]:CHECKSUM[protocol] + 2] = total.to_bytes(2)
    return packets.ip_frame(bytes(6), bytes(6), source, destination, protocol, bytes(data))[14:]


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """A whole IP packet, its key, and another key of the same kind."""
    version, protocol = draw(st.sampled_from([(4, TCP), (4, UDP), (4, ICMP), (6, TCP), (6, UDP), (6, ICMPV6)]))
    key, other = draw(keys(version, protocol)), draw(keys(version, protocol))
    return packet_of(key, draw(st.binary(max_size=40)), draw(st.booleans())), key, other


def transport_is_right(data: bytes) -> bool:
    """The checksum of what a whole IP packet carries."""
    header = 20 if data[0] >> 4 == 4 else 40
    protocol = data[9] if header == 20 else data[6]
    body = bytearray(data[header:])
    place = slice(CHECKSUM[protocol], CHECKSUM[protocol] + 2)
    held = int.from_bytes(body[place])
    if protocol == UDP and not held:
        return True
    body[place] = bytes(2)
    source, destination = (data[12:16], data[16:20]) if header == 20 else (data[8:24], data[24:40])
    total = (
        packets.checksum(bytes(body))
        if protocol == ICMP
        else packets.transport_checksum(protocol, source, destination, bytes(body))
    )
    return held == (total or 0xFFFF if protocol == UDP else total)


@given(cases())
def test_a_packet_gets_other_addresses_and_its_own_back(case) -> None:
    data, key, other = case
    found = carried(data)
    assert found == Carried(key, 20 if data[0] >> 4 == 4 else 40)
    changed = readdressed(data, found.transport, other)
    assert carried(changed).key == other and len(changed) == len(data)
    assert transport_is_right(changed) and (data[0] >> 4 == 6 or packets.checksum(changed[:20]) == 0)
    assert readdressed(changed, found.transport, key) == data


@given(cases(), st.integers(0, 100))
def test_so_does_the_beginning_of_one(case, length: int) -> None:
    """An error may quote no more than 8 bytes of what a packet carries."""
    data, key, other = case
    whole = carried(data).transport
    beginning = data[:whole + 8 + length]
    changed = readdressed(beginning, whole, other)
    assert carried(changed).key == other
    expected = readdressed(data, whole, other)[:len(beginning)]
    if 8 + length == CHECKSUM[unpack_key(key)[0]] + 1:
        expected = expected[:-1] + beginning[-1:]  # half a checksum stays: the new one depends on both halves
    assert changed == expected
    assert carried(data[:whole + 7]) is None


@given(cases(), st.data())
def test_an_error_is_translated_there_and_back(case, data) -> None:
    """To other addresses, inside and out; its checksum is right, and what it tells besides is untouched."""
    packet_bytes, key, other = case
    version = packet_bytes[0] >> 4
    source, destination, inner = (data.draw(addresses(version)) for _ in range(3))
    kind, code = (3, 4) if version == 4 else (2, 0)
    frame = icmp.message(LB_MAC, ROUTER_MAC, source, destination, kind, code, MTU, packet_bytes, ttl=33)
    packet = packets.decode(frame)
    found = quoted(frame, packet)
    assert found.key == key
    there = packets.with_eth_dst(translated_error(frame, packet, found.transport, other, (source, inner)), HOP_MAC)
    decoded = packets.decode(there)
    assert (decoded.src, decoded.dst, decoded.eth_dst, decoded.ttl) == (source, inner, HOP_MAC, 33)
    assert quoted(there, decoded).key == other
    message = there[decoded.payload_offset:]
    assert message[:2] + message[4:8] == bytes([kind, code]) + MTU.to_bytes(4)
    total = packets.checksum(message) if version == 4 else packets.checksum(
        source + inner + struct.pack("!II", len(message), ICMPV6) + message)
    assert total == 0 and (version == 6 or packets.checksum(there[14:34]) == 0)
    back = translated_error(there, decoded, found.transport, key, (source, destination))
    assert packets.with_eth_dst(back, LB_MAC) == frame


@given(cases(), st.integers(1, 0xFFFE))
def test_what_was_wrong_stays_wrong(case, damage: int) -> None:
    """Its receiver must notice: the translation does not make a damaged error whole."""
    packet_bytes, _, other = case
    version = packet_bytes[0] >> 4
    source = bytes([10, 0, 0, 1]) if version == 4 else bytes([0xFD] + [0] * 14 + [1])
    frame = bytearray(
        icmp.message(LB_MAC, ROUTER_MAC, source, source, *((3, 1, 0) if version == 4 else (1, 0, 0)), packet_bytes)
    )
    packet = packets.decode(bytes(frame))
    place = packet.payload_offset + 2
    frame[place:place + 2] = ((int.from_bytes(frame[place:place + 2]) + damage) % 0xFFFF).to_bytes(2)
    changed = translated_error(bytes(frame), packet, carried(packet_bytes).transport, other, (source, source))
    message = changed[packet.payload_offset:]
    pseudo = b"" if version == 4 else source + source + struct.pack("!II", len(message), ICMPV6)
    assert packets.checksum(pseudo + message) not in (0, 0xFFFF)


@given(cases())
def test_a_whole_frame_gets_its_addresses_back(case) -> None:
    data, key, other = case
    kind = b"\x08\x00" if data[0] >> 4 == 4 else b"\x86\xdd"
    frame = LB_MAC + ROUTER_MAC + kind + data + bytes(3)
    packet = packets.decode(frame)
    changed = readdressed_frame(frame, packet, other, HOP_MAC)
    assert changed[:6] == HOP_MAC and len(changed) == len(frame) - 3, "without the padding"
    assert readdressed_frame(changed, packets.decode(changed), key, LB_MAC) == frame[:-3]


@given(st.binary(max_size=120))
def test_any_bytes_are_a_packet_or_none(data: bytes) -> None:
    for start in (b"", b"\x45", b"\x4f", b"\x60"):
        found = carried(start + data)
        if found:
            changed = readdressed(start + data, found.transport, inverse_key(found.key))
            assert carried(changed).key == inverse_key(found.key)


@given(st.sampled_from([4, 6]), st.binary(max_size=120), st.data())
def test_any_bytes_may_be_quoted(version: int, body: bytes, data) -> None:
    source = data.draw(addresses(version))
    frame = icmp.message(LB_MAC, ROUTER_MAC, source, source, *((3, 1, 0) if version == 4 else (1, 0, 0)), body)
    packet = packets.decode(frame)
    if found := quoted(frame, packet):
        translated_error(frame, packet, found.transport, inverse_key(found.key), (source, source))


KEY = pack_key(TCP, bytes([10, 0, 0, 11]), 8080, bytes([203, 0, 113, 7]), 40000)
IPV6_KEY = pack_key(UDP, bytes([0xFD] * 16), 53, bytes([0x20] * 16), 40000)


@pytest.mark.parametrize("why, change, is_found", [
    ("the first fragment has the ports", lambda data: data[:6] + b"\x20\x00" + data[8:], True),
    ("a later one has none", lambda data: data[:6] + b"\x00\x01" + data[8:], False),
    ("options before them", lambda data: b"\x46" + data[1:20] + bytes(4) + data[20:], True),
    ("a header that ends early", lambda data: b"\x44" + data[1:], False),
    ("another protocol", lambda data: data[:9] + b"\x2f" + data[10:], False),
    ("another version", lambda data: b"\x75" + data[1:], False),
])
def test_what_ipv4_quotes(why: str, change, is_found: bool) -> None:
    found = carried(change(packet_of(KEY, b"")))
    assert (found.key if found else None) == (KEY if is_found else None), why


@pytest.mark.parametrize("why, protocol, header, is_found", [
    ("hop-by-hop options", 0, bytes([UDP, 0]) + bytes(6), True),
    ("a longer one", 60, bytes([UDP, 1]) + bytes(14), True),
    ("a first fragment", 44, bytes([UDP, 0, 0, 1]) + bytes(4), True),
    ("a later one", 44, bytes([UDP, 0, 0, 8]) + bytes(4), False),
    ("one that is cut off", 60, bytes([UDP, 200]) + bytes(6), False),
    ("another protocol", 50, bytes(8), False),
])
def test_what_ipv6_quotes(why: str, protocol: int, header: bytes, is_found: bool) -> None:
    data = packet_of(IPV6_KEY, b"")
    found = carried(data[:6] + bytes([protocol]) + data[7:40] + header + data[40:])
    assert (found.key if found else None) == (IPV6_KEY if is_found else None), why


def test_an_ipv4_error_that_quotes_ipv6_quotes_nothing() -> None:
    frame = icmp.message(
        LB_MAC, ROUTER_MAC, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), 3, 1, 0, packet_of(IPV6_KEY, b"")
    )
    assert quoted(frame, packets.decode(frame)) is None


def test_echo_requests_and_replies_are_told_from_other_icmp() -> None:
    echo = packet_of(pack_key(ICMP, bytes([10, 0, 0, 1]), 7, bytes([10, 0, 0, 2]), 7), b"abc")
    assert carried(echo[:20] + b"\0" + echo[21:]).key == carried(echo).key
    assert carried(echo[:20] + b"\x0d" + echo[21:]) is None
