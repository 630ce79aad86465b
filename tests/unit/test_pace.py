"""A move never gives a switch much work at once: what was measured is in docs/performance.md."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise

from lbctl.entries.access_table import Entry
from lbctl.moves import forgetting
from lbctl.moves.move import CHUNK
from lbctl.openflow.cookies import Kind, kind_of
from lbctl.openflow.messages import AddEntries, DeleteCookie, Message
from lbctl.values.keys import BUCKETS, pack_key, reply_key
from lbctl.values.transfer import Strategy
from tests.unit.fake_site import ROUTER_MAC, FakeSite, site

ADDRESS, SERVER = IPv4Address("198.51.100.1"), IPv4Address("10.0.0.10").packed
TCP = 6


def moved(count: int) -> dict[str, list[list[Message]]]:
    """What each LB was sent, answer by answer, in a move from lb-a to lb-b of an external IP with so many entries."""
    world = FakeSite(site(ips=1, grace=1.0))
    world.settle(1.0)
    table = world.serving(ADDRESS).table
    for number in range(count):
        key = pack_key(TCP, bytes([203, 0, 113, 1]), 1024 + number, ADDRESS.packed, 80)
        table.add(Entry(key, reply_key(key, SERVER, 80), ROUTER_MAC, world.now))
    sent: dict[str, list[list[Message]]] = {"lb-a": [], "lb-b": []}
    _, out = world.control.movement.start(ADDRESS, "lb-b", Strategy.PRECOPY, world.now)
    world.post(out)
    for turn in range(50 + 4 * BUCKETS):
        if turn % 10 == 0:
            world.tick(0.5)
        for name, turns in sent.items():
            turns.append(list(world.to_switch[name]))
        world.round()
    assert table.by_key(key) and not any(world.to_switch.values())
    return sent


def test_one_small_bundle_is_under_way_at_a_time() -> None:
    bundles = [[message for message in turn if isinstance(message, AddEntries)] for turn in moved(250)["lb-b"]]
    assert sum(len(bundle.entries) for turn in bundles for bundle in turn) == 250
    assert max(len(turn) for turn in bundles) == 1
    assert max(len(bundle.entries) for turn in bundles for bundle in turn) == CHUNK
    assert not any(early and late for early, late in pairwise(bundles)), (
        "sent before the switch had confirmed the one before"
    )


def forgotten(count: int) -> list[int]:
    """How many buckets the old LB was told to delete, answer by answer, in such a move."""
    return [sum(isinstance(message, DeleteCookie) and kind_of(message.cookie) in (Kind.ENTRY_IN, Kind.ENTRY_OUT)
                for message in turn) for turn in moved(count)["lb-a"]]


def test_only_buckets_that_have_entries_are_forgotten() -> None:
    """A sliced service has none: a switch that was asked to delete 2048 empty buckets kept probes waiting."""
    assert sum(forgotten(1)) == 2
    assert sum(forgotten(BUCKETS)) == 2 * BUCKETS  # these are in one bucket each


def test_the_more_entries_the_fewer_buckets_are_forgotten_at_once(monkeypatch) -> None:
    monkeypatch.setattr(forgetting, "FLOWS", 2)
    assert max(forgotten(20)) == forgetting.AT_ONCE
    assert max(forgotten(400)) == 2 * BUCKETS // 400
    monkeypatch.setattr(forgetting, "FLOWS", 0)
    assert max(forgotten(1)) == 1
