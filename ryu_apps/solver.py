"""Assignments are computed in a process of their own, of low priority: in a thread, Python's lock would let packets wait for it."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from eventlet import Timeout
from eventlet.green import subprocess
from ryu.lib import hub

from lbctl.assignment import Plan, Problem, Unassignable

PATIENCE = 60.0
"""Seconds after which the process is ended."""
PORTION = 500
"""External IPs that are pickled in one go: 10 000 take 30 ms."""
CHECKOUT = Path(__file__).resolve().parent.parent


def solve(problem: Problem, algorithm: str) -> Plan | Unassignable:
    """A plan, or why there is none. Only the caller's green thread waits."""
    command = [sys.executable, "-m", "lbctl.assignment"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            with Timeout(PATIENCE):
                answer = _exchange(process, chain([algorithm], _portions(problem)))
        except Timeout:
            process.kill()
            return Unassignable(f"no assignment was found within {PATIENCE:g} s: try the algorithm heuristic")
    if process.returncode:
        return Unassignable(f"the process that computes assignments has ended (status {process.returncode}); the controller's log says why")
    return pickle.loads(answer)


def _exchange(process: subprocess.Popen, portions: Iterable[Any]) -> bytes:
    with contextlib.suppress(BrokenPipeError):
        for portion in portions:
            process.stdin.write(pickle.dumps(portion, pickle.HIGHEST_PROTOCOL))
            hub.sleep(0)
        process.stdin.close()
    return process.stdout.read()


def _portions(problem: Problem) -> Iterator[Any]:
    """As python -m lbctl.assignment reads it."""
    yield replace(problem, demands=(), current={})
    for whole in (problem.demands, problem.current.items()):
        rest = iter(whole)
        while portion := tuple(islice(rest, PORTION)):
            yield portion
