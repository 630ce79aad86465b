"""What setup.cfg declares holds: which room may import which ([importlinter]), and types ([mypy])."""

from __future__ import annotations

import sys
from pathlib import Path

from topologies import programs
from topologies.programs import CHECKOUT

BESIDE_PYTHON = Path(sys.executable).parent


def holds(tool: str, *options: object) -> None:
    """Runs a checking tool of this environment in the checkout; its report is the failure."""
    done = programs.run([BESIDE_PYTHON / tool, *options], cwd=CHECKOUT, capture_output=True, check=False, timeout=280)
    assert done.returncode == 0, f"{tool} finds:\n{done.stdout}{done.stderr}"


def test_each_room_imports_only_what_it_may() -> None:
    holds("lint-imports", "--no-cache")


def test_types() -> None:
    holds("mypy", "--cache-dir", CHECKOUT / ".mypy_cache")
