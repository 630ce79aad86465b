"""python -m evaluation.experiment [--out DIR] [--seed N] [--phase SECONDS]: static assignment against automatic rebalancing under the same load.

Exit status 0 only if with automatic rebalancing external IPs moved, every move was done, and no request failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from evaluation.experiment.bed import LETTERS, MODES, Bed
from evaluation.experiment.results import Run, table
from evaluation.experiment.shape import Shape
from topologies.lab import ended_by_signals
from topologies.queues import long_receive_queues
from topologies.rundir import LabError

PLOT = "rebalancing.png"


def main() -> int:
    """The exit status: 0 the moves harmed nothing, 1 something was harmed or it could not run, 2 wrong usage."""
    options = _parser().parse_args()
    shape, began = Shape(options.seed, options.phase, len(LETTERS)), time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        with ended_by_signals(), long_receive_queues():
            runs = _run(shape, say)
    except LabError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiment: interrupted; everything is removed", file=sys.stderr)
        return 130
    from evaluation.experiment.plot import plot  # matplotlib takes a second to load: not before it is needed

    options.out.mkdir(parents=True, exist_ok=True)
    plot(runs, shape, options.out / PLOT)
    print(f"Seed {shape.seed}, phases of {shape.phase:g} s.\n\n{table(runs, shape.seconds)}\n\nPlot: {options.out / PLOT}")
    if runs[0].look_ups != runs[-1].look_ups:
        print("The name server has given other addresses in the second run: the loads differ (a machine that is too busy?).")
    for run in runs:
        for move in run.moves:
            print(f"{run.mode}: {move.started:5.1f} s: {move.external_ip} from {move.source} to {move.target}: {move.state}"
                  + (f" ({move.reason})" if move.reason else ""))
        for due, external_ip, why in run.failures[:10]:
            print(f"{run.mode}: request to {external_ip} at {due:.1f} s: {why}")
    return 0 if runs[-1].moves and runs[-1].harmless else 1


def _run(shape: Shape, say) -> list[Run]:
    say("building the lab")
    with Bed(shape, say) as bed:
        runs = [bed.run(mode) for mode in MODES]
        say("removing the lab")
    return runs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="experiment", description="Static assignment against automatic rebalancing, in a lab.")
    parser.add_argument("--out", type=Path, default=Path("experiment-out"), metavar="DIR", help="where the plot goes")
    parser.add_argument("--seed", type=int, default=1, help="of the load")
    parser.add_argument("--phase", type=float, default=20.0, metavar="SECONDS", help="how long each of the three phases lasts")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
