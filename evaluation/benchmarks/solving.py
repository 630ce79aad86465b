"""Does the controller let packets wait while an assignment is computed? Latency of set-ups with and without, in turns.

Set-ups and controller are as in evaluation/benchmarks/capacity.py, with fewer LBs. evaluation/benchmarks/solver_app.py
has the controller solve problems again and again, in the same way as for POST /v1/rebalance. The controller's process
and the solver's share a core.
"""

from __future__ import annotations

import os
import re
import signal

from evaluation.benchmarks.capacity import SECONDS, TARGET, Runs, controlled, repeated, site
from evaluation.measuring.findings import Findings, Result, Unusable, median, milliseconds, of_results, per_second
from evaluation.measuring.record import figure
from tests.bed.controller import APPS, Controller

LBS, ROUNDS = 60, 3
ORDERS = {signal.SIGUSR1: ("exact", 100, 8), signal.SIGUSR2: ("heuristic", 10_000, 1_000)}
"""By what signal it is ordered: algorithm, external IPs, LBs."""
WORSE = 0.005
"""Seconds that the median may grow by."""


def main() -> Findings:
    """Measures with each problem, and without one."""
    without, solving = Runs(), {number: Runs() for number in ORDERS}
    apps = (*APPS, "evaluation/benchmarks/solver_app.py")
    with controlled(site(LBS, LBS), apps) as (controller, loaded, _):
        for _ in range(ROUNDS):
            without.add(repeated(loaded, 1, rate=TARGET / 2, seconds=SECONDS))
            for number, runs in solving.items():
                os.kill(loaded.pid, number)
                runs.add(repeated(loaded, 1, rate=TARGET / 2, seconds=SECONDS))
        return of_results([_line(number, runs, without, controller) for number, runs in solving.items()])


def _line(number: signal.Signals, solving: Runs, without: Runs, controller: Controller) -> Result:
    algorithm, count, lbs = ORDERS[number]
    logged = re.findall(rf"solved {algorithm} {count} {lbs} in ([\d.]+) s", controller.log_file.read_text())
    if not logged:
        raise Unusable(f"nothing was solved: {controller.log_tail()}")
    took = [float(seconds) for seconds in logged]
    more = solving.median("p50") - without.median("p50")
    what = (
        f"latency at {per_second(TARGET / 2)} while {algorithm} solves {count} on {lbs}, "
        f"{len(took)} times {median(took):.1f} s"
    )
    figures = {
        **solving.figures(),
        **{f"{name} without": each for name, each in without.figures().items()},
        "solving": figure("s", took),
    }
    return Result(
        what,
        f"{solving.latency()}, {solving.lost} lost",
        f"without: {without.latency()}, {without.lost} lost",
        f"{solving.median('p50') / without.median('p50'):.1f}",
        f"median < {milliseconds(WORSE)} more",
        ROUNDS,
        max(solving.others, without.others),
        more < WORSE and not solving.lost,
        figures,
    )
