"""The run directory of a lab: its files, and the mark by which its processes are found after a crash.

Every process of a lab has the directory's path in its environment (LBCTL_LAB) or in its command line. Nothing without
that mark is ever ended.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import time
from pathlib import Path

from tests.bed.processes import is_alive, start_time

BASE = Path("/run/lbctl-lab")
MARK = "LBCTL_LAB"
KEEPER_TOKEN, REST_TOKEN = "keeper-token", "rest-token"
GRACE = 1.5
"""Seconds between SIGTERM and SIGKILL."""

_current: RunDirectory | None = None


class LabError(RuntimeError):
    """The lab cannot start; the message says what to do."""


class RunDirectory:
    """The run directory of this process's lab. Making one first ends what crashed labs left behind."""

    def __init__(self) -> None:
        remove_leftovers()
        self.path = BASE / str(os.getpid())
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        (self.path / "owner").write_text(" ".join(_identity(os.getpid())) + "\n")
        os.environ[MARK] = str(self.path)

    def subdirectory(self, name: str) -> Path:
        """A directory in it, made if need be."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def remove(self) -> None:
        """End what still runs with the mark, and remove the directory."""
        os.environ.pop(MARK, None)
        end_marked(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            BASE.rmdir()


def current() -> RunDirectory:
    """The run directory of this process, made at first use: Mininet's classes have no other place to meet."""
    global _current
    if _current is None:
        _current = RunDirectory()
        atexit.register(remove)  # Mininet's mn ends without telling us
    return _current


def secret(name: str) -> Path:
    """A file of the control function with a token that lasts as long as the lab: KEEPER_TOKEN or REST_TOKEN. Made at
    first use."""
    file = current().subdirectory("controller") / name
    if not file.exists():
        file.touch(0o600)
        file.write_text(secrets.token_hex(32))
    return file


def remove() -> None:
    """Remove the run directory of this process, if there is one."""
    global _current
    if _current is not None:
        directory, _current = _current, None
        directory.remove()


def remove_leftovers() -> None:
    """End the processes and remove the files of labs whose owner is gone.

    Raises LabError if another lab runs in this network namespace: they would share addresses.
    """
    for path in BASE.iterdir() if BASE.is_dir() else ():
        owner = _read_owner(path)
        if owner is None:
            continue
        pid, started, network, processes = owner
        mine = _identity(os.getpid())
        if processes != mine[3]:
            continue  # its pids mean nothing here
        if int(pid) == os.getpid() or not is_alive(int(pid)) or str(start_time(int(pid))) != started:
            end_marked(path)
            shutil.rmtree(path, ignore_errors=True)
        elif network == mine[2]:
            raise LabError(
                f"another lab runs here (process {pid}): leave it first, with `exit` at its prompt or `kill {pid}`"
            )


def end_marked(path: Path) -> None:
    """SIGTERM, then SIGKILL, to every process that carries the mark of run directory `path`, but not to this one."""
    for sig, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        pids = _marked(path)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        deadline = time.monotonic() + patience
        while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)


def _marked(path: Path) -> list[int]:
    environment = f"{MARK}={path}".encode()
    return [
        pid
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        if pid != os.getpid()
        and is_alive(pid)
        and (environment in _read(pid, "environ").split(b"\0") or _names(_read(pid, "cmdline"), path))
    ]


def _names(command_line: bytes, path: Path) -> bool:
    text = command_line.replace(b"\0", b" ").decode(errors="replace") + " "
    return f"{path}/" in text or f"{path} " in text


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _read_owner(path: Path) -> list[str] | None:
    try:
        words = (path / "owner").read_text().split()
    except OSError:
        return None
    return words if len(words) == 4 else None


def _identity(pid: int) -> list[str]:
    """Process id, start time, network namespace, pid namespace."""
    return [str(pid), str(start_time(pid)), os.readlink(f"/proc/{pid}/ns/net"), os.readlink(f"/proc/{pid}/ns/pid")]
