"""lbctl keeper where nothing of the controller is installed, and as systemd starts it."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from lbctl.cli.main import app
from topologies import programs

CHECKOUT = Path(__file__).resolve().parents[2]
UNIT = CHECKOUT / "scripts" / "lbctl-keeper.service"
WITHOUT_CONTROLLER = """
import sys
for name in ("ryu", "eventlet", "os_ken", "numpy", "prometheus_client", "structlog"):
    sys.modules[name] = None  # as if it were not installed
from lbctl.cli.main import app
sys.argv = ["lbctl", *sys.argv[1:]]
app()
"""


def keeper(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_CONTROLLER, "keeper", *map(str, options)]
    return programs.run(command, cwd=CHECKOUT, capture_output=True, timeout=30, check=False)


def test_it_needs_nothing_of_the_controller(tmp_path) -> None:
    """It comes as far as to what is wrong here."""
    done = keeper("--server", "10.0.0.11", "--directory", tmp_path, "--listen", "127.0.0.1:1", "--token-file",
                  tmp_path / "none")
    assert done.returncode == 1 and "cannot be read" in done.stderr, done.stderr


def test_the_unit_uses_options_that_there_are() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(UNIT)
    command = unit["Service"]["ExecStart"]
    there = {name for parameter in get_command(app).commands["keeper"].params for name in parameter.opts}
    used = set(re.findall(r"--[\w-]+", command))
    assert used == {"--token-file", "--directory"} <= there
    assert set(re.findall(r"--[\w-]+(?= \d)", UNIT.read_text())) <= there
    assert " keeper " in command and unit["Service"]["StateDirectory"] == "lbctl-keeper"
