"""Assignments are computed in a process of their own, of low priority.

In a thread of the controller, Python's lock would let packets wait for them.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from lbctl.assignment import Plan, Problem, Unassignable
from ryu_apps.shell.threads import Threads

PATIENCE = 60.0
"""Seconds after which the process is ended."""
PORTION = 500
"""External IPs that are pickled in one go: 10 000 take 30 ms."""
CHECKOUT = Path(__file__).resolve().parents[2]


def solve(problem: Problem, algorithm: str, threads: Threads) -> Plan | Unassignable:
    """A plan, or why there is none. Only the caller's green thread waits."""
    patience = _Patience(threads)
    with threads.process([sys.executable, "-m", "lbctl.assignment"], str(CHECKOUT)) as process:
        watch = threads.spawn(patience.watch, process)
        try:
            answer = _exchange(process, chain([algorithm], _portions(problem)), threads)
        finally:
            threads.kill(watch)
    if patience.lost:
        return Unassignable(f"no assignment was found within {PATIENCE:g} s: try the algorithm heuristic")
    if process.returncode:
        ended = f"has ended (status {process.returncode})"
        return Unassignable(f"the process that computes assignments {ended}; the controller's log says why")
    plan: Plan | Unassignable = pickle.loads(answer)
    return plan


class _Patience:
    """Ends a process that takes too long."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self.lost = False

    def watch(self, process: subprocess.Popen[bytes]) -> None:
        self._threads.sleep(PATIENCE)
        self.lost = True
        process.kill()


def _exchange(process: subprocess.Popen[bytes], portions: Iterable[object], threads: Threads) -> bytes:
    assert process.stdin is not None and process.stdout is not None, "Threads.process gives it pipes"
    with contextlib.suppress(BrokenPipeError):
        for portion in portions:
            process.stdin.write(pickle.dumps(portion, pickle.HIGHEST_PROTOCOL))
            threads.sleep(0)
        process.stdin.close()
    return process.stdout.read()


def _portions(problem: Problem) -> Iterator[object]:
    """As python -m lbctl.assignment reads it."""
    yield replace(problem, demands=(), current={})
    for whole in (problem.demands, problem.current.items()):
        rest: Iterator[object] = iter(whole)
        while portion := tuple(islice(rest, PORTION)):
            yield portion
