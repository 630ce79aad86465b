"""Work that takes long is done by a program of ours in a process of its own, of low priority.

In a thread of the controller, Python's lock would let packets wait for it: for seconds, where C code holds it.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ryu_apps.shell.threads import Threads, Turn

CHECKOUT = Path(__file__).resolve().parents[2]


class Unfinished(Exception):
    """The program has given no answer; the message says why."""


def run(program: Sequence[str], portions: Iterable[object], patience: float, threads: Threads) -> Iterator[Any]:
    """The objects that `python -m PROGRAM` answers to these. Only the caller's green thread waits, and lets others run
    between two objects. patience: seconds after which it is ended. Raises Unfinished."""
    watch = _Watch(patience, threads)
    with threads.process([sys.executable, "-m", *program], str(CHECKOUT)) as process:
        watching = threads.spawn(watch.end, process)
        try:
            answer = _exchange(process, portions, threads)
        finally:
            threads.kill(watching)
    if watch.ended:
        raise Unfinished(f"it took longer than {patience:g} s")
    if process.returncode:
        raise Unfinished(f"its process has ended (status {process.returncode}); the controller's log says why")
    return _objects(answer, threads)


class _Watch:
    """Ends a process that takes too long."""

    def __init__(self, patience: float, threads: Threads) -> None:
        self._patience, self._threads = patience, threads
        self.ended = False

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self._threads.sleep(self._patience)
        self.ended = True
        process.kill()


def _exchange(process: subprocess.Popen[bytes], portions: Iterable[object], threads: Threads) -> bytes:
    assert process.stdin is not None and process.stdout is not None, "Threads.process gives it pipes"
    with contextlib.suppress(BrokenPipeError):
        for portion in portions:
            process.stdin.write(pickle.dumps(portion, pickle.HIGHEST_PROTOCOL))
            threads.sleep(0)
        process.stdin.close()
    return process.stdout.read()


def _objects(answer: bytes, threads: Threads) -> Iterator[Any]:
    file, turn = BytesIO(answer), Turn(threads.sleep)
    while file.tell() < len(answer):
        yield pickle.load(file)
        turn.pause()
