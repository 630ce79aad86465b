"""What a run is made on and with: processor, memory, kernel; versions; the commit of this checkout."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import NamedTuple

import lbctl
from evaluation.measuring.record import Machine
from topologies import programs

CHECKOUT = Path(__file__).resolve().parents[2]


class Commit(NamedTuple):
    """`modified`: whether files differ from the commit, or were added to it; None if that is not known."""

    name: str
    modified: bool | None


def machine() -> Machine:
    """This machine."""
    found = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), flags=re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo"), flags=re.MULTILINE)
    return Machine(
        cpu=found[1].strip() if found else platform.machine(),
        cores=os.cpu_count() or 1,
        memory=int(memory[1]) * 1024 if memory else None,
        kernel=f"Linux {platform.release()}",
    )


def versions() -> dict[str, str]:
    """Of what takes part: lbctl, Open vSwitch where it is installed, Python."""
    open_vswitch = _said("ovs-vswitchd", "--version").partition("\n")[0].rpartition(" ")[2]
    found = {"lbctl": lbctl.__version__, "Open vSwitch": open_vswitch, "Python": platform.python_version()}
    return {name: version for name, version in found.items() if version}


def commit() -> Commit:
    """What this checkout has checked out; without git, or outside of a repository, its name is "unknown"."""
    name = _said("git", "-C", str(CHECKOUT), "rev-parse", "--short=12", "HEAD").strip()
    if not name:
        return Commit("unknown", None)
    return Commit(name, bool(_said("git", "-C", str(CHECKOUT), "status", "--porcelain").strip()))


def _said(*command: str) -> str:
    """What a program prints; nothing if it is missing or fails."""
    try:
        done = programs.run(command, capture_output=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
