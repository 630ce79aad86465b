"""Assignments are computed by a program of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from lbctl.assignment import Plan, PlannedMove, Problem, Unassignable
from lbctl.values.portions import portions
from ryu_apps.shell import programs
from ryu_apps.shell.threads import Threads

PATIENCE = 60.0
"""Seconds after which the process is ended."""
PORTION = 500
"""External IPs that are pickled in one go: 10 000 take 30 ms."""


def solve(problem: Problem, algorithm: str, threads: Threads) -> Plan | Unassignable:
    """A plan, or why there is none. Only the caller's green thread waits."""
    try:
        whole = chain([algorithm], _portions(problem))
        answer, *parts = programs.run(["lbctl.assignment"], whole, PATIENCE, threads)
    except programs.Unfinished as reason:
        return Unassignable(f"no assignment was found: {reason}; try the algorithm heuristic")
    if isinstance(answer, Unassignable):
        return answer
    plan: Plan = answer
    rest = list(chain.from_iterable(parts))
    moves = tuple(each for each in rest if isinstance(each, PlannedMove))
    return replace(plan, target=dict(rest[:len(rest) - len(moves)]), moves=moves)


def _portions(problem: Problem) -> Iterator[object]:
    """As python -m lbctl.assignment reads it."""
    yield replace(problem, demands=(), current={})
    for whole in (problem.demands, problem.current.items()):
        yield from portions(whole, PORTION)
