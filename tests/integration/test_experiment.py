"""The experiment of docs/assignment.md, shorter: while external IPs move by themselves under load, no request fails."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from evaluation.measuring.record import read
from tests.integration.test_topologies import run


def values(said: str, row: str) -> list[int]:
    """What is in that row of the table: static, automatic."""
    found = re.search(rf"^\| {row} +\| (\d+) +\| (\d+) +\|$", said, re.MULTILINE)
    assert found, said
    return [int(found[1]), int(found[2])]


def test_nothing_fails_while_external_ips_move_by_themselves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evaluation", "experiment", "--phase", "6", "--out", str(tmp_path)]
    done = run(command, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    failed, begun, moved = (values(done.stdout, row) for row in ("requests failed", "moves begun", "moves done"))
    assert failed[1] == 0 and begun[0] == moved[0] == 0
    assert moved[1] == begun[1] > 0
    record = read(tmp_path / "experiment.json")
    assert record.passed and record.tables["results"].columns == ("", "static", "automatic")
    assert (tmp_path / "rebalancing.png").read_bytes().startswith(b"\x89PNG")
