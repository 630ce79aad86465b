"""How state machines are explored: with other interleavings in each run; one that failed is kept as an example."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

KEPT = Path(__file__).resolve().parents[2] / ".hypothesis" / "examples"


def exploring(name: str, **options: int) -> settings:
    """Settings of the state machine of that name; `options` are those of hypothesis.settings.

    hypothesis takes all state machines for one test: with one folder for all, each would throw away what the others
    have kept.
    """
    kept = DirectoryBasedExampleDatabase(KEPT / name)
    return settings(database=kept, suppress_health_check=list(HealthCheck), **options)


def explore(machine: type[RuleBasedStateMachine], **options: int) -> None:
    """Play many interleavings of `machine`, for the test that runs now; `options` as of exploring()."""
    test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    run_state_machine_as_test(machine, settings=exploring(re.sub(r"[^\w.-]+", "-", test), **options))
