"""The management network is away, or the controller is stopped: no external IP moves that need not, nobody notices, and
an LB that dies meanwhile is taken over (docs/failover.md, "Was it me?")."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.bed import faults
from tests.bed.bed import Bed
from tests.integration.failing import failover_of
from tests.integration.hands import metric
from tests.integration.moving import FIRST, Talks, assert_unharmed, assigned, mixed_load
from tests.integration.test_detection import BED, bed, state

__all__ = ["BED", "bed"]
LBS = "lb-a", "lb-b", "lb-c"
STAGGER = 2.0
"""Seconds from the return of one LB to that of the next: longer than relieve_after."""


def moves(bed: Bed) -> list[str]:
    """What has been moved, and why."""
    found = bed.rest("GET", "/v1/moves").json["moves"]
    return [f"{move['kind']} {move['external_ip']}: {move['cause']}" for move in found]


def cut_off(bed: Bed) -> bool:
    return bed.rest("GET", "/v1/health").json["cut_off_since"] is not None


def told(bed: Bed) -> int:
    return bed.controller.logged("the controller is cut off from most load balancers")


def come_back(bed: Bed, *lbs: str) -> None:
    """One after the other, whatever that takes an LB."""
    for lb in lbs:
        faults.mend(bed, lb, "management")
        bed.wait_until(lambda: state(bed, lb) == "ready", 15, f"{lb} is ready again")  # noqa: B023
        time.sleep(STAGGER)


@pytest.mark.parametrize("cut", [faults.cut, faults.cut_silently], ids=["with errors", "black hole"])
@pytest.mark.parametrize("seconds", [1.0, 6.0])
def test_the_management_network_is_away(bed: Bed, cut: Callable[[Bed, str, str], None], seconds: float) -> None:
    loads = mixed_load(bed, FIRST, lines=20, requests=0)
    for lb in LBS:
        cut(bed, lb, "management")
    time.sleep(seconds)
    come_back(bed, "lb-b", "lb-c", "lb-a")
    assert moves(bed) == [] and not cut_off(bed)
    assert_unharmed(loads, succeeded=0)


def test_it_is_told_that_the_controller_is_cut_off(bed: Bed) -> None:
    before = told(bed)
    for lb in LBS:
        faults.cut_silently(bed, lb, "management")
    bed.wait_until(lambda: cut_off(bed), 30, "most LBs are lost")
    assert metric(bed, "lbctl_controller_cut_off") == 1
    bed.wait_until(lambda: {state(bed, lb) for lb in LBS} == {"disconnected"}, 60, "it has noticed all of it")
    come_back(bed, *LBS)
    assert told(bed) == before + 1
    assert metric(bed, "lbctl_controller_cut_off") == 0 and moves(bed) == []


def test_an_lb_dies_while_the_management_network_is_away(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 20) as near, Talks(bed.remote, FIRST, 10) as far:
        for lb in LBS:
            faults.cut_silently(bed, lb, "management")
        time.sleep(2.0)
        faults.kill(bed, "lb-a")
        for lb in LBS:
            faults.mend(bed, lb, "management")
        assert failover_of(bed, timeout=30)["entries_from"] == {"controller": 30}
        assert near.broken() == far.broken() == []
    assert assigned(bed) in LBS[1:]


def test_the_controller_is_stopped_for_a_while(bed: Bed) -> None:
    """The switches give their connections up."""
    loads = mixed_load(bed, FIRST, lines=20, requests=0)
    bed.controller.signal(signal.SIGSTOP)
    time.sleep(15.0)
    bed.controller.signal(signal.SIGCONT)
    bed.wait_ready(30)
    time.sleep(STAGGER)
    assert moves(bed) == []
    assert_unharmed(loads, succeeded=0)
