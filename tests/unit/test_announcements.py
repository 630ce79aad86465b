"""Gratuitous ARP is repeated at more than a second's spacing, and only for the LB that has the external IP now."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise

from lbctl.networks.announcements import ALWAYS, ASTRAY, BURST, SPACING, TIMES, Announcements

RATE = 100
ADDRESS, OTHER = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")


def make(rate: float = RATE, weights: dict | None = None) -> Announcements:
    return Announcements(lambda: rate, lambda address: (weights or {}).get(address, 0))


def times(announcements: Announcements, until: float = 20.0) -> list[tuple[float, list]]:
    found = []
    for tick in range(int(until * 20)):
        due = announcements.due(tick / 20)
        if due:
            found.append((tick / 20, due))
    return found


def test_five_times_in_all() -> None:
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    found = times(announcements)
    assert len(found) == 4, "the first is the caller's"
    assert all(due == [(ADDRESS, "lb-a")] for _, due in found)
    moments = [0.0, *(moment for moment, _ in found)]
    assert all(1 < later - earlier < 2 for earlier, later in pairwise(moments)), "a kernel heeds one a second"


def test_only_the_latest_lb_is_announced() -> None:
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    announcements.start(ADDRESS, "lb-b", 0.5)
    assert {lb for _, due in times(announcements) for _, lb in due} == {"lb-b"}


def test_external_ips_are_independent() -> None:
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    announcements.start(OTHER, "lb-b", 0.0)
    assert set(announcements.due(SPACING)) == {(ADDRESS, "lb-a"), (OTHER, "lb-b")}


def test_a_late_tick_announces_once() -> None:
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    assert len(announcements.due(30.0)) == 1
    assert announcements.due(30.5) == []


def test_many_are_paced_and_the_busiest_come_first() -> None:
    """500 of them in a few seconds, and none twice before all have had their turn."""
    many = [IPv4Address(0xC6336400 + number) for number in range(500)]
    weights = {address: number for number, address in enumerate(many)}
    announcements = make(weights=weights)
    told = [(0.0, address) for address in many if announcements.start(address, "lb-a", 0.0)]
    assert len(told) == RATE * BURST
    for tick in range(1, 400):
        now = tick / 10
        due = [address for address, _ in announcements.due(now)]
        assert len(due) <= RATE * BURST
        told += [(now, address) for address in due]
    first = dict((address, now) for now, address in reversed(told))
    assert len(first) == 500 and max(first.values()) < 6.0
    waited = [address for now, address in told if 0.0 < now < 4.0]
    assert waited == sorted(waited, key=weights.__getitem__, reverse=True)
    assert len([now for now, _ in told if now < 30.0]) == 500 * TIMES


def test_what_a_limit_drops_is_not_the_same_in_each_round() -> None:
    """A switch that takes every second announcement."""
    many = [IPv4Address(0xC6336400 + number) for number in range(500)]
    announcements = make()
    told = [address for address in many if announcements.start(address, "lb-a", 0.0)]
    for tick in range(1, 300):
        told += [address for address, _ in announcements.due(tick / 10)]
    assert len(told) == 500 * TIMES
    reached = [len(set(told[: 500 * rounds : 2])) for rounds in range(1, TIMES + 1)]
    assert reached[0] == 250 and reached[1] > 340 and reached[-1] > 470


def test_it_is_announced_for_ever_slowly() -> None:
    """Whoever missed all five is told."""
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    last = times(announcements)[-1][0]
    found = [second for second in range(20, 320) for _ in announcements.due(float(second))]
    assert len(found) == 300 // ALWAYS and found[0] >= last + ALWAYS
    assert all(later - earlier >= ALWAYS for earlier, later in pairwise(found))


def test_slow_ones_delay_no_other() -> None:
    many = [IPv4Address(0xC6336400 + number) for number in range(300)]
    announcements = make(rate=5)
    for address in many:
        announcements.start(address, "lb-a", 0.0)
    for tick in range(1000):
        announcements.due(tick / 2)
    slow = 0
    for tick in range(1000, 2300):
        slow += len(announcements.due(tick / 2))
        if not tick % 7:
            assert announcements.start(OTHER, "lb-b", tick / 2 + 0.1), "there is room for one more"
            announcements.forget(OTHER)
    assert 600 < slow <= 650 * 5 / 4


def test_what_is_not_to_be_announced_is_forgotten() -> None:
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    announcements.forget(ADDRESS)
    assert times(announcements, 300.0) == []


def test_it_is_announced_again_soon_while_packets_go_astray() -> None:
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    last = times(announcements)[-1][0]
    found = []
    for second in range(20, 200):
        announcements.again([(ADDRESS, "lb-a")], float(second))
        found += [second for _ in announcements.due(float(second))]
    assert len(found) == 6 and found[0] >= last + ASTRAY
    assert all(later - earlier >= ASTRAY for earlier, later in pairwise(found))
