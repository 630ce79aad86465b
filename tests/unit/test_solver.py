"""The process that computes assignments: gets the same problem, and gives the same plan or refusal."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace

import pytest

from evaluation.benchmarks.assignment import problem
from lbctl.assignment import Unassignable, assign
from lbctl.assignment.__main__ import read
from ryu_apps.shell import solver
from tests.unit.real_threads import RealThreads

THREADS = RealThreads()


@pytest.mark.parametrize("count", [0, 1, solver.PORTION, 2 * solver.PORTION + 7])
def test_a_problem_in_portions(count: int) -> None:
    given = problem(count, 3, "uniform", 1)
    file = io.BytesIO(b"".join(map(pickle.dumps, solver._portions(given))))
    assert read(file) == given


@pytest.mark.parametrize("count", [30, 500])
def test_a_plan_from_the_process(count: int) -> None:
    given = problem(count, 4, "uniform", 1)
    plan = solver.solve(given, "heuristic", THREADS)
    assert plan == assign(given, "heuristic", 1.0) and plan.moves


def test_a_refusal_from_the_process() -> None:
    given = problem(3, 2, "uniform", 1)
    drained = replace(given, capacities=tuple(replace(capacity, drained=True) for capacity in given.capacities))
    refusal = solver.solve(drained, "heuristic", THREADS)
    with pytest.raises(Unassignable) as expected:
        assign(drained, "heuristic", 1.0)
    assert isinstance(refusal, Unassignable) and str(refusal) == str(expected.value)


def test_a_process_that_fails_or_takes_too_long_is_a_refusal(monkeypatch) -> None:
    given = problem(3, 2, "uniform", 1)
    refusal = solver.solve(replace(given, tolerance="wrong"), "heuristic", THREADS)
    assert isinstance(refusal, Unassignable) and "has ended (status 1)" in str(refusal)
    monkeypatch.setattr(solver, "PATIENCE", 0.01)
    refusal = solver.solve(given, "heuristic", THREADS)
    assert isinstance(refusal, Unassignable) and "longer than" in str(refusal)
