"""The command `python -m evaluation`: lists, runs, and shows in docs/ what measures lbctl.

python -m evaluation                      the list
python -m evaluation NAME [OPTIONS]       one of it; NAME --help tells its options
python -m evaluation NAME NAME... [--out DIR]   several, one after the other
python -m evaluation all [--out DIR]      all benchmarks; one that fails does not end the others
python -m evaluation tables [FILE...]     takes results into docs/figures/, and makes the tables in docs/ from there
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence

from evaluation import tables
from evaluation.benchmarks import command
from evaluation.catalogue import BENCHMARKS, BY_NAME, EXPERIMENTS, Benchmark, Entry, Experiment
from evaluation.measuring.machine import CHECKOUT
from topologies import programs

ALL, TABLES = "all", "tables"
HELP = frozenset({"-h", "--help"})


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 all went well and every target is met, 1 not so, 2 wrong usage."""
    if not arguments or arguments[0] in HELP:
        print(listing())
        return 0
    if arguments[0] == TABLES:
        return tables.main(arguments[1:])
    leading = _leading_names(arguments)
    names, options = list(arguments[:leading]), list(arguments[leading:])
    if unknown := [name for name in names if name not in BY_NAME and name != ALL]:
        print(
            f"no experiment or benchmark is called {', '.join(unknown)}; there are {', '.join(BY_NAME)}, {ALL}, "
            f"{TABLES}",
            file=sys.stderr,
        )
        return 2
    if not names:
        print(
            f"the name comes first, then its options: python -m evaluation NAME {shlex.join(options)}", file=sys.stderr
        )
        return 2
    if len(names) == 1 and names[0] != ALL:
        return run(BY_NAME[names[0]], options)
    if HELP & set(options):
        print(listing())
        return 0
    chosen = [entry for name in names for entry in (BENCHMARKS if name == ALL else [BY_NAME[name]])]
    return run_each(chosen, options)


def listing() -> str:
    """Every experiment and benchmark: its name, how long it takes, what it shows; and how they are run."""
    width = max(map(len, BY_NAME))
    parts = []
    for title, entries in (("Experiments", EXPERIMENTS), ("Benchmarks", BENCHMARKS)):
        lines = [f"  {entry.name:{width}}  {entry.takes:>6}  {entry.shows}" for entry in entries]
        parts.append("\n".join([f"{title}:", *lines]))
    free = ", ".join(entry.name for entry in BY_NAME.values() if not entry.root)
    parts.append(f"""\
Run one by `python -m evaluation NAME`, its options by `python -m evaluation NAME --help`; all benchmarks by
`python -m evaluation all`. They need root, but for {free}.
Each leaves a file NAME.json in the folder that `--out DIR` names. `python -m evaluation tables FILE...` takes such
files into docs/figures/ and makes the tables in docs/ from there.""")
    return "\n\n".join(parts)


def run(entry: Benchmark | Experiment, options: Sequence[str]) -> int:
    """Run one in this process."""
    if entry.root and os.geteuid() and not HELP & set(options):
        print(f"{entry.command} needs root: it builds network namespaces and starts Open vSwitch", file=sys.stderr)
        return 1
    if isinstance(entry, Benchmark):
        return command.main(entry.name, entry.shows, entry.load(), options)
    return entry.load()(options)


def run_each(entries: Sequence[Entry], options: Sequence[str]) -> int:
    """Run each in a process of its own, whatever becomes of those before, and tell at the end how each one ended."""
    ends = []
    for entry in entries:
        began = time.monotonic()
        print(f"==> {entry.name} ({entry.takes}) ...", file=sys.stderr, flush=True)
        done = programs.run(
            [sys.executable, "-m", "evaluation", entry.name, *options],
            check=False,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        ends.append((entry.name, done.returncode, time.monotonic() - began))
    width = max(len(name) for name, _, _ in ends)
    print("\n" + "\n".join(f"{name:{width}}  {_told(status):36}  {seconds:5.0f} s" for name, status, seconds in ends))
    return 0 if all(status == 0 for _, status, _ in ends) else 1


def _leading_names(arguments: Sequence[str]) -> int:
    """How many arguments come before the first option."""
    return next((place for place, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))


def _told(status: int) -> str:
    return {0: "well", 1: "failed, or a target was missed", 2: "wrong usage"}.get(status, f"ended with status {status}")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
