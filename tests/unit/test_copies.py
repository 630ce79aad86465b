"""Where the entries of a failed LB come from, server by server; and what keepers are told before."""

from __future__ import annotations

import pytest

from lbctl.copies import feeds, publisher
from lbctl.entries.access_table import NO_HOP
from lbctl.frames.packets import ACK, FIN
from lbctl.ground.effects import FetchCopy, SendBatch
from lbctl.keeper.rows import Row
from lbctl.values.keys import pack_key, reply_key, unpack_key
from lbctl.values.transfer import Strategy
from tests.unit.fake_site import ROUTER_MAC
from tests.unit.faulty_site import FaultySite, kept_site


def begun(*copies: str, **options) -> FaultySite:
    """Four connections, to both servers of the first external IP, which is on lb-a; keepers have them."""
    world = FaultySite(kept_site(copies, lbs=3, ips=1, relieve_after=1.0, hold_down=1.0, **options))
    world.rest(step=0.1)
    for _ in range(4):
        world.open(0)
    world.rest()
    assert all(conversation.live for conversation in world.conversations)
    return world


def both_die(world: FaultySite) -> None:
    world.kill("lb-a")
    world.restart_control()
    world.rest()


def entries_from(world: FaultySite) -> dict[str, int]:
    return next(move.entries_from for move in world.control.movement.records().values() if move.state == "done")


@pytest.mark.parametrize(
    ("copies", "found"),
    [
        (("controller", "keeper"), "controller"),
        (("keeper", "controller"), "keeper"),
        (("sockets", "controller"), "sockets"),
    ],
)
def test_the_preferred_one_first(copies, found) -> None:
    world = begun(*copies)
    world.kill("lb-a")
    world.rest()
    assert entries_from(world) == {found: 4}
    world.check_settled()


@pytest.mark.parametrize("copies", [("controller", "keeper"), ("controller", "sockets")])
def test_the_next_one_when_the_controller_has_died_too(copies) -> None:
    world = begun(*copies)
    both_die(world)
    assert entries_from(world) == {copies[1]: 4}
    world.tell_hops()
    world.check_settled()
    assert all(conversation.live for conversation in world.conversations)


@pytest.mark.parametrize("inward", [True, False], ids=["client", "server"])
def test_a_fin_that_only_the_copy_remembers(inward) -> None:
    """The other side's ends the entry; without the copy's flag it would stay until it is idle."""
    world = begun("keeper")
    conversation = world.conversations[0]
    first, second = (world.from_client, world.from_server) if inward else (world.from_server, world.from_client)
    first(conversation, FIN | ACK)
    world.rest()
    both_die(world)
    table = world.serving(conversation.external.address).table
    assert table.by_key(world.key(conversation)).state == "half-closed"
    second(conversation, FIN | ACK)
    world.rest()
    assert table.by_key(world.key(conversation)) is None and len(table) == 3


def test_each_server_by_itself() -> None:
    world = begun("keeper", "controller")
    world.lost_keepers.add(min(world.copies))
    world.kill("lb-a")
    world.rest()
    assert entries_from(world) == {"keeper": 2, "controller": 2}
    world.check_settled()


def test_what_the_control_function_knows_is_better_than_nothing() -> None:
    world = begun("keeper")
    world.lost_keepers |= world.copies.keys()
    world.kill("lb-a")
    world.rest()
    assert entries_from(world) == {"controller": 4}
    assert all(conversation.live for conversation in world.conversations)


def test_who_has_no_copy_left_is_told() -> None:
    world = begun("keeper")
    world.lost_keepers |= world.copies.keys()
    both_die(world)
    assert {event for event, _ in world.told} >= {"entries lost"}
    for conversation in world.conversations:
        world.from_client(conversation)
    world.drain()
    assert world.resets == {1, 2, 3, 4}


def test_a_failed_lb_that_is_connected_is_the_best_copy() -> None:
    world = begun("keeper")
    world.cut_off("lb-a", 2, seen=True)
    world.rest()
    assert entries_from(world) == {"controller": 4}


def test_what_a_copy_has_not_is_dropped_and_what_is_new_is_added() -> None:
    world = begun("keeper")
    world.kill("lb-a")
    while not any(isinstance(call, FetchCopy) for call in world.calls):
        world.tick(0.05)
        for name in world.switches:
            world.deliver(name)
            world.hear(name)
        world.save()
    serving = next(iter(world.control.ground.external_ips))
    first, second, *_ = serving.table.snapshot()
    calls = [call for call in world.calls if isinstance(call, FetchCopy)]
    rows = {call.token: world.kept_rows(call) for call in calls}
    serving.table.remove(second)
    for call in calls:
        told = [row for row in rows[call.token] if row.key != first.key]
        world.post(world.control.copy_fetched(call.token, told, world.now))
    assert serving.table.by_key(first.key) is None
    assert serving.table.by_key(second.key).next_hop == ROUTER_MAC


def test_a_next_hop_that_most_clients_have_is_taken() -> None:
    """Sockets tell none; another external IP's clients do."""
    world = FaultySite(kept_site(("controller", "sockets"), lbs=3, ips=2, relieve_after=1.0))
    world.rest(step=0.1)
    _, out = world.control.movement.start(world.site.external_ips[1].address, "lb-b", Strategy.PRECOPY, world.now)
    world.post(out)
    world.rest()
    world.open(0)
    world.open(1)
    world.drain()
    both_die(world)
    assert {entry.next_hop for serving in world.control.ground.external_ips for entry in serving.table.entries()} == {
        ROUTER_MAC
    }


def test_an_entry_without_a_next_hop_is_not_put_back() -> None:
    """Its flows would hide the packet that tells it."""
    world = begun("controller", "sockets")
    both_die(world)
    serving = next(iter(world.control.ground.external_ips))
    assert {entry.next_hop for entry in serving.table.entries()} == {NO_HOP}
    home = serving.assigned
    world.disconnect(home, lose_tables=True)
    world.connect(home)
    world.rest()
    world.from_client(world.conversations[0])
    world.drain()
    world.check_now()
    assert world.data[-1].arrivals == 1


def test_a_planned_move_counts_what_the_copies_have() -> None:
    world = begun("controller", "keeper")
    world.lost_keepers.add(min(world.copies))
    _, out = world.control.movement.start(
        world.site.external_ips[0].address, "lb-b", Strategy.PRECOPY, world.now, from_copies=True
    )
    world.post(out)
    world.rest()
    assert entries_from(world) == {"keeper": 2, "controller": 2}
    world.check_settled()


def test_keepers_are_told_nothing_while_an_lb_is_unread() -> None:
    """A new session would replace the only copy."""
    world = begun("controller", "keeper")
    world.restart_control()
    for name in ("lb-b", "lb-c"):
        world.connect(name)
    for _ in range(20):
        world.tick(0.05)
        for name in world.switches:
            world.deliver(name)
            world.hear(name)
        assert not any(isinstance(call, SendBatch) for call in world.calls)
    world.rest()
    for _ in range(20):
        world.tick(0.2)
        world.drain()
    assert all(state.synced for state in world.control.feeds.states(world.now))


def test_only_external_ips_with_keeper_are_fed() -> None:
    world = begun("controller", "sockets")
    assert world.control.feeds.states(world.now) == []


# A keeper is believed no more than is its own.


def lies(world: FaultySite, liar: bytes) -> list[Row]:
    """What a keeper of that server would say to get others' clients."""
    stolen = [world.key(conversation) for conversation in world.conversations
              if conversation.server.address.packed != liar]
    victim, other = stolen[0], bytes([198, 51, 100, 77])
    protocol, client, port, external, external_port = unpack_key(victim)
    elsewhere = pack_key(protocol, client, port, other, external_port)
    ping = pack_key(1, client, port, external, external_port)
    return [
        *(Row(key, reply_key(key, liar, 80), ROUTER_MAC, 0) for key in stolen),
        Row(elsewhere, reply_key(elsewhere, liar, 80), ROUTER_MAC, 0),
        Row(ping, reply_key(ping, liar, 80), ROUTER_MAC, 0),
        Row(victim, reply_key(victim, other, 80), ROUTER_MAC, 0),
        Row(victim, reply_key(victim, liar, 80)[:-6] + other + bytes(2), ROUTER_MAC, 0),
    ]


@pytest.mark.parametrize("which", [min, max], ids=["asked first", "asked last"])
def test_a_keeper_that_tells_of_others_connections_gets_none(monkeypatch, which) -> None:
    world = begun("keeper", "controller")
    liar, honest = which(world.copies), world.kept_rows
    monkeypatch.setattr(world, "kept_rows", lambda message: honest(message) + (
        lies(world, liar) if message.server.packed == liar else []))
    world.kill("lb-a")
    world.rest()
    assert entries_from(world) == {"keeper": 4}
    assert world.control.ground.counters["copied_entries_refused"] == 6
    world.check_settled()
    assert all(conversation.live for conversation in world.conversations)


def test_the_naive_twin_believes_it_all(monkeypatch) -> None:
    monkeypatch.setattr("lbctl.copies.fetching.Copies._believed", lambda copies, serving, server, copy, rows: rows)
    world = begun("keeper", "controller")
    liar, honest = max(world.copies), world.kept_rows
    monkeypatch.setattr(world, "kept_rows", lambda message: honest(message) + (
        lies(world, liar)[:2] if message.server.packed == liar else []))
    world.kill("lb-a")
    world.rest()
    with pytest.raises(AssertionError):
        world.check_settled()


def test_full_copies_look_at_some_entries_at_a_tick(monkeypatch) -> None:
    """All entries are looked through for each."""
    monkeypatch.setattr(publisher, "LOOKED_AT_ONCE", 3)
    monkeypatch.setattr(feeds, "SEARCHED", 1)
    monkeypatch.setattr(feeds, "EMPTY", 0)
    monkeypatch.setattr(feeds, "ROWS_AT_ONCE", 3)
    world = FaultySite(kept_site(("keeper",), lbs=3, ips=2))
    world.rest(step=0.1)
    for _ in range(20):
        world.open(0)
    world.drain()
    publishers = world.control.feeds.publishers
    assert len(publishers) == 4
    for each in publishers.values():
        each._lose("the test says so")
    while not all(each.synced for each in publishers.values()):
        for each in publishers.values():
            each.looked_at = 0
        world.tick(0.05)
        assert sum(each.looked_at for each in publishers.values()) < 2 * 3
        world.drain()
        while world.call():
            pass
    kept = {row.key for serving in world.control.ground.external_ips for keeper in world.site.keepers.each
            for row in world.kept_rows(FetchCopy(keeper, serving.config, keeper.server, "keeper", 1)) or ()}
    assert kept == {entry.key for serving in world.control.ground.external_ips for entry in serving.table.entries()}
    assert len(kept) == 20
