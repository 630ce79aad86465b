"""Fragments (field report F10): their bytes, and which of them go on, wait or are forgotten."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbctl.connections import fragments as handler
from lbctl.connections.fragments import MOST_DATAGRAMS, PATIENCE
from lbctl.frames import fragments, packets
from lbctl.frames.fragments import cut, decode_first, decode_fragment
from lbctl.frames.icmp_translation import carried, readdressed
from lbctl.frames.packets import ACK, Malformed
from lbctl.openflow.cookies import Kind
from lbctl.openflow.messages import PacketOut
from lbctl.values.keys import pack_key
from lbctl.values.protocols import UDP
from tests.unit.fake_site import FakeSite
from tests.unit.frames import (
    CLIENT,
    CLIENT_V6,
    EXTERNAL,
    EXTERNAL_V6,
    GATEWAY,
    GATEWAY_V6,
    any_frames,
    checksums_are_right,
    datagram,
    patched,
    segment,
    segment_v6,
    with_extension,
)
from tests.unit.test_connections import CLIENT as NEAR
from tests.unit.test_connections import SERVERS, add, from_client, packet_in, serving, world

__all__ = ["world"]

ENDS = {4: (CLIENT, EXTERNAL, GATEWAY), 6: (CLIENT_V6, EXTERNAL_V6, GATEWAY_V6)}
versions = pytest.mark.parametrize("version", [4, 6])


def pieces(frame: bytes, size: int) -> list[bytes]:
    """The frame in fragments of `size` bytes (a multiple of 8) of what IP carries, for both IP versions."""
    if frame[12:14] != b"\x86\xdd":
        frame = patched(frame, {18: 1, 19: 2, 20: 0, 21: 0})
        return [frame[:14] + piece for piece in cut(frame[14:], 20 + size)]
    body, found = frame[54:], []
    for at in range(0, len(body), size):
        part = body[at:at + size]
        head = bytes([frame[20], 0]) + (at | (at + size < len(body))).to_bytes(2) + b"\0\1\2\3"
        found.append(frame[:18] + (8 + len(part)).to_bytes(2) + b"\x2c" + frame[21:54] + head + part)
    return found


def whole(packets_: list[bytes]) -> bytes:
    """The packet that these are the fragments of, in any order: put together by hand."""
    parts, head = {}, b""
    for data in packets_:
        if data[0] >> 4 == 4:
            place = int.from_bytes(data[6:8])
            parts[(place & 0x1FFF) * 8] = data[20:]
            head = head if place & 0x1FFF else data[:6] + bytes(2) + data[8:20]
        else:
            place = int.from_bytes(data[42:44])
            parts[place & 0xFFF8] = data[48:]
            head = head if place & 0xFFF8 else data[:6] + data[40:41] + data[7:40]
    body = b"".join(parts[at] for at in sorted(parts))
    assert sorted(parts) == [sum(len(parts[each]) for each in parts if each < at) for at in sorted(parts)], "no gap"
    if head[0] >> 4 == 4:
        head = head[:2] + (20 + len(body)).to_bytes(2) + head[4:10] + bytes(2) + head[12:]
        return head[:10] + packets.checksum(head).to_bytes(2) + head[12:] + body
    return head[:4] + len(body).to_bytes(2) + head[6:] + body


@versions
@given(payload=st.binary(min_size=1, max_size=300), size=st.integers(1, 6).map(lambda eights: eights * 8))
def test_translated_one_by_one_they_are_the_translated_packet(version, payload, size) -> None:
    client, external, server = ENDS[version]
    frame = datagram(client, external, payload=payload)
    if len(frame) - (34 if version == 4 else 54) <= size:
        return
    key = pack_key(UDP, client, 40000, server, 5353)
    out = [fragments.translated(piece, decode_fragment(piece), key) for piece in pieces(frame, size)]
    together = frame[:14] + whole(out)
    assert checksums_are_right(together)
    expected = readdressed(frame[14:], carried(frame[14:]).transport, key)
    assert together[34 if version == 4 else 54:] == expected[20 if version == 4 else 40:]


@versions
def test_what_they_share_and_what_the_first_one_tells(version) -> None:
    client, external, _ = ENDS[version]
    found = [decode_fragment(piece) for piece in pieces(datagram(client, external, payload=bytes(40)), 16)]
    places = [(each.offset, each.length, each.last) for each in found]
    assert places == [(0, 16, False), (16, 16, False), (32, 16, True)]
    assert len({each.datagram for each in found}) == 1
    first = pieces(datagram(client, external, payload=bytes(40)), 16)[0]
    packet = decode_first(first)
    assert (packet.src, packet.src_port, packet.dst, packet.dst_port) == (client, 40000, external, 53)
    assert packet.payload_length == 16 and first[packet.payload_offset:][:4] == bytes.fromhex("9c400035")


@pytest.mark.parametrize("name, frame", [
    ("whole", segment()), ("whole, IPv6", segment_v6()),
    ("not the last, and no multiple of 8", patched(datagram(payload=b"xyz"), {20: 0x20})),
    ("beyond the largest packet", patched(datagram(payload=bytes(16)), {20: 0x1F, 21: 0xFF})),
    ("nothing in it", patched(datagram(), {17: 20, 21: 1})),
    ("longer than the frame", patched(datagram(), {16: 5, 21: 1})),
    ("from nobody", patched(datagram(), {21: 1, 26: 224})),
    ("no fragment header", with_extension(segment_v6(), 0)),
])
def test_what_is_none(name, frame) -> None:
    with pytest.raises(Malformed):
        decode_fragment(frame)


@given(any_frames)
def test_any_bytes(frame) -> None:
    for decoder in (decode_fragment, decode_first):
        try:
            decoder(frame)
        except Malformed:
            pass


@given(size=st.integers(0, 3000), mtu=st.integers(68, 1500), place=st.sampled_from([0, 0x2000, 0x2005, 5]))
def test_cut(size, mtu, place) -> None:
    data = packets.ip_frame(bytes(6), bytes(6), CLIENT, EXTERNAL, UDP, bytes(range(256)) * 12)[14:20 + 14 + size]
    data = data[:2] + (20 + size).to_bytes(2) + data[4:6] + place.to_bytes(2) + data[8:]
    found = cut(data, mtu)
    assert all(len(piece) <= mtu and int.from_bytes(piece[2:4]) == len(piece) for piece in found)
    assert b"".join(piece[20:] for piece in found) == data[20:]
    at = place & 0x1FFF
    for piece in found:
        last = piece is found[-1]
        assert int.from_bytes(piece[6:8]) == at | (0x2000 if not last or place & 0x2000 else 0)
        at += (len(piece) - 20) // 8
        assert len(found) == 1 or packets.checksum(piece[:20]) == 0


def test_only_options_that_are_to_be_copied_are_in_the_other_fragments() -> None:
    header = bytes([0x48]) + bytes(19) + bytes([7, 7, 4, 0, 0, 0, 0]) + bytes([0x83, 3, 4]) + bytes([0, 0])
    data = header[:2] + (len(header) + 64).to_bytes(2) + header[4:] + bytes(64)
    first, *others = cut(data, 72)
    assert first[20:32] == header[20:32]
    assert all(each[20:32] == b"\1" * 7 + header[27:32] for each in others)


# At the controller.

def of_client(world: FakeSite, port: int = 40001, ident: int = 7, payload: int = 40) -> list[bytes]:
    """A client's segment in three fragments (or as many as it takes)."""
    frame = from_client(world, ACK, port=port, payload=bytes(payload))
    frame = patched(frame, {18: ident >> 8, 19: ident & 255, 20: 0, 21: 0})
    return [frame[:14] + piece for piece in cut(frame[14:], 44)]


def arrives(world: FakeSite, frame: bytes) -> list[PacketOut]:
    return [message for _, message in packet_in(world, Kind.FRAGMENT, frame)]


def counted(world: FakeSite) -> dict[str, int]:
    counters = world.control.ground.switches["lb-a"].counters
    return {name: count for name, count in counters.items() if "fragments" in name}


def waiting(world: FakeSite) -> tuple[int, int]:
    """Packets that are remembered, and bytes that wait."""
    parts = world.control.connections._fragments
    return len(parts._datagrams), parts._waiting


def test_they_go_as_they_come_once_the_first_one_is_there(world) -> None:
    add(world)
    first, second, third = of_client(world)
    assert [len(arrives(world, piece)) for piece in (third, first, second)] == [0, 2, 1]
    assert waiting(world) == (0, 0) and counted(world) == {"fragments_translated": 3}
    assert {message.output for message in arrives(world, first)} == {"deliver_server"}
    packet = decode_first(arrives(world, first)[0].frame)
    assert packet.dst == SERVERS[0] and packet.src == NEAR


def test_the_identification_may_be_used_again(world) -> None:
    """By another connection, though a fragment of the first one was lost."""
    add(world), add(world, port=40002)
    first, *_ = of_client(world, 40001)
    other_first, other_second, other_third = of_client(world, 40002)
    for piece in (first, other_first, other_second, other_third):
        [message] = arrives(world, piece)
    assert waiting(world) == (0, 0)


def test_those_without_a_first_one_are_forgotten(world) -> None:
    add(world)
    _, second, third = of_client(world)
    assert arrives(world, second) == arrives(world, third) == []
    assert waiting(world)[0] == 1
    world.control.tick(world.now + PATIENCE)
    assert waiting(world) == (0, 0) and counted(world) == {"dropped_fragments_incomplete": 2}


def test_there_are_never_too_many(world, monkeypatch) -> None:
    monkeypatch.setattr(handler, "MOST_WAITING", 1000)
    for number in range(MOST_DATAGRAMS + 100):
        arrives(world, of_client(world, ident=number)[1])
        assert waiting(world)[1] <= 1000
    add(world)
    for number in range(MOST_DATAGRAMS + 100):
        arrives(world, of_client(world, ident=number)[0])
    assert waiting(world)[0] == MOST_DATAGRAMS
    assert counted(world)["dropped_fragments_too_many"] > MOST_DATAGRAMS


def test_a_first_one_of_no_connection_is_refused_like_any_packet(world) -> None:
    [message] = arrives(world, of_client(world, port=40009)[0])
    assert packets.decode(message.frame).tcp_flags & packets.RST


@given(order=st.permutations([*range(5), *range(5)][:7]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_any_order_all_go(world, order) -> None:
    """Also if some come twice."""
    if not serving(world).table.entries():
        add(world)
    found = of_client(world, payload=100)
    assert len(found) == 5
    sent = [message.frame for number in order for message in arrives(world, found[number])]
    world.now += PATIENCE
    world.control.tick(world.now)
    assert waiting(world) == (0, 0)
    key = carried(whole([frame[14:] for frame in sent])).key
    assert key == pack_key(6, NEAR, 40001, SERVERS[0], 80)
