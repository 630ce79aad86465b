"""What the benchmark of failover relies on: its connections tell what becomes of them, and its faults are the faults
they say."""

from __future__ import annotations

import time

import pytest

from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.faults import Established, Fates
from tests.bed.traffic import connect
from tests.integration.moving import FIRST

BED = {"settings": {"automatic_failover": False}}


def counts(fates: Fates) -> tuple[int, int, int, int]:
    return fates.alive, fates.reset, fates.closed, fates.hung


def test_fates_are_told_apart(bed: Bed) -> None:
    """Six of twelve connections are reset by their server, which aborts them; the LB dies, and the others hang."""
    established = Established(bed, bed.remote, FIRST, 12, patience=1.0)
    bed.servers[0].run("ss", "-K", "state", "established")
    open_ones = ("ss", "-Htn", "state", "established")
    bed.wait_until(lambda: len(bed.remote.run(*open_ones).splitlines()) == 6, 5, "six have been reset")
    faults.kill(bed, "lb-a")
    killed = time.monotonic()
    with pytest.raises(TimeoutError):
        connect(bed.remote, FIRST, timeout=0.5)
    fates = established.finish()
    assert counts(fates) == (0, 6, 0, 6)
    assert fates.answers and fates.silence(killed) is None, "it had no end"


def test_a_silence_is_measured(bed: Bed) -> None:
    """Nothing comes through while the link is cut, and everything goes on when it is mended.

    A second's worth of connections: each moment there is one that TCP has not made wait.
    """
    established = Established(bed, bed.remote, FIRST, 1000)
    begun = time.monotonic()
    faults.cut_silently(bed, "lb-a", "external")
    cut = time.monotonic() - begun
    bed.wait_until(lambda: time.monotonic() > begun + cut + 0.3, 5, "a while has passed")
    mended = time.monotonic() - begun
    faults.mend(bed, "lb-a", "external")
    for _ in range(20):
        connect(bed.remote, FIRST).close()  # lines go out meanwhile
    fates = established.finish()
    assert counts(fates) == (1000, 0, 0, 0)
    silence = fates.silence(begun)
    assert silence and silence.end >= mended and silence.length > 0.25


@pytest.mark.parametrize("side", ["external", "internal", "management"])
def test_a_cut_takes_the_carrier_unless_it_is_silent(bed: Bed, side: str) -> None:
    node = bed.lbs["lb-a"]
    device = {"external": node.lb.external_port, "internal": node.lb.internal_port, "management": "eth0"}[side]

    def carrier() -> bool:
        return "LOWER_UP" in node.space.ip("-o", "link", "show", device)

    assert carrier()
    faults.cut_silently(bed, "lb-a", side)
    assert carrier()
    faults.cut(bed, "lb-a", side)
    bed.wait_until(lambda: not carrier(), 5, "no carrier")
    faults.mend(bed, "lb-a", side)
    bed.wait_until(carrier, 5, "a carrier")


def test_a_frozen_lb_forwards_nothing(bed: Bed) -> None:
    faults.freeze(bed, "lb-a")
    with pytest.raises(TimeoutError):
        connect(bed.clients[0], FIRST, timeout=0.5)
    faults.thaw(bed, "lb-a")
    connect(bed.clients[0], FIRST).close()
