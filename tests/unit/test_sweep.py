"""Connections that died silently are found by their packet counters, and only those."""

from __future__ import annotations

import pytest

from lbctl.access_table import Entry, pack_key, reply_key, unpack_key
from lbctl.messages import AddEntries, ReadFlows
from lbctl.model import Strategy
from tests.unit.fake_site import FakeSite, site

IDLE = 20.0


@pytest.fixture
def world() -> FakeSite:
    world = FakeSite(site(idle_timeout=IDLE))
    world.settle(1.0)
    for _ in range(4):
        world.open(0)
    world.settle(1.0)
    return world


def left(world: FakeSite) -> set[int]:
    """The numbers of the connections that still have an entry; controller and switches must agree."""
    table = world.control.serving(world.site.external_ips[0].address).table
    known = {entry.key for entry in table.entries()}
    home = world.control.assigned_to(world.site.external_ips[0].address)
    assert world.switches[home].entries().keys() == known
    return {conversation.number for conversation in world.conversations if world.key(conversation) in known}


def wait(world: FakeSite, seconds: float, talking: tuple[int, ...] = ()) -> None:
    for _ in range(int(seconds)):
        for conversation in world.conversations:
            if conversation.number in talking:
                world.from_client(conversation)
        world.settle(1.0)


def test_only_silent_connections_end(world) -> None:
    wait(world, IDLE - 3, talking=(1, 3))
    assert left(world) == {1, 2, 3, 4}
    wait(world, 2 * IDLE / 4 + 5, talking=(1, 3))
    assert left(world) == {1, 3}
    assert world.control.counters["entries_expired"] == 2


def test_a_connection_that_only_the_server_uses_does_not_end(world) -> None:
    """TCP acknowledges, so there are packets both ways."""
    for _ in range(40):
        world.from_server(world.conversations[0])
        world.from_client(world.conversations[0])
        world.settle(1.0)
    assert left(world) == {1}


@pytest.mark.parametrize("lose_tables", [False, True])
def test_nothing_ends_while_the_lb_is_away(world, lose_tables) -> None:
    world.disconnect("lb-a", lose_tables)
    for _ in range(100):
        world.tick(1.0)
    assert len(world.control.serving(world.site.external_ips[0].address).table) == 4
    world.settle(5.0)
    assert left(world) == {1, 2, 3, 4}


def test_time_counts_anew_after_a_restart_of_the_controller(world) -> None:
    wait(world, IDLE - 3)
    world.restart_control()
    world.settle(1.0)
    wait(world, IDLE - 6)
    assert left(world) == {1, 2, 3, 4}


def test_a_move_does_not_end_what_talks(world) -> None:
    wait(world, IDLE - 5, talking=(1,))
    world.post(world.control.start_move(world.site.external_ips[0].address, "lb-b", Strategy.PRECOPY, world.now)[1])
    wait(world, 30, talking=(1,))
    assert world.control.assigned_to(world.site.external_ips[0].address) == "lb-b"
    assert left(world) == {1}


def test_leftovers_in_a_switch_are_deleted(world) -> None:
    """Nobody but the switch knows this one; its bucket has another entry, so it is read."""
    known = next(iter(world.control.serving(world.site.external_ips[0].address).table.entries()))
    protocol, client, port, address, external_port = unpack_key(known.key)
    key = pack_key(protocol, bytes([204]) + client[1:], port, address, external_port)
    stranger = Entry(key, reply_key(key, bytes([10, 0, 0, 10]), 80), known.next_hop, world.now)
    assert stranger.bucket == known.bucket
    world.switches["lb-a"].apply(AddEntries((stranger,)), world.now)
    wait(world, 12, talking=(1, 2, 3, 4))
    assert left(world) == {1, 2, 3, 4}


def test_requests_are_spread_over_time() -> None:
    world = FakeSite(site(idle_timeout=400.0))
    world.settle(1.0)
    for _ in range(100):
        world.open(0)
    world.drain()
    most, total = 0, 0
    for _ in range(1300):
        world.tick(0.1)
        asked = sum(isinstance(message, ReadFlows) for message in world.to_switch["lb-a"])
        most, total = max(most, asked), total + asked
        world.drain()
    # Each bucket is asked for twice (both directions), a tenth of them at once.
    assert total >= 200 and most <= 24, (total, most)


def test_an_lb_that_does_not_answer_ends_nothing(world) -> None:
    for _ in range(100):
        world.tick(1.0)
    assert len(world.control.serving(world.site.external_ips[0].address).table) == 4
