"""What the shell asks of green threads (ryu_apps/shell/threads.py), by real ones: tests of the shell need no Ryu."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from topologies import programs

P = ParamSpec("P")
R = TypeVar("R")


class RealThreads:
    """They are not ended by `kill`, but end with the process."""

    def spawn(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> object:
        threading.Thread(target=function, args=args, kwargs=kwargs, daemon=True).start()
        return None

    def kill(self, thread: object) -> None:
        pass

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def event(self) -> threading.Event:
        return threading.Event()

    def apart(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    def process(self, command: Sequence[str], directory: str) -> subprocess.Popen[bytes]:
        return programs.popen(command, text=False, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
