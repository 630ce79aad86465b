"""The simulator drives lbctl's own balancing, so plans on any site can be carried out in no time.

And a simulated day has what a day should have.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.simulator.day import simulate
from evaluation.simulator.load import DAY, UNIT, UTILISATION, Day
from evaluation.simulator.site import SimulatedControl, relative
from lbctl.assignment import assign
from lbctl.load.loads import Load
from lbctl.site.model import Rebalance


def control(loads: list[float], place: list[int], capacity: list[float], **rebalance) -> SimulatedControl:
    """A site whose external IPs carry just that, all the time."""
    site = SimulatedControl(capacity, place, Rebalance(**rebalance), 2.0)
    carried = {serving.address: Load(load) for serving, load in zip(site.servings, loads, strict=True)}
    site.loads.of = lambda serving: carried[serving.address]
    return site


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(2, 5), st.integers(1, 4))
def test_no_plan_is_stopped_while_the_load_stays(data, lbs: int, at_once: int) -> None:
    count = data.draw(st.integers(1, 12))
    loads = data.draw(st.lists(st.floats(0.1, 100), min_size=count, max_size=count))
    place = data.draw(st.lists(st.integers(0, lbs - 1), min_size=count, max_size=count))
    site = control(loads, place, data.draw(st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=lbs, max_size=lbs)),
                   at_once=at_once, threshold=data.draw(st.floats(0.01, 0.5)))
    site.move_times = itertools.cycle((1.0, 3.5, 2.0))
    plan = assign(site.balancing.problem(), "heuristic")
    run, _ = site.balancing.begin(plan, 0.0)
    for now in range(1, 6 * count + 6):
        site.tick(float(now))
    assert (run.state, run.reason) == ("done", None)
    assert {serving.address: serving.assigned for serving in site.servings} == plan.target


def test_what_is_fair_counts_large_lbs_for_what_they_can_carry() -> None:
    site = control([2.0, 1.5, 1.5, 1.5, 1.5], [0, 1, 1, 2, 2], [8.0, 1.0, 1.0], mode="automatic", threshold=0.5)
    for now in range(30):
        site.tick(float(now))
    assert site.tally.moves > 0, "relative loads 0.25, 3, 3 are far from 8 / 10, though not from their mean"


def test_by_itself_what_is_nearly_even_is_left_alone() -> None:
    """A plan made by itself does not go for the last per cent, so it moves less than one that was ordered."""
    loads, place = [17.0, 23.0, 30.0, 29.0, 15.0, 21.0, 6.0], [0, 0, 1, 0, 1, 0, 0]
    site = control(loads, place, [1.0, 1.0], mode="automatic", threshold=0.2)
    ordered = assign(site.balancing.problem(), "heuristic")
    for now in range(200):
        site.tick(float(now))
    highest = max(site.balancing._relative().values())
    assert 0 < site.tally.moves < len(ordered.moves)
    assert highest <= ordered.bound * 1.05 < max(ordered.before.values())


def test_a_failed_lb_loses_its_external_ips_and_gets_some_again_when_it_is_back() -> None:
    site = control([1.0] * 12, [0, 1, 2] * 4, [1.0, 1.0, 1.0], mode="automatic", threshold=0.3, cooldown=10.0)
    site.fail("lb-1")
    site.tick(0.0)
    assert sorted(np.bincount(site.places(), minlength=3)) == [0, 6, 6]
    for now in range(1, 60):
        site.tick(float(now))
    assert site.tally.moves == 0, "6 and 6 is as even as two can be"
    site.come_back("lb-1")
    for now in range(60, 120):
        site.tick(float(now))
    assert max(np.bincount(site.places(), minlength=3)) <= 5 and site.tally.moves >= 3


def test_measured_is_what_is_carried() -> None:
    site = SimulatedControl([UNIT, UNIT], [0, 0, 1], Rebalance(), 10.0)
    load = np.array([500.0, 300.0, 200.0])
    for step in range(40):
        site.measure(load, 10.0, 10.0 * step)
    assert list(site.balancing._relative().values()) == pytest.approx([800 / UNIT, 200 / UNIT], rel=0.02)
    assert list(relative(load, site.places(), np.array([UNIT, UNIT]))) == pytest.approx([800 / UNIT, 200 / UNIT])


def test_a_day_is_the_same_each_time_and_as_busy_as_it_says() -> None:
    one, two = Day(20, 200, 5), Day(20, 200, 5)
    fair = [float(one.step(hour * 3600.0).sum() / one.capacity.sum()) for hour in range(24)]
    assert [float(two.step(hour * 3600.0).sum() / two.capacity.sum()) for hour in range(24)] == fair
    assert max(fair) == pytest.approx(UTILISATION, rel=0.2) and min(fair) < 0.75 * max(fair)
    assert one.outages and all(0 <= outage.begin < outage.end for outage in one.outages) and one.outages == two.outages


def test_an_hour_of_a_small_site_automatic_is_better_than_static_and_never_better_than_the_bound() -> None:
    rebalance = Rebalance("automatic", threshold=0.2, cooldown=120.0)
    record = simulate(Day(20, 200, 1), rebalance, 20.0, lambda _: None, DAY / 24)
    assert len(record.at) == 180 and record.tally.moves > 0
    assert np.mean(record.automatic) < np.mean(record.static)
    at_bound = [automatic for at, automatic in zip(record.at, record.automatic, strict=True) if at in record.bound_at]
    assert all(bound <= automatic * (1 + 1e-9) for bound, automatic in zip(record.bound, at_bound, strict=True))
    assert all(plan.bound <= plan.after * (1 + 1e-9) for plan in record.tally.plans)
