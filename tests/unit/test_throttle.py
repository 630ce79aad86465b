"""How a flood is turned away: lbctl/load/throttle.py against a switch and a controller that can do so much a second."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbctl.ground.effects import ToSwitch
from lbctl.load.throttle import BUSY, Throttle
from lbctl.openflow.messages import Barrier, SetMeter
from lbctl.openflow.meters import meter_new
from tests.unit.fake_site import FakeSite, site

TICK = 0.02
QUEUE = 2_000
"""Packets that wait at most: seconds of work."""


class Plant:
    """Packets for the site's external IPs go through their meters into one queue, which `capacity` a second leave, and
    barriers with them."""

    def __init__(self, capacity: float, offered: list[float], new_rate: int = 10_000) -> None:
        """offered: packets a second for each external IP."""
        self.world = FakeSite(site(new_rate=new_rate))
        self.world.settle(1.0)
        self.servings = list(self.world.control.ground.external_ips)[: len(offered)]
        for serving in self.servings:
            serving.assign("lb-a", 0.0)
        self.capacity, self.offered = capacity, offered
        self.rates = [float(new_rate)] * len(offered)
        self.queue: deque[tuple[int, float]] = deque()
        """Which external IP's, and when it came; or ~token."""
        self.taken: dict = {}
        self.throttle = Throttle(self.world.control.ground, self._take)
        self.now, self.work = 1000.0, 0.0
        self.served = [0] * len(offered)
        self.changes: list[int] = []

    def _take(self):
        taken, self.taken = self.taken, {}
        return taken

    @property
    def delay(self) -> float:
        """Seconds that what comes now will wait."""
        return len(self.queue) / self.capacity

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            for number, offered in enumerate(self.offered):
                for _ in range(round(min(offered, self.rates[number]) * TICK)):
                    if len(self.queue) < QUEUE:
                        self.queue.append((number, self.now))
            self._serve()
            self._heed(self.throttle.tick(self.now))

    def _serve(self) -> None:
        self.work += self.capacity * TICK
        while self.queue and self.work >= 1:
            number, _ = self.queue.popleft()
            self.work -= 1
            if number < 0:
                self.world.control.ground.tokens.confirmed(~number, self.now)
            else:
                serving = self.servings[number]
                self.taken[serving] = self.taken.get(serving, 0) + 1
                self.served[number] += 1
        if not self.queue:
            self.work = 0.0

    def _heed(self, out) -> None:
        meters = [meter_new(serving.owner) for serving in self.servings]
        for effect in out:
            assert isinstance(effect, ToSwitch)
            if effect.lb == "lb-a":
                match effect.message:
                    case Barrier(token):
                        self.queue.append((~token, self.now))
                    case SetMeter(meter, rate, _):
                        self.rates[meters.index(meter)] = rate
                        self.changes.append(meters.index(meter))


@settings(max_examples=20)
@given(capacity=st.floats(800, 5000), flood=st.floats(6_000, 30_000), other=st.floats(1, 250))
def test_a_flood_is_limited_to_what_can_be_served_and_nobody_else_is(capacity, flood, other) -> None:
    plant = Plant(capacity, [flood, other])
    plant.run(30.0)
    assert set(plant.changes) == {0}
    assert plant.rates[1] == 10_000 and plant.rates[0] < 1.2 * capacity
    assert plant.delay < 1.0
    before = list(plant.served)
    plant.run(20.0)
    assert plant.delay < 1.0
    assert plant.served[0] - before[0] > 0.3 * 20 * min(capacity, 3000), "and much of what can be served is served"


def test_what_can_be_served_is_not_limited() -> None:
    plant = Plant(3000, [2500, 400])
    plant.run(60.0)
    assert plant.changes == [] and plant.delay < 0.1


@pytest.mark.parametrize("still", [0.1, 0.25, 0.3])
@pytest.mark.parametrize("after", [0.02, 0.3, 5.0])
def test_what_stands_still_for_a_moment_is_not_limited(still: float, after: float) -> None:
    """Also at a burst's beginning, when little has been counted."""
    plant = Plant(3000, [1500])
    plant.run(after)
    plant.capacity = 0.0001
    plant.run(still)
    plant.capacity = 3000
    plant.run(10.0)
    assert plant.changes == []


def test_a_limit_is_of_what_is_served_also_at_a_bursts_beginning() -> None:
    plant = Plant(2000, [0])
    plant.run(1.0)
    plant.offered[0] = 10_000
    while not plant.changes:
        plant.run(TICK)
    assert plant.rates[0] > 0.5 * plant.capacity


def test_a_limit_is_lifted_when_the_flood_is_over() -> None:
    plant = Plant(1000, [10_000, 10])
    plant.run(20.0)
    address = plant.servings[0].address
    assert plant.throttle.limit(address) == pytest.approx(plant.rates[0], abs=1)
    plant.offered[0] = 50
    plant.run(15.0)
    assert plant.throttle.limit(address) is None and plant.rates[0] == 10_000


def test_two_floods_are_limited_both() -> None:
    plant = Plant(2000, [10_000, 15_000])
    plant.run(40.0)
    assert set(plant.changes) == {0, 1} and plant.delay < 1.0


def test_little_is_never_limited_however_late_a_switch_is() -> None:
    """It may be copying."""
    plant = Plant(50, [BUSY / 2, BUSY / 2])
    plant.run(20.0)
    assert plant.changes == []


def test_a_limit_follows_its_external_ip_and_a_lost_switch_is_not_waited_for() -> None:
    plant = Plant(1000, [10_000])
    plant.run(10.0)
    plant.world.control.switch_lost("lb-a", "gone", plant.now)
    plant.run(15.0)
    assert plant.throttle.limit(plant.servings[0].address) is not None


@pytest.mark.parametrize("limited", [False, True])
def test_an_lb_and_an_external_ip_that_another_site_file_takes_away_are_forgotten(limited: bool) -> None:
    plant = Plant(1000, [10_000] if limited else [500])
    plant.run(10.0)
    [serving] = plant.servings
    ground = plant.world.control.ground
    del ground.switches["lb-a"]
    ground.external_ips.replace([other for other in ground.external_ips if other is not serving])
    plant.run(1.0)
    assert plant.throttle.limit(serving.address) is None
