"""Green threads as the shell asks for them (`ryu_apps.shell.threads.Threads`), made by the library and by eventlet."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from eventlet import tpool
from eventlet.green import subprocess as green_subprocess

from ryu_apps.library.names import hub
from ryu_apps.shell.log import fatal
from ryu_apps.shell.threads import Event

P = ParamSpec("P")
R = TypeVar("R")


class GreenThreads:
    """An exception in one of them ends the process."""

    def spawn(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> object:
        return hub.spawn(fatal(function), *args, **kwargs)

    def kill(self, thread: object) -> None:
        hub.kill(thread)

    def sleep(self, seconds: float) -> None:
        hub.sleep(seconds)

    def event(self) -> Event:
        return hub.Event()

    def apart(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        result: R = tpool.execute(function, *args, **kwargs)
        return result

    def process(self, command: Sequence[str], directory: str) -> subprocess.Popen[bytes]:
        started: subprocess.Popen[bytes] = green_subprocess.Popen(
            command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return started
