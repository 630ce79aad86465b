"""What the controller makes of ICMP: which errors it translates, what it drops, and that no bytes stop it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries.access_table import NO_HOP
from lbctl.frames import icmp, packets
from lbctl.frames.icmp_translation import quoted
from lbctl.frames.packets import ACK
from lbctl.openflow.cookies import Kind
from lbctl.openflow.messages import PacketOut
from lbctl.values.keys import inverse_key
from tests.unit.fake_site import ROUTER_MAC, FakeSite, site
from tests.unit.test_connections import (
    ADDRESS,
    CLIENT,
    SERVERS,
    add,
    from_client,
    from_server,
    lb_mac,
    packet_in,
    world,
)

__all__ = ["world"]

ROUTER, INNER_ROUTER = bytes([203, 0, 113, 254]), bytes([10, 0, 0, 99])
NO_CONNECTION = "dropped_icmp_quotes_no_connection"


def from_lb(port: int = 40001) -> bytes:
    """What the LB has sent to the client, without its Ethernet header."""
    return packets.tcp_segment(ROUTER_MAC, ROUTER_MAC, ADDRESS, 80, CLIENT, port, flags=ACK)[14:]


def to_server() -> bytes:
    return packets.tcp_segment(ROUTER_MAC, ROUTER_MAC, CLIENT, 40001, SERVERS[0], 80, flags=ACK)[14:]


def error(world: FakeSite, packet: bytes, inward: bool = True, dst: bytes | None = None) -> bytes:
    """Fragmentation needed, by a router of that side, about that packet."""
    return icmp.message(
        lb_mac(world, inward), ROUTER_MAC, ROUTER if inward else INNER_ROUTER, dst or packet[12:16], 3, 4, 1300, packet
    )


def translated(out) -> tuple[packets.Packet, bytes, str]:
    """The one packet sent: itself, the key of what it quotes, and the table that it goes through."""
    [(name, message)] = out
    assert name == "lb-a" and isinstance(message, PacketOut)
    packet = packets.decode(message.frame)
    return packet, quoted(message.frame, packet).key, message.output


def test_an_error_from_outside_goes_to_the_server(world) -> None:
    entry = add(world)
    packet, key, table = translated(packet_in(world, Kind.TRANSLATE_ICMP, error(world, from_lb())))
    assert (packet.src, packet.dst, key, table) == (ROUTER, SERVERS[0], entry.reply, "deliver_server")


def test_an_error_from_inside_goes_to_the_client_in_the_name_of_the_external_ip(world) -> None:
    entry = add(world)
    packet, key, table = translated(packet_in(world, Kind.TRANSLATE_ICMP, error(world, to_server(), False), False))
    assert (packet.src, packet.dst, key, table) == (ADDRESS, CLIENT, entry.key, "deliver_client")
    assert packet.eth_dst == entry.next_hop


@pytest.mark.parametrize("why, packet, counter", [
    ("another port", from_lb(40002), NO_CONNECTION),
    ("a packet of the client's own", to_server(), NO_CONNECTION),
    ("nothing", b"", NO_CONNECTION),
    ("another address than it is sent to", None, NO_CONNECTION),
])
def test_errors_that_are_dropped(world, why: str, packet: bytes | None, counter: str) -> None:
    add(world)
    frame = error(world, packet or from_lb(), True, None if packet else bytes([198, 51, 100, 2]))
    assert packet_in(world, Kind.TRANSLATE_ICMP, frame) == [], why
    assert world.control.ground.switches["lb-a"].counters[counter] == 1, why


def test_an_lb_without_a_transfer_mode_translates_nothing(world) -> None:
    add(world)
    assert packet_in(world, Kind.TRANSLATE_ICMP, error(world, from_lb()), name="lb-b") == []
    assert world.control.ground.switches["lb-b"].counters["dropped_icmp_not_assigned"] == 1


def test_an_entry_whose_next_hop_is_not_known_yet_waits(world) -> None:
    add(world, hop=NO_HOP)
    assert packet_in(world, Kind.TRANSLATE_ICMP, error(world, to_server(), False), False) == []
    assert world.control.ground.switches["lb-a"].counters["dropped_next_hop_unknown"] == 1


def test_the_end_of_a_ttl_is_told_with_the_packet_as_it_was(world) -> None:
    entry = add(world)
    for inward, sent in ((True, from_client(world, ACK, ttl=1)), (False, from_server(world, ACK, ttl=1))):
        key, other = (entry.key, entry.reply) if inward else (entry.reply, entry.key)
        frame = packets.decode(sent)
        came = packets.tcp_segment(
            frame.eth_dst, frame.eth_src, *_ends(inverse_key(other)), flags=ACK, seq=frame.seq, ttl=1
        )
        [(_, message)] = packet_in(world, Kind.EXPIRED, came, inward)
        packet = packets.decode(message.frame)
        assert message.frame[34:36] == b"\x0b\0" and quoted(message.frame, packet).key == key
        assert message.frame[42:].startswith(sent[14:54])


def _ends(key: bytes) -> tuple[bytes, int, bytes, int]:
    return key[1:5], int.from_bytes(key[5:7]), key[7:11], int.from_bytes(key[11:13])


WORLD = FakeSite(site())
WORLD.settle(1.0)
add(WORLD)


@given(st.sampled_from([Kind.TRANSLATE_ICMP, Kind.EXPIRED, Kind.TOO_BIG]), st.booleans(), st.data())
def test_no_bytes_stop_the_controller(kind: Kind, inward: bool, data) -> None:
    whole = data.draw(
        st.sampled_from([error(WORLD, from_lb()), error(WORLD, to_server(), False), from_client(WORLD, ACK)])
    )
    frame = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)):
        frame[place] = value
    packet_in(WORLD, kind, bytes(frame[:data.draw(st.integers(0, len(whole)))]), inward)
