"""The experiment of docs/assignment.md, shorter: while external IPs move by themselves under load, no request fails."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.integration.test_topologies import run


def test_nothing_fails_while_external_ips_move_by_themselves(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "evaluation.experiment", "--phase", "6", "--out", str(tmp_path)], timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    failed, moves = (re.search(rf"^\| {row} \| (.*) \| (.*) \|$", done.stdout, re.M) for row in ("requests failed", "moves done / begun"))
    assert failed[2] == "0" and moves[1] == "0 / 0"
    moved, begun = map(int, moves[2].split("/"))
    assert moved == begun > 0
    assert (tmp_path / "rebalancing.png").read_bytes().startswith(b"\x89PNG")
