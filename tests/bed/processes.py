"""Running commands, and ending daemons that are known by their pid files only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bed.patience import limit
from topologies import programs


class CommandFailed(RuntimeError):
    """A command of the test bed failed; the message holds the command, its status and what it said."""


def run(
    command: Sequence[str],
    *,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = limit(30.0),
) -> str:
    """Run `command` (no shell), return its standard output. `env` is added to the environment; `timeout` in seconds.

    Raises CommandFailed when it cannot be started, fails, or takes too long.
    """
    words = [str(word) for word in command]
    shown = " ".join(words)
    try:
        result = programs.run(
            words,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError:
        raise CommandFailed(f"{words[0]}: no such command; ./test.sh installs it (needed for: {shown})") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"no end after {timeout:g} s: {shown}") from None
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip() or "it said nothing"
        raise CommandFailed(f"status {result.returncode}: {shown}\n{said}")
    return result.stdout


def read_pid(pid_file: Path) -> int | None:
    """The process id in `pid_file`, or None if there is no such file or nothing in it."""
    try:
        return int(pid_file.read_text().strip())
    except (OSError, ValueError):
        return None


def is_alive(pid: int) -> bool:
    """Whether process `pid` runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks after boot: with the pid it names a process for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def mentions(pid: int, text: str) -> bool:
    """Whether `text` is in the command line of process `pid`: guards against a pid that was used again."""
    try:
        return text in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return False


def wait_gone(pid: int, timeout: float) -> bool:
    """Wait up to `timeout` seconds for process `pid` to end; whether it did."""
    deadline = time.monotonic() + timeout
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def end(pid: int, *, grace: float = 2.0) -> None:
    """End process `pid`: SIGTERM, and SIGKILL if it still runs after `grace` seconds (0: SIGKILL at once)."""
    with contextlib.suppress(ProcessLookupError):
        if grace > 0:
            os.kill(pid, signal.SIGTERM)
            if wait_gone(pid, grace):
                return
        os.kill(pid, signal.SIGKILL)
    wait_gone(pid, limit(5.0))
