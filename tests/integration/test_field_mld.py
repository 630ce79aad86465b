"""Switches that snoop MLD, as most do by default (docs/field.md)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.bed.traffic import connect
from tests.integration.hands import eventually

FIRST, GROUP = "2001:db8:1::1", "ff02::1:ff00:1"
"""An external IP, and its solicited-node group."""
BED = {"site": simple_site(version=6, settings={"grace": 0.5})}
SEGMENTS = ("external", "internal")
RESPONSE = 1.0
"""Seconds in which a query is answered; then the segment sends a group's packets to its listeners only."""


@contextlib.contextmanager
def snooping(bed: Bed) -> Iterator[None]:
    """The segments are switches that snoop, and ask."""
    for segment in SEGMENTS:
        bed.switch.sysctl(**{f"ipv6__conf__{segment}__disable_ipv6": 0, f"ipv6__conf__{segment}__accept_dad": 0})
        bed.switch.ip("link", "set", segment, "down")
        bed.switch.ip("link", "set", segment, "up")
        bed.switch.ip("link", "set", segment, "type", "bridge", "mcast_query_response_interval", int(RESPONSE * 100))
        bed.switch.ip("link", "set", segment, "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1")
    try:
        time.sleep(2 * RESPONSE)
        yield
    finally:
        for segment in SEGMENTS:
            bed.switch.ip("link", "set", segment, "type", "bridge", "mcast_snooping", "0", "mcast_querier", "0",
                          "mcast_query_response_interval", "1000")
            bed.switch.sysctl(**{f"ipv6__conf__{segment}__disable_ipv6": 1})


def reached(bed: Bed) -> bool:
    """By a client that does not know where it is?"""
    client = bed.clients[0]
    client.ip("neigh", "flush", "all")
    try:
        connect(client, FIRST, timeout=limit(1.0)).close()
    except OSError:
        return False
    return True


def listeners(bed: Bed) -> str:
    """The ports of the external segment whose hosts listen to that group."""
    lines = bed.switch.run("bridge", "mdb", "show", "dev", "external").splitlines()
    return " ".join(line.split(" port ")[1].split()[0] for line in lines if f" grp {GROUP} " in line)


def test_an_external_ip_is_found_and_moves(quiet_bed: Bed) -> None:
    with snooping(quiet_bed):
        quiet_bed.start_controller()
        eventually(quiet_bed, lambda: listeners(quiet_bed), "it is reported", 5.0)
        assert reached(quiet_bed)
        before = listeners(quiet_bed)
        assert quiet_bed.move(FIRST, "lb-b")["state"] == "done"
        eventually(quiet_bed, lambda: listeners(quiet_bed) != before, "the other LB reports it", 5.0)
        assert reached(quiet_bed)


def test_without_reports_it_is_not_found(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_memberships.py", *APPS)
    with snooping(quiet_bed):
        quiet_bed.start_controller()
        eventually(quiet_bed, lambda: not reached(quiet_bed), "nobody finds it, unannounced", 15.0)


# What has been reported is forgotten, by a switch that was restarted for instance.

REPORTED_ONCE = "tests/integration/reports_once.py"


def asks_again(bed: Bed, version: int) -> None:
    """The switch forgets who listens to the group, and asks all what they listen to. version: of MLD."""
    bed.switch.ip("link", "set", "external", "type", "bridge", "mcast_mld_version", version)
    eventually(bed, lambda: listeners(bed), "it is reported", 5.0)
    for port in set(listeners(bed).split()):
        bed.switch.run("bridge", "mdb", "del", "dev", "external", "port", port, "grp", GROUP)
    assert not listeners(bed)
    for querier in "0", "1":
        bed.switch.ip("link", "set", "external", "type", "bridge", "mcast_querier", querier)


@pytest.mark.parametrize("version", [1, 2])
def test_who_asks_is_told(quiet_bed: Bed, version: int) -> None:
    quiet_bed.controller.apps = (REPORTED_ONCE, *APPS)
    with snooping(quiet_bed):
        quiet_bed.start_controller()
        asks_again(quiet_bed, version)
        eventually(quiet_bed, lambda: listeners(quiet_bed), "it is reported again", 5.0)
        assert reached(quiet_bed)


def test_where_queries_are_not_answered_it_is_not_found(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = (REPORTED_ONCE, "tests/integration/naive_queries.py", *APPS)
    with snooping(quiet_bed):
        quiet_bed.start_controller()
        asks_again(quiet_bed, 2)
        time.sleep(3 * RESPONSE)
        assert not listeners(quiet_bed) and not reached(quiet_bed)
