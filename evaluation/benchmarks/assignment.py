"""How long an assignment takes to compute, and how good it is: 10 000 external IPs on 1 000 LBs by the heuristic, 100 on 8 exactly.

The yardstick is the lower bound of the highest relative load. No switch and no controller.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from ipaddress import IPv4Address

from evaluation.measuring.findings import Result, median
from lbctl.assignment import Capacity, Demand, Plan, Problem, assign

RUNS = 5
EXACT_LIMIT = 60.0
"""Seconds that HiGHS gets."""
KINDS: dict[str, Callable[[random.Random], float]] = {
    "uniform": lambda chance: chance.uniform(1, 100),
    "exponential": lambda chance: chance.expovariate(1),
    "log-normal": lambda chance: chance.lognormvariate(0, 1.5),
}


def problem(count: int, lbs: int, kind: str, seed: int, mixed: bool = True) -> Problem:
    """Loads of that kind, up to 5 000 entries each, capacities 1, 2 and 4 (or all 1), and external IPs anywhere."""
    chance = random.Random(seed)
    addresses = [IPv4Address("198.18.0.0") + number for number in range(count)]
    demands = tuple(Demand(address, KINDS[kind](chance), chance.randrange(5000)) for address in addresses)
    capacities = tuple(Capacity(f"lb-{number}", chance.choice([1.0, 2.0, 4.0]) if mixed else 1.0) for number in range(lbs))
    return Problem(demands, capacities, {address: chance.choice(capacities).name for address in addresses})


def main() -> list[Result]:
    """Measures, and returns a line of the table for each size and kind of load."""
    lines = [_line(10_000, 1_000, kind, "heuristic", 2.0) for kind in KINDS]
    return lines + [_line(100, 8, kind, "exact", EXACT_LIMIT) for kind in KINDS]


def _line(count: int, lbs: int, kind: str, algorithm: str, target: float) -> Result:
    """The median time, the slowest, and the worst gap, of so many problems."""
    measured = [_timed(problem(count, lbs, kind, seed), algorithm) for seed in range(RUNS)]
    seconds = [took for took, _ in measured]
    gap = max(max(plan.after.values()) / plan.bound - 1 for _, plan in measured)
    proved = sum(plan.optimal for _, plan in measured)
    good = gap <= 0.01 if algorithm == "heuristic" else proved == RUNS
    wanted = f"< {target:.0f} s, " + ("within 1 %" if algorithm == "heuristic" else "optimal")
    return Result(f"assignment of {count} to {lbs}, {kind} loads, {algorithm}", f"{median(seconds):.2f} s, worst {max(seconds):.2f} s",
                  "lower bound", f"+{gap:.2%}, {proved} of {RUNS} proved", wanted, RUNS, 0.0, good and max(seconds) < target)


def _timed(given: Problem, algorithm: str) -> tuple[float, Plan]:
    begun = time.perf_counter()
    plan = assign(given, algorithm, EXACT_LIMIT)
    return time.perf_counter() - begun, plan


if __name__ == "__main__":
    from evaluation.measuring.findings import table

    print(table(main()))
