"""The same day twice at once: an assignment that only failovers change, and one that is rebalanced by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from evaluation.simulator.load import DAY, Day, Numbers
from evaluation.simulator.site import FIRST, SimulatedControl, Tally, relative
from lbctl.assignment import Capacity, Demand, Problem, assign
from lbctl.assignment.bounds import lower_bound
from lbctl.assignment.problem import checked
from lbctl.site.model import Rebalance

STEP = 5.0
"""Seconds between two ticks of the balancing."""
BOUND_EVERY = 300.0
Say = Callable[[str], None]


@dataclass
class Record:
    """The highest relative loads over the day.

    at: when (s); static and automatic; fair: all loads by all capacities in use; bound_at, bound: what no assignment
    beats (each BOUND_EVERY). moves: so many until then.
    """

    at: list[float] = field(default_factory=list)
    static: list[float] = field(default_factory=list)
    automatic: list[float] = field(default_factory=list)
    fair: list[float] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    bound_at: list[float] = field(default_factory=list)
    bound: list[float] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)


def simulate(day: Day, rebalance: Rebalance, period: float, say: Say, seconds: float = DAY) -> Record:
    """period: of measuring, seconds; a multiple of STEP. say is told once in an hour of the day."""
    place = _best_known(day)
    static, automatic = (
        SimulatedControl(day.capacity.tolist(), place, how, period) for how in (Rebalance(), rebalance)
    )
    record, at, pending = Record(tally=automatic.tally), 0.0, list(day.outages)
    outages = sorted(
        [(outage.begin, True, outage.lb) for outage in pending] + [(outage.end, False, outage.lb) for outage in pending]
    )
    while at < seconds:
        while outages and outages[0][0] <= at:
            _, failing, lb = outages.pop(0)
            for control in (static, automatic):
                (control.fail if failing else control.come_back)(f"lb-{lb}")
        load = day.step(at)
        for control in (static, automatic):
            control.measure(load, period, at)
            for step in range(round(period / STEP)):
                control.tick(at + step * STEP)
        _note(record, day, load, at, static, automatic)
        at += period
        if at % 3600 < period:
            say(
                f"  {at / 3600:.0f} h: static {record.static[-1]:.2f}, automatic {record.automatic[-1]:.2f}, "
                f"fair {record.fair[-1]:.2f}, "
                f"{record.tally.moves} moves, {len(record.tally.plans)} plans"
            )
    return record


def _best_known(day: Day) -> list[int]:
    """The best assignment for the loads' means over the day.

    Who knows them in advance cannot do much better without moving.
    """
    problem = _problem(day, day.mean, [number % len(day.capacity) for number in range(len(day.mean))], frozenset())
    plan = assign(problem, "heuristic")
    return [int(plan.target[FIRST + number].removeprefix("lb-")) for number in range(len(day.mean))]


def _problem(day: Day, load: Numbers, place: list[int], failed: frozenset[str]) -> Problem:
    addresses = [FIRST + number for number in range(len(place))]
    capacities = tuple(
        Capacity(f"lb-{number}", float(each), drained=f"lb-{number}" in failed)
        for number, each in enumerate(day.capacity)
    )
    return Problem(
        tuple(map(Demand, addresses, load.tolist())),
        capacities,
        {address: f"lb-{lb}" for address, lb in zip(addresses, place, strict=True)},
    )


def _note(
    record: Record, day: Day, load: Numbers, at: float, static: SimulatedControl, automatic: SimulatedControl
) -> None:
    place = automatic.places()
    record.at.append(at)
    record.static.append(float(relative(load, static.places(), day.capacity).max()))
    record.automatic.append(float(relative(load, place, day.capacity).max()))
    lost = sum(day.capacity[automatic.number[name]] for name in automatic.failures)
    record.fair.append(float(load.sum() / (day.capacity.sum() - lost)))
    record.moves.append(record.tally.moves)
    if at % BOUND_EVERY == 0:
        record.bound_at.append(at)
        record.bound.append(lower_bound(checked(_problem(day, load, place.tolist(), frozenset(automatic.failures)))))
