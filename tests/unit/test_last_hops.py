"""An entry follows who opened it to another MAC: at once, at most once a second, and without losing what its flows have
seen."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from lbctl.connections.silent_routers import ASK_AGAIN
from lbctl.entries.access_table import Entry
from lbctl.frames import packets
from lbctl.frames.packets import ACK, FIN
from lbctl.ground.effects import ToSwitch
from lbctl.openflow.cookies import Kind
from lbctl.openflow.messages import AddEntries, AddFlows, ModifyEntries, ReadFlows
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.side import EXTERNAL
from tests.unit.fake_site import ROUTER_MAC, FakeSite, site

ADDRESS, SERVER, CLIENT = (ip_address(text).packed for text in ("198.51.100.1", "10.0.0.10", "203.0.113.9"))
SECOND_ROUTER = bytes.fromhex("020000000f02")


@pytest.fixture
def world() -> FakeSite:
    world = FakeSite(site())
    world.control.ground.let_pass(EXTERNAL, ROUTER_MAC)
    world.settle(1.0)
    return world


def add(world: FakeSite, port: int = 40001) -> Entry:
    """An entry that answers to the first router, on the switch too."""
    key = pack_key(6, CLIENT, port, ADDRESS, 80)
    entry = Entry(key, reply_key(key, SERVER, 80), ROUTER_MAC, world.now, isn=1)
    serving = world.serving(ip_address(ADDRESS))
    serving.table.add(entry)
    world.switches["lb-a"].apply(AddEntries((entry,)), world.now)
    return entry


def arrives(world: FakeSite, mac: bytes, flags: int = ACK, port: int = 40001) -> tuple[int, list]:
    """A segment of the client from that MAC: how many frames the switch delivers, and what the controller sends."""
    switch = world.switches["lb-a"]
    lb_mac = bytes.fromhex(switch.ports[0].mac.replace(":", ""))
    frame = packets.tcp_segment(lb_mac, mac, CLIENT, port, ADDRESS, 80, flags=flags)
    sent, events = switch.receive(frame, 1, world.now)
    out = [effect for event in events for effect in world.control.packet_in("lb-a", *event.arguments, world.now)]
    return len(sent), [effect.message for effect in out if isinstance(effect, ToSwitch) and effect.lb == "lb-a"]


def test_what_comes_from_where_it_should_is_not_shown(world) -> None:
    add(world)
    assert arrives(world, ROUTER_MAC) == (1, [])


def test_it_follows_and_its_flows_are_changed_in_place(world) -> None:
    entry = add(world)
    delivered, messages = arrives(world, SECOND_ROUTER)
    assert delivered == 1 and [type(message) for message in messages] == [AddFlows, ModifyEntries]
    assert entry.next_hop == SECOND_ROUTER
    before = {item.packets for item in world.switches["lb-a"].tables["access_in"].values() if item.entry}
    for message in messages:
        world.switches["lb-a"].apply(message, world.now)
    assert {item.packets for item in world.switches["lb-a"].tables["access_in"].values() if item.entry} == before
    assert arrives(world, SECOND_ROUTER) == (1, [])


def test_a_flow_that_has_seen_its_fin_and_run_out_stays_away(world) -> None:
    add(world)
    arrives(world, ROUTER_MAC, FIN | ACK)
    switch = world.switches["lb-a"]
    _, messages = arrives(world, SECOND_ROUTER)
    switch.expire(world.now + 60)
    for message in messages:
        switch.apply(message, world.now + 60)
    assert not [item for item in switch.tables["access_in"].values() if item.entry]


def test_once_a_second_for_packets_that_come_by_turns(world) -> None:
    entry = add(world)
    follows = 0
    for number in range(100):
        world.now += 0.05
        delivered, messages = arrives(world, (SECOND_ROUTER, ROUTER_MAC)[number % 2])
        assert delivered == 1
        follows += sum(isinstance(message, ModifyEntries) for message in messages)
        for message in messages:
            world.switches["lb-a"].apply(message, world.now)
    assert 3 <= follows <= 6 and entry.next_hop in (SECOND_ROUTER, ROUTER_MAC)


def test_when_a_router_is_silent_what_is_left_follows(world) -> None:
    entries = [add(world, 40001 + number) for number in range(10)]
    for number in range(3):
        for message in arrives(world, SECOND_ROUTER, port=40001 + number)[1]:
            world.switches["lb-a"].apply(message, world.now)
    assert entries[9].next_hop == ROUTER_MAC
    world.settle(2 * ASK_AGAIN)
    assert {entry.next_hop for entry in entries} == {SECOND_ROUTER}


def test_while_a_router_sends_its_connections_stay(world) -> None:
    entries = [add(world, 40001 + number) for number in range(10)]
    for number in range(3):
        for message in arrives(world, SECOND_ROUTER, port=40001 + number)[1]:
            world.switches["lb-a"].apply(message, world.now)
    for _ in range(40):
        arrives(world, ROUTER_MAC, port=40010)
        world.settle(0.3)
    assert {entry.next_hop for entry in entries[3:]} == {ROUTER_MAC}


def test_the_question_is_cheap(world) -> None:
    """One flow's counter."""
    for number in range(4):
        add(world, 40001 + number)
    for number in range(3):
        arrives(world, SECOND_ROUTER, port=40001 + number)
    questions = [effect.message for effect in world.control.connections.tick(world.now)
                 if isinstance(effect, ToSwitch) and isinstance(effect.message, ReadFlows)]
    [question] = questions
    assert question.table == "client_hop" and question.mask == 2**64 - 1
    assert Kind(question.cookie >> 48 & 0xFF) is Kind.PIPELINE
