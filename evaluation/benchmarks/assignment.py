"""How long an assignment takes to compute, and how good it is.

The heuristic assigns 10 000 external IPs to 1 000 LBs, the exact algorithm 100 to 8.

The yardstick is the lower bound of the highest relative load. No switch and no controller.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from evaluation.measuring.findings import Findings, Result, median, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from lbctl.assignment import Capacity, Demand, Plan, Problem, assign

RUNS = 5
EXACT_LIMIT = 60.0
"""Seconds that HiGHS gets."""
KINDS: dict[str, Callable[[random.Random], float]] = {
    "uniform": lambda chance: chance.uniform(1, 100),
    "exponential": lambda chance: chance.expovariate(1),
    "log-normal": lambda chance: chance.lognormvariate(0, 1.5),
}


@dataclass(frozen=True)
class Wanted:
    """What is asked of an algorithm: seconds and a gap above the bound (a share) at most, plans proved at least."""

    algorithm: str
    seconds: float
    gap: float
    proved: int
    told: str


HEURISTIC = Wanted("heuristic", 2.0, 0.01, 0, "within 1 %")
EXACT = Wanted("exact", EXACT_LIMIT, math.inf, RUNS, "optimal")


def problem(count: int, lbs: int, kind: str, seed: int, mixed: bool = True) -> Problem:
    """Loads of that kind, up to 5 000 entries each, capacities 1, 2 and 4 (or all 1), and external IPs anywhere."""
    chance = random.Random(seed)
    addresses = [IPv4Address("198.18.0.0") + number for number in range(count)]
    demands = tuple(Demand(address, KINDS[kind](chance), chance.randrange(5000)) for address in addresses)
    capacities = tuple(
        Capacity(f"lb-{number}", chance.choice([1.0, 2.0, 4.0]) if mixed else 1.0) for number in range(lbs)
    )
    return Problem(demands, capacities, {address: chance.choice(capacities).name for address in addresses})


def main() -> Findings:
    """Measures each size and kind of load."""
    return of_results(
        [_line(10_000, 1_000, kind, HEURISTIC) for kind in KINDS] + [_line(100, 8, kind, EXACT) for kind in KINDS]
    )


def _line(count: int, lbs: int, kind: str, wanted: Wanted) -> Result:
    """The median time, the slowest, and the worst gap, of so many problems."""
    measured, others = watched(
        lambda: [_timed(problem(count, lbs, kind, seed), wanted.algorithm) for seed in range(RUNS)]
    )
    seconds = [took for took, _ in measured]
    gaps = [max(plan.after.values()) / plan.bound - 1 for _, plan in measured]
    proved = sum(plan.optimal for _, plan in measured)
    good = max(gaps) <= wanted.gap and proved >= wanted.proved and max(seconds) < wanted.seconds
    return Result(
        f"assignment of {count} to {lbs}, {kind} loads, {wanted.algorithm}",
        f"{median(seconds):.2f} s, worst {max(seconds):.2f} s",
        "lower bound",
        f"+{max(gaps):.2%}, {proved} of {RUNS} proved",
        f"< {wanted.seconds:.0f} s, {wanted.told}",
        RUNS,
        others,
        good,
        {"time": figure("s", seconds), "above the bound": figure("share", gaps)},
    )


def _timed(given: Problem, algorithm: str) -> tuple[float, Plan]:
    begun = time.perf_counter()
    plan = assign(given, algorithm, EXACT_LIMIT)
    return time.perf_counter() - begun, plan
