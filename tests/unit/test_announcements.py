"""Gratuitous ARP is repeated at more than a second's spacing, and only for the LB that has the external IP now."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise

from lbctl.networks.announcements import AGAIN, BURST, SPACING, TIMES, Announcements

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
    assert len(announcements.due(60.0)) == 1
    assert announcements.due(60.5) == []


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
    assert len(told) == 500 * TIMES


def test_it_is_announced_again_slowly_while_packets_go_astray() -> None:
    announcements = make()
    announcements.start(ADDRESS, "lb-a", 0.0)
    last = times(announcements)[-1][0]
    found = []
    for second in range(20, 200):
        announcements.again([(ADDRESS, "lb-a")], float(second))
        found += [second for _ in announcements.due(float(second))]
    assert len(found) == 6 and found[0] >= last + AGAIN
    assert all(later - earlier >= AGAIN for earlier, later in pairwise(found))
