"""What the parameters of automatic rebalancing are worth: the same six hours of a site with different ones.

The last line has plans that go for the best, as plans do that were ordered, in place of plans that stay a quarter of
the threshold above it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from evaluation.measuring.findings import RESULTS, Findings, markdown
from evaluation.measuring.record import Row, Table, figure
from evaluation.measuring.session import Session
from evaluation.simulator.day import Record, simulate
from evaluation.simulator.load import HOUR, Day
from lbctl.load import balancing
from lbctl.site.model import Rebalance

NAME, FOLDER = "thresholds", Path("simulator-out")
AT_ONCE, PERIOD, SEED = 50, 30.0, 1
TIGHT = 0.005
"""The tolerance of a plan that was ordered."""
COLUMNS = ("", "mean", "95 % of the time", "moves an hour")


@dataclass(frozen=True)
class Parameters:
    """`close`: of the threshold, how far above the best a plan may stay."""

    threshold: float
    cooldown: float
    close: float = balancing.CLOSE

    @property
    def name(self) -> str:
        tight = "" if self.close == balancing.CLOSE else f", plans within {TIGHT:.1%} of the best"
        return f"threshold {self.threshold:g}, cooldown {self.cooldown:g}{tight}"


VARIANTS = (
    Parameters(0.5, 300.0),
    Parameters(0.3, 300.0),
    Parameters(0.2, 300.0),
    Parameters(0.2, 60.0),
    Parameters(0.3, 300.0, TIGHT / 0.3),
)


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0, or 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    session = Session(NAME, arguments)
    rows: list[Row] = []
    for parameters in VARIANTS:
        print(f"[{session.seconds:5.0f} s] {parameters.name}", file=sys.stderr, flush=True)
        found = _simulated(parameters, Day(options.lbs, options.external_ips, SEED), options.hours * HOUR)
        if not rows:
            rows += [_row("lower bound of any assignment", found.bound, 0.0), _row("static", found.static, 0.0)]
        rows.append(_row(parameters.name, found.automatic, found.tally.moves / options.hours))
    table = Table(columns=COLUMNS, rows=tuple(rows))
    what = f"{options.lbs} LBs, {options.external_ips} external IPs, {options.hours:g} h, seed {SEED}."
    session.record(Findings({RESULTS: table}, passed=True, runs=1, notes=(what,))).write(options.out)
    print(f"{what}\n\n{markdown([table])}")
    return 0


def _simulated(parameters: Parameters, day: Day, seconds: float) -> Record:
    rebalance = Rebalance("automatic", "heuristic", parameters.threshold, parameters.cooldown, AT_ONCE)
    with mock.patch.object(balancing, "CLOSE", parameters.close):
        return simulate(day, rebalance, PERIOD, _say_nothing, seconds)


def _say_nothing(_: str) -> None:
    """Of single hours: there are too many of them."""


def _row(name: str, values: Sequence[float], moves: float) -> Row:
    mean, most = float(np.mean(values)), float(np.quantile(values, 0.95))
    return Row(
        cells=(name, f"{mean:.3f}", f"{most:.3f}", f"{moves:.0f}"),
        figures={"mean": figure("", [mean]), "95 %": figure("", [most]), "moves an hour": figure("1/h", [moves])},
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation thresholds",
        description="The simulator with different parameters of rebalancing.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--lbs", type=int, default=200, metavar="N")
    parser.add_argument("--external-ips", type=int, default=2000, metavar="N")
    parser.add_argument("--hours", type=float, default=6.0, metavar="N")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="where the record of the figures goes")
    return parser
