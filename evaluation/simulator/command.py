"""The simulator as a command: a day of a large site, with a static assignment and with automatic rebalancing.

It needs no root.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.measuring.findings import Findings, markdown
from evaluation.measuring.session import Session
from evaluation.simulator.day import STEP, simulate
from evaluation.simulator.load import HOUR, Day
from evaluation.simulator.report import loads, rebalancing
from lbctl.site.model import Rebalance

NAME, FOLDER, PLOT = "simulator", Path("simulator-out"), "day.png"


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 for wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.period % STEP or options.period <= 0:
        parser.error(f"the period must be a multiple of {STEP:g} s")
    session = Session(NAME, arguments)
    gc.disable()  # there are no cycles, but some hundred thousand objects that it would visit again and again
    rebalance = Rebalance("automatic", "heuristic", options.threshold, options.cooldown, options.at_once)

    def say(text: str) -> None:
        print(f"[{session.seconds:5.0f} s] {text}", file=sys.stderr, flush=True)

    day = Day(options.lbs, options.external_ips, options.seed)
    say(f"{options.lbs} LBs, {options.external_ips} external IPs, {len(day.outages)} LBs will fail")
    found = simulate(day, rebalance, options.period, say, options.hours * HOUR)
    what = (
        f"{options.lbs} LBs, {options.external_ips} external IPs, {options.hours:g} h, seed {options.seed}; "
        f"threshold {rebalance.threshold:g}, cooldown {rebalance.cooldown:g} s, {rebalance.at_once} moves at once, "
        f"loads read every {options.period:g} s."
    )
    tables = {"loads": loads(found), "rebalancing": rebalancing(found)}
    session.record(Findings(tables, passed=True, runs=1, notes=(what,), pictures=(PLOT,))).write(options.out)
    from evaluation.simulator.plot import plot  # matplotlib takes a second to load: not before it is needed

    plot(found, options.out / PLOT)
    print(f"{what} It took {session.seconds:.0f} s.\n\n{markdown(tables.values())}\n\nPlot: {options.out / PLOT}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation simulator",
        description="A day of a large site, static and automatically rebalanced.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--lbs", type=int, default=1000, metavar="N")
    parser.add_argument("--external-ips", type=int, default=10_000, metavar="N")
    parser.add_argument("--hours", type=float, default=24.0, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the load and of what fails")
    parser.add_argument("--threshold", type=float, default=0.3, help="as in the site file's rebalance")
    parser.add_argument("--cooldown", type=float, default=300.0, metavar="SECONDS", help="likewise")
    parser.add_argument("--at-once", type=int, default=50, metavar="N", help="likewise")
    parser.add_argument(
        "--period", type=float, default=30.0, metavar="SECONDS", help="load_period of the site file's settings"
    )
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="DIR", help="where the plot and the record of the figures go"
    )
    return parser
