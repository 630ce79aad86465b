"""Gratuitous ARP is repeated at more than a second's spacing, and only for the LB that has the external IP now."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise

from lbctl.networks.announcements import SPACING, Announcements

ADDRESS, OTHER = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")


def times(announcements: Announcements, until: float = 20.0) -> list[tuple[float, list]]:
    found = []
    for tick in range(int(until * 20)):
        due = announcements.due(tick / 20)
        if due:
            found.append((tick / 20, due))
    return found


def test_five_times_in_all() -> None:
    announcements = Announcements()
    announcements.start(ADDRESS, "lb-a", 0.0)
    found = times(announcements)
    assert len(found) == 4, "the first is the caller's"
    assert all(due == [(ADDRESS, "lb-a")] for _, due in found)
    moments = [0.0, *(moment for moment, _ in found)]
    assert all(1 < later - earlier < 2 for earlier, later in pairwise(moments)), "a kernel heeds one a second"


def test_only_the_latest_lb_is_announced() -> None:
    announcements = Announcements()
    announcements.start(ADDRESS, "lb-a", 0.0)
    announcements.start(ADDRESS, "lb-b", 0.5)
    assert {lb for _, due in times(announcements) for _, lb in due} == {"lb-b"}


def test_external_ips_are_independent() -> None:
    announcements = Announcements()
    announcements.start(ADDRESS, "lb-a", 0.0)
    announcements.start(OTHER, "lb-b", 0.0)
    assert set(announcements.due(SPACING)) == {(ADDRESS, "lb-a"), (OTHER, "lb-b")}


def test_a_late_tick_announces_once() -> None:
    announcements = Announcements()
    announcements.start(ADDRESS, "lb-a", 0.0)
    assert len(announcements.due(60.0)) == 1
    assert announcements.due(60.5) == []
