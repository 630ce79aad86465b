"""Does the controller let packets wait while an assignment is computed? Latency of set-ups with and without, in turns.

Set-ups and controller as in evaluation/benchmarks/capacity.py, with fewer LBs; evaluation/benchmarks/solver_app.py has the controller solve, again and again,
in the same way as for POST /v1/rebalance. The controller's process and the solver's share a core.
"""

from __future__ import annotations

import os
import re
import signal

from evaluation.benchmarks.capacity import SECONDS, TARGET, Runs, controlled, repeated, site
from evaluation.measuring.findings import Result, milliseconds, per_second
from tests.bed.controller import APPS, Controller

LBS, ROUNDS = 60, 3
ORDERS = {signal.SIGUSR1: ("exact", 100, 8), signal.SIGUSR2: ("heuristic", 10_000, 1_000)}
"""By what orders it: algorithm, external IPs, LBs."""
WORSE = 0.005
"""Seconds that the median may grow by."""


def main() -> list[Result]:
    """Measures, and returns a line of the table for each problem."""
    found = {number: Runs() for number in (None, *ORDERS)}
    with controlled(site(LBS, LBS), (*APPS, "evaluation/benchmarks/solver_app.py")) as (controller, loaded, _):
        for _ in range(ROUNDS):
            for number, runs in found.items():
                if number:
                    os.kill(loaded.pid, number)
                run = repeated(loaded, 1, rate=TARGET / 2, seconds=SECONDS)
                runs.found += run.found
                runs.others = max(runs.others, run.others)
        return [_line(number, found, controller) for number in ORDERS]


def _line(number: signal.Signals, found: dict[signal.Signals | None, Runs], controller: Controller) -> Result:
    algorithm, count, lbs = ORDERS[number]
    took = sorted(map(float, re.findall(rf"solved {algorithm} {count} {lbs} in ([\d.]+) s", controller.log_file.read_text())))
    without, solving = found[None], found[number]
    more = solving.median("p50") - without.median("p50")
    if not took:
        raise RuntimeError(f"nothing was solved: {controller.log_tail()}")
    what = f"latency at {per_second(TARGET / 2)} while {algorithm} solves {count} on {lbs}, {len(took)} times {took[len(took) // 2]:.1f} s"
    return Result(what, solving.latency(), f"without: {without.latency()}", f"{solving.median('p50') / without.median('p50'):.1f}",
                  f"median < {milliseconds(WORSE)} more", ROUNDS, max(solving.others, without.others),
                  more < WORSE and not solving.lost)


if __name__ == "__main__":
    from evaluation.measuring.findings import table

    print(table(main()))
