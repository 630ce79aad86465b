"""python -m evaluation.simulator [OPTIONS]: a day of a large site, with a static assignment and with automatic rebalancing. Needs no root."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

from evaluation.simulator.day import STEP, simulate
from evaluation.simulator.load import HOUR, Day
from evaluation.simulator.plot import plot
from evaluation.simulator.report import table
from lbctl.site.model import Rebalance

PLOT = "day.png"


def main() -> int:
    """The exit status: 0, or 2 for wrong usage."""
    parser = _parser()
    options = parser.parse_args()
    if options.period % STEP or options.period <= 0:
        parser.error(f"the period must be a multiple of {STEP:g} s")
    gc.disable()  # there are no cycles, but some hundred thousand objects that it would visit again and again
    rebalance = Rebalance("automatic", "heuristic", options.threshold, options.cooldown, options.at_once)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    day = Day(options.lbs, options.external_ips, options.seed)
    say(f"{options.lbs} LBs, {options.external_ips} external IPs, {len(day.outages)} LBs will fail")
    record = simulate(day, rebalance, options.period, say, options.hours * HOUR)
    options.out.mkdir(parents=True, exist_ok=True)
    plot(record, options.out / PLOT)
    print(f"{options.lbs} LBs, {options.external_ips} external IPs, {options.hours:g} h, seed {options.seed}; threshold "
          f"{rebalance.threshold:g}, cooldown {rebalance.cooldown:g} s, {rebalance.at_once} moves at once, measured every "
          f"{options.period:g} s; {time.monotonic() - began:.0f} s of wall time.\n\n{table(record)}\n\nPlot: {options.out / PLOT}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulator", description="A day of a large site, static and automatically rebalanced.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--lbs", type=int, default=1000, metavar="N")
    parser.add_argument("--external-ips", type=int, default=10_000, metavar="N")
    parser.add_argument("--hours", type=float, default=24.0, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the load and of what fails")
    parser.add_argument("--threshold", type=float, default=0.3, help="as in the site file's rebalance")
    parser.add_argument("--cooldown", type=float, default=300.0, metavar="SECONDS", help="likewise")
    parser.add_argument("--at-once", type=int, default=50, metavar="N", help="likewise")
    parser.add_argument("--period", type=float, default=30.0, metavar="SECONDS", help="load_period of the site file's settings")
    parser.add_argument("--out", type=Path, default=Path("simulator-out"), metavar="DIR", help="where the plot goes")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
