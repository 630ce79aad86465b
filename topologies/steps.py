"""What a step of a lab's start may take: a program that never ends must not let the lab hang."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bed.processes import is_alive, start_time
from topologies.rundir import LabError

LIMIT = 30.0
"""Seconds that one step may take. On two cores each takes some tenths of a second."""


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Inside, something has to be done within LIMIT: else LabError is raised, which names `what` and the program that
    still runs.

    Only the main thread has such a limit, because only it can be interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def too_long(_number: int, _frame: object) -> None:
        raise LabError(f"{what}: no end after {LIMIT:g} s{_waited_for()}")

    begun = time.monotonic()
    handler = signal.signal(signal.SIGALRM, too_long)
    left, interval = signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            _go_on(left - (time.monotonic() - begun), interval)


def _go_on(left: float, interval: float) -> None:
    """With the limit that was there before, which may be over by now."""
    if left > 0:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
    else:
        signal.raise_signal(signal.SIGALRM)


def _waited_for() -> str:
    """The program that this process, or the shell of one of its nodes, has started last."""
    parents = {int(entry.name): _parent(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    mine = [pid for pid, parent in parents.items() if parent == os.getpid()]
    shells = {pid for pid in mine if "mininet:" in _command(pid) and _command(pid).startswith("bash ")}
    started = [pid for pid, parent in parents.items() if parent in shells or pid in mine and pid not in shells]
    started = [pid for pid in started if is_alive(pid)]
    if not started:
        return ""
    last = max(started, key=lambda pid: (start_time(pid) or 0, pid))
    return f"; `{_command(last)}` (process {last}) still runs: does this command work when you type it?"


def _parent(directory: Path) -> int | None:
    try:
        return int((directory / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
