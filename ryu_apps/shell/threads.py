"""What the shell asks of green threads: many in one process, of which one runs until it waits.

Besides these the standard library must be patched so that a socket, a lock or `time.sleep` lets the others run.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


TURN = 0.003
"""Seconds after which one who has much to do lets the others run."""


class Turn:
    """Of one green thread that has many things to do, one after the other."""

    def __init__(self, sleep: Callable[[float], object]) -> None:
        """It begins now. sleep: see Threads."""
        self._sleep = sleep
        self._begun = time.monotonic()

    def pause(self) -> None:
        """To be called after each of them. Lets the others run if it has lasted long enough."""
        if time.monotonic() > self._begun + TURN:
            self._sleep(0)
            self._begun = time.monotonic()


class Event(Protocol):
    """As threading.Event."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...
    def clear(self) -> None: ...
    def wait(self) -> bool: ...


class Threads(Protocol):
    """Starts, ends and delays them. Only the caller waits."""

    def spawn(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> object:
        """Returns at once, with what `kill` wants."""

    def kill(self, thread: object) -> None:
        """Ends it where it waits."""

    def sleep(self, seconds: float) -> None:
        """With 0, everybody else who could run gets a turn."""

    def event(self) -> Event:
        """Not set."""
        ...

    def apart(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns or raises. It runs in a real thread, so it may use the disk."""
        ...

    def process(self, command: Sequence[str], directory: str) -> subprocess.Popen[bytes]:
        """Starts a program in that directory, with pipes for its input and output."""
        ...
