"""Packets that come to an LB whose external IP another one serves (field report F5)."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from lbctl.connections.misdirected import SPACING, TOLD
from lbctl.frames import discovery, packets
from lbctl.frames.packets import ACK, SYN
from tests.unit.fake_site import EXTERNAL, INTERNAL, ROUTER_MAC, FakeSite, site
from tests.unit.test_opening import ADDRESS, CLIENT, World

GATEWAY, SERVER = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.10")


@pytest.fixture
def world() -> World:
    """198.51.100.1 is at lb-a; its packets come to lb-b."""
    return World(site(ips=1))


def to_lb_b(world: World, flags: int = SYN, port: int = 40001, mac: bytes = ROUTER_MAC) -> list:
    """What leaves by the switches for a packet of the client."""
    lb_mac = bytes.fromhex(world.switches["lb-b"].ports[0].mac.replace(":", ""))
    frame = packets.tcp_segment(lb_mac, mac, CLIENT, port, ADDRESS, 80, flags=flags, seq=1)
    return world.through(frame, EXTERNAL, "lb-b")


def words(sent: list) -> list[str]:
    """IP packets by where they go; what tells a MAC by whom it tells."""
    return [
        f"{sender.hex(':')} is told" if item.frame[12:14] == b"\x08\x06" else f"to port {item.port}"
        for item in sent
        for sender in [item.frame[:6]]
    ]


def test_it_is_passed_on_and_its_sender_told(world: World) -> None:
    sent = to_lb_b(world)
    assert sorted(words(sent)) == [f"{ROUTER_MAC.hex(':')} is told", f"to port {INTERNAL}"]
    told = next(item for item in sent if item.frame[12:14] == b"\x08\x06")
    at_lb_a = world.switches["lb-a"].ports[0].mac
    address, mac = discovery.decode(told.frame)
    assert (address, mac.hex(":"), told.port) == (ADDRESS, at_lb_a, EXTERNAL)
    [entry] = world.table(ADDRESS).entries()
    assert entry.next_hop == ROUTER_MAC, "answers go to the sender"
    assert words(to_lb_b(world, ACK)) == [f"to port {INTERNAL}"], "so do established connections' packets"
    assert world.control.ground.switches["lb-b"].counters["passed_on"] == 2


def test_each_is_told_once_a_second(world: World) -> None:
    other = bytes.fromhex("02000000c0ff")
    told = [len(to_lb_b(world, port=40001 + number, mac=mac)) == 2
            for number, mac in enumerate((ROUTER_MAC, ROUTER_MAC, other))]
    assert told == [True, False, True]
    world.now += SPACING
    assert len(to_lb_b(world, port=40009)) == 2


def test_no_more_are_told_than_may_be(world: World) -> None:
    for number in range(TOLD):
        to_lb_b(world, ACK, mac=bytes([2, 1]) + number.to_bytes(4))
    assert all(item.frame[12:14] != b"\x08\x06" for item in to_lb_b(world, ACK))


def test_a_server_is_told_of_its_gateway(world: World) -> None:
    lb_mac = bytes.fromhex(world.switches["lb-b"].ports[1].mac.replace(":", ""))
    server_mac = FakeSite.server_mac(SERVER.packed)
    to_lb_b(world)
    frame = packets.tcp_segment(lb_mac, server_mac, SERVER.packed, 80, CLIENT, 40001, flags=SYN | ACK)
    sent = world.through(frame, INTERNAL, "lb-b")
    [told] = [item for item in sent if item.frame[12:14] == b"\x08\x06"]
    address, mac = discovery.decode(told.frame)
    assert (told.frame[:6], told.port, address) == (server_mac, INTERNAL, GATEWAY.packed)
    assert mac.hex(":") == world.switches["lb-a"].ports[1].mac
    assert [item.port for item in sent if item is not told] == [EXTERNAL], "the answer goes on to the client"


def test_where_no_lb_serves_it_the_sender_gets_an_error(world: World) -> None:
    world.disconnect("lb-a")
    [error] = to_lb_b(world)
    assert packets.decode(error.frame).protocol == 1


def test_with_the_setting_error_it_is_one() -> None:
    world = World(site(ips=1, misdirected="error"))
    [error] = to_lb_b(world)
    assert packets.decode(error.frame).protocol == 1
    assert world.control.ground.switches["lb-b"].counters["passed_on"] == 0
