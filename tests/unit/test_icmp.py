"""ICMP errors that answer a packet: what they say, and what is never answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.frames import icmp, packets
from lbctl.values.protocols import ICMP, ICMPV6
from tests.unit.frames import (
    CLIENT,
    CLIENT_MAC,
    CLIENT_V6,
    EXTERNAL,
    EXTERNAL_V6,
    GATEWAY,
    GATEWAY_V6,
    LB_MAC,
    any_frames,
    checksums_are_right,
    patched,
    segment,
    segment_v6,
)

ERRORS = [icmp.HOST_UNREACHABLE, icmp.PORT_UNREACHABLE, icmp.PROTOCOL_UNREACHABLE, icmp.TTL_EXPIRED]


def answer(frame: bytes, kind: icmp.Error = icmp.HOST_UNREACHABLE) -> bytes | None:
    return icmp.error(frame, kind, LB_MAC, GATEWAY_V6 if frame[12:14] == b"\x86\xdd" else GATEWAY)


def query(kind: int) -> bytes:
    return patched(segment(), {23: ICMP, 34: kind})


def query_v6(kind: int) -> bytes:
    return patched(segment_v6(), {20: ICMPV6, 54: kind})


def test_quotes_the_packet_without_padding() -> None:
    frame = segment(payload=b"abc")
    found = answer(frame + bytes(3))
    packet = packets.decode(found)
    assert (packet.eth_dst, packet.eth_src, packet.src, packet.dst) == (CLIENT_MAC, LB_MAC, GATEWAY, CLIENT)
    assert (packet.protocol, packet.ttl) == (ICMP, 64)
    assert found[34:36] == bytes([3, 1])
    assert found[42:] == frame[14:]


def test_quotes_an_ipv6_packet_without_padding() -> None:
    frame = segment_v6(payload=b"abc")
    found = answer(frame + bytes(3))
    packet = packets.decode(found)
    assert (packet.eth_dst, packet.eth_src, packet.src, packet.dst) == (CLIENT_MAC, LB_MAC, GATEWAY_V6, CLIENT_V6)
    assert packet.protocol == ICMPV6
    assert found[54:56] == bytes([1, 3])
    assert found[62:] == frame[14:]


@pytest.mark.parametrize(("make", "limit"), [(segment, 576), (segment_v6, 1280)])
def test_a_long_packet_is_cut(make, limit) -> None:
    """RFC 1812 4.3.2.3; RFC 4443 2.4."""
    frame = make(payload=bytes(range(256)) * 5)
    found = answer(frame)
    assert len(found) == 14 + limit
    assert frame[14:].startswith(found[42 if limit == 576 else 62:])


@pytest.mark.parametrize(("kind", "ipv4", "ipv6"), [
    (icmp.HOST_UNREACHABLE, "0301", "0103"), (icmp.PORT_UNREACHABLE, "0303", "0104"),
    (icmp.PROTOCOL_UNREACHABLE, "0302", "0401"), (icmp.TTL_EXPIRED, "0b00", "0300")])
def test_what_an_error_says(kind, ipv4, ipv6) -> None:
    """RFC 792 and RFC 4443: type and code, and the second word."""
    first, second = answer(segment(), kind), answer(segment_v6(), kind)
    assert first[34:36].hex() == ipv4 and first[38:42] == bytes(4)
    assert second[54:56].hex() == ipv6
    # RFC 4443 3.4: the pointer names the next-header field of the packet in error.
    assert second[58:62] == (bytes([0, 0, 0, 6]) if kind is icmp.PROTOCOL_UNREACHABLE else bytes(4))


@pytest.mark.parametrize("frame", [*map(query, (0, 8, 13)), *map(query_v6, (128, 129))])
def test_queries_are_answered(frame) -> None:
    assert answer(frame) is not None


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("ICMP errors", query(3)),
        ("ICMP time exceeded", query(11)),
        ("unknown ICMP types, which may be errors", query(200)),
        ("ICMP without a type", patched(query(8), {17: 20})),
        ("ICMPv6 errors", query_v6(1)),
        ("ICMPv6 packet too big", query_v6(2)),
        ("ICMPv6 without a type", patched(query_v6(128), {19: 0})),
        ("link-layer broadcast", patched(segment(), dict.fromkeys(range(6), 255))),
        ("IPv6 link-layer multicast", patched(segment_v6(), {0: 0x33, 1: 0x33})),
        ("multicast destination", patched(segment(), {30: 224})),
        ("IPv6 multicast destination", patched(segment_v6(), {38: 255})),
        ("broadcast destination", patched(segment(), {30: 255})),
        ("multicast source MAC", patched(segment(), {6: 1})),
        ("source 0.0.0.0", patched(segment(), {26: 0, 27: 0, 28: 0, 29: 0})),
        ("source ::", patched(segment_v6(), dict.fromkeys(range(22, 38), 0))),
        ("multicast source", patched(segment(), {26: 224})),
        ("a fragment other than the first", patched(segment(), {21: 1})),
        ("an IPv6 fragment other than the first", patched(segment_v6(), {20: 44, 57: 8})),
        ("malformed", segment()[:40]),
        ("not IP", packets.arp_probe(LB_MAC, EXTERNAL)),
    ],
)
def test_no_answer(name, frame) -> None:
    assert answer(frame) is None, name


@given(any_frames, st.sampled_from(ERRORS))
def test_any_bytes(frame, kind) -> None:
    found = answer(frame, kind)
    if found is None:
        return
    version = 6 if frame[12:14] == b"\x86\xdd" else 4
    assert len(found) <= 14 + (1280 if version == 6 else 576)
    assert packets.decode(found).dst == (frame[22:38] if version == 6 else frame[26:30])
    assert checksums_are_right(found)
    assert answer(found) is None, "no error in answer to an error"


@given(
    st.sampled_from([4, 6]),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 0xFFFFFFFF),
    st.binary(max_size=60),
)
def test_any_message_has_right_checksums(version, kind, code, word, body) -> None:
    source, destination = (EXTERNAL, CLIENT) if version == 4 else (EXTERNAL_V6, CLIENT_V6)
    frame = icmp.message(CLIENT_MAC, LB_MAC, source, destination, kind, code, word, body, ttl=9)
    packet = packets.decode(frame)
    assert checksums_are_right(frame)
    assert (packet.protocol, packet.ttl, packet.payload_length) == (ICMP if version == 4 else ICMPV6, 9, 8 + len(body))
    start = packet.payload_offset
    assert frame[start:start + 2] == bytes([kind, code]) and frame[start + 4:start + 8] == word.to_bytes(4)
    assert frame[start + 8:] == body


def test_ryu_reads_the_same() -> None:
    ryu_packet = pytest.importorskip("ryu.lib.packet.packet")
    from ryu.lib.packet import icmp as ryu_icmp
    from ryu.lib.packet import icmpv6

    parsed = ryu_packet.Packet(answer(segment(), icmp.PORT_UNREACHABLE)).get_protocol(ryu_icmp.icmp)
    assert (parsed.type, parsed.code, parsed.data.data) == (3, 3, segment()[14:])
    found = ryu_packet.Packet(answer(segment_v6(), icmp.PORT_UNREACHABLE)).get_protocol(icmpv6.icmpv6)
    assert (found.type_, found.code) == (1, 4)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (query(8), False),
        (query(3), True),
        (query(99), True),
        (query_v6(128), False),
        (query_v6(135), False),
        (query_v6(3), True),
        (query_v6(127), True),
        (segment(), False),
        (segment_v6(), False),
    ],
)
def test_is_error(frame, expected) -> None:
    assert icmp.is_error(frame, packets.decode(frame)) is expected


def test_errors_go_as_internetwork_control_and_queries_do_not() -> None:
    """RFC 1812 4.3.2.5: precedence of ICMP errors."""
    assert answer(segment())[15] == 0xC0
    echo = icmp.message(CLIENT_MAC, LB_MAC, EXTERNAL, CLIENT, 0, 0, 0, b"")
    assert echo[15] == 0
