"""How state machines are explored: with other interleavings in each run; one that failed is kept as an example."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

KEPT = Path(__file__).resolve().parents[2] / ".hypothesis" / "examples"


def exploring(name: str, *, stateful_step_count: int, max_examples: int | None = None) -> settings:
    """Settings of the state machine of that name; without `max_examples`, as many as every test looks at.

    hypothesis takes all state machines for one test: with one folder for all, each would throw away what the others
    have kept.
    """
    kept = DirectoryBasedExampleDatabase(KEPT / name)
    return settings(
        database=kept, suppress_health_check=list(HealthCheck), stateful_step_count=stateful_step_count,
        max_examples=max_examples or settings().max_examples,
    )


def explore(
    machine: type[RuleBasedStateMachine], *, stateful_step_count: int, max_examples: int | None = None
) -> None:
    """Play many interleavings of `machine`, for the test that runs now; the numbers are those of exploring()."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    name = re.sub(r"[^\w.-]+", "-", test)
    how = exploring(name, stateful_step_count=stateful_step_count, max_examples=max_examples)
    run_state_machine_as_test(machine, settings=how)
