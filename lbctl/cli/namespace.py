"""Network namespaces of this machine: an Open vSwitch, and so the ports of its bridges, may be in another one than this
command."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from lbctl.cli.failure import Failure

CLONE_NEWNET = 0x40000000
OWN = Path("/proc/self/ns/net")
TIMEOUT = 15
"""Seconds that a command may take."""

T = TypeVar("T")


class NetworkNamespace:
    """The network namespace of process `pid`; this command's own, if there is no such process or it may not be looked
    at."""

    def __init__(self, pid: int | None = None) -> None:
        path = Path(f"/proc/{pid}/ns/net")
        try:
            is_own = pid is None or os.readlink(path) == os.readlink(OWN)
        except OSError:
            is_own = True
        self._path = None if is_own else path

    def run(self, *command: str) -> str | None:
        """What the command says inside; None if it is not installed, or fails."""
        enter = ["nsenter", f"--net={self._path}"] if self._path else []
        try:
            done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=TIMEOUT)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return None if done.returncode else done.stdout

    def call(self, function: Callable[[], T]) -> T:
        """The result of the function, called inside: its sockets and /proc/sys/net are those of the namespace.

        Raises what it raises, and Failure if the process has ended meanwhile.
        """
        if self._path is None:
            return function()
        return _Inside(self._path, function).result()


class _Inside(threading.Thread, Generic[T]):
    """A thread that enters a namespace; it is good for nothing else afterwards."""

    def __init__(self, path: Path, function: Callable[[], T]) -> None:
        super().__init__(name="in another namespace")
        self._path, self._function = path, function
        self._results: list[T] = []
        self._error: BaseException | None = None

    def result(self) -> T:
        self.start()
        self.join()
        if self._error is not None:
            raise self._error
        return self._results[0]

    def run(self) -> None:
        try:
            self._enter()
            self._results.append(self._function())
        except BaseException as error:
            self._error = error

    def _enter(self) -> None:
        try:
            with self._path.open() as handle:
                libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on
                if libc.setns(handle.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        except OSError as error:
            raise Failure(
                f"The network namespace {self._path} cannot be entered ({error.strerror}): has Open vSwitch ended "
                "just now, or are you not root?"
            ) from error
