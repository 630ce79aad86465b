"""How a benchmark is run: it prints its tables and leaves a file with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from evaluation.measuring.findings import Findings, Unusable, markdown
from evaluation.measuring.session import Session
from tests.bed.processes import CommandFailed
from tests.bed.traffic import TrafficError
from topologies.shell import in_one_line, remedy

FOLDER = Path("results")


def main(name: str, shows: str, measure: Callable[[], Findings], arguments: Sequence[str]) -> int:
    """The exit status: 0 if every target is met, 1 if not.

    1 as well if a program of the bed failed or the run is unusable, which is told in one line.
    """
    parser = argparse.ArgumentParser(prog=f"python -m evaluation {name}", description=shows)
    parser.add_argument(
        "--out", type=Path, default=FOLDER, metavar="DIR", help=f"where {name}.json goes (default: {FOLDER})"
    )
    options = parser.parse_args(arguments)
    session = Session(name, arguments)
    try:
        record = session.record(measure())
    except Unusable as error:
        print(f"{name}: {in_one_line(str(error).splitlines())}", file=sys.stderr)
        return 1
    except (CommandFailed, TrafficError) as error:
        said = in_one_line(str(error).splitlines())
        print(f"{name}: {said}. {remedy(said)}", file=sys.stderr)
        return 1
    file = record.write(options.out)
    print("\n\n".join((markdown(record.tables.values()), *record.notes)))
    print(
        f"{session.seconds:.0f} s; others took {record.others:.0%} of the machine; written to {file}", file=sys.stderr
    )
    return 0 if record.passed else 1
