"""The experiment as a command: a static assignment beside automatic rebalancing, under the same load.

Its exit status is 0 only if with automatic rebalancing external IPs moved, every move was done, and no request failed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.experiment.bed import LETTERS, MODES, Bed
from evaluation.experiment.results import Run, seeds_table, table
from evaluation.experiment.shape import Shape
from evaluation.measuring.findings import RESULTS, Findings, markdown
from evaluation.measuring.session import Session
from topologies.lab import ended_by_signals
from topologies.queues import long_receive_queues
from topologies.rundir import LabError

NAME, FOLDER, PLOT = "experiment", Path("experiment-out"), "rebalancing.png"
SEEDS = "seeds"
Say = Callable[[str], None]


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 the moves harmed nothing, 1 something was harmed or it could not run, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    session = Session(NAME, arguments)

    def say(text: str) -> None:
        print(f"[{session.seconds:5.1f} s] {text}", file=sys.stderr, flush=True)

    shapes = [Shape(seed, options.phase, len(LETTERS)) for seed in options.seed]
    try:
        with ended_by_signals(), long_receive_queues():
            by_seed = {shape.seed: _run(shape, say) for shape in shapes}
    except LabError as error:
        print(f"experiment: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("experiment: interrupted; everything is removed", file=sys.stderr)
        return 130
    from evaluation.experiment.plot import plot  # matplotlib takes a second to load: not before it is needed

    first, runs = shapes[0], by_seed[shapes[0].seed]
    passed = all(found[-1].moves and found[-1].harmless for found in by_seed.values())
    tables = {RESULTS: table(runs, first.seconds), SEEDS: seeds_table(by_seed)}
    record = session.record(Findings(tables, passed, runs=1, pictures=(PLOT,)))
    record.write(options.out)
    plot(runs, first, options.out / PLOT)
    print(f"Seed {first.seed}, phases of {first.phase:g} s.\n\n{markdown([tables[RESULTS]])}\n")
    if len(by_seed) > 1:
        print(f"{markdown([tables[SEEDS]])}\n")
    print(f"Plot: {options.out / PLOT}")
    for seed, found in by_seed.items():
        _tell(seed, found)
    return 0 if passed else 1


def _run(shape: Shape, say: Say) -> list[Run]:
    say(f"building the lab, seed {shape.seed}")
    with Bed(shape, say) as bed:
        runs = [bed.run(mode) for mode in MODES]
        say("removing the lab")
    return runs


def _tell(seed: int, runs: Sequence[Run]) -> None:
    """Print what happened in these runs."""
    if runs[0].look_ups != runs[-1].look_ups:
        print(
            f"Seed {seed}: the name server has given other addresses in the second run, so the loads differ (is this "
            "machine too busy?)."
        )
    for run in runs:
        for move in run.moves:
            reason = f" ({move.reason})" if move.reason else ""
            print(
                f"seed {seed}, {run.mode}: {move.started:5.1f} s: {move.external_ip} from {move.source} to "
                f"{move.target}: {move.state}{reason}"
            )
        for due, external_ip, why in run.failures[:10]:
            print(f"seed {seed}, {run.mode}: request to {external_ip} at {due:.1f} s: {why}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation experiment", description="Static assignment against automatic rebalancing, in a lab."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=FOLDER,
        metavar="DIR",
        help=f"where the plot and the record of the figures go (default: {FOLDER})",
    )
    parser.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[1],
        metavar="N",
        help="of the load; with several, one experiment after the other (the plot is of the first)",
    )
    parser.add_argument(
        "--phase", type=float, default=20.0, metavar="SECONDS", help="how long each of the three phases lasts"
    )
    return parser
