"""Things that break in a bed, and what its clients notice of it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from testbed.bed import Bed
from testbed.namespaces import Namespace
from testbed.traffic import Script

AT_MOST = 10_000
"""Connections of one process: it may have so many files open on most machines."""
OPENING = 150.0


@dataclass(frozen=True)
class Silence:
    """A time without an answer on any connection, in seconds after the fault. `end`: the first packet that was forwarded again."""

    begin: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class Fates:
    """What became of established connections. `answers`: when each answer came (monotonic clock, seconds), ascending."""

    alive: int
    reset: int
    closed: int
    hung: int
    answers: Sequence[float]

    def silence(self, fault: float) -> Silence:
        """The longest one that began at the time `fault` or later. Raises ValueError if no answer came after that."""
        last = max((when for when in self.answers if when < fault), default=fault)
        times = [last, *(when for when in self.answers if when >= fault)]
        begin, end = max(pairwise(times), key=lambda pair: pair[1] - max(pair[0], fault), default=(fault, fault))
        if begin == end:
            raise ValueError("no packet was forwarded after the fault")
        return Silence(max(begin, fault) - fault, end - fault)


class Established:
    """`count` established connections from `space` (see established.py), and a line over one of them every `interval` seconds."""

    def __init__(self, bed: Bed, space: Namespace, address: object, count: int, *, interval: float = 0.001, port: int = 80) -> None:
        parts = -(-count // AT_MOST)
        self._files = [bed.directory / f"established-{space.name}-{address}-{part}" for part in range(parts)]
        self._scripts = []
        for part, file in enumerate(self._files):
            share = count // parts + (part < count % parts)
            options = (address, port, share, file, "--interval", interval * parts)
            self._scripts.append(Script(space, file.with_suffix(".log"), "established.py", *options, wait=False))
        for script in self._scripts:
            script.wait_ready(OPENING)

    def finish(self) -> Fates:
        """Check all of them, and end them. Raises TrafficError."""
        for script in self._scripts:
            script.process.terminate()
        said = [json.loads(script.finish()) for script in self._scripts]
        counts = {what: sum(each[what] for each in said) for what in ("alive", "reset", "closed", "hung")}
        return Fates(**counts, answers=sorted(_times(self._files)))

    def kill(self) -> None:
        for script in self._scripts:
            script.kill()


def _times(files: Iterable[Path]) -> Iterator[float]:
    for file in files:
        times = array("d")
        times.frombytes(file.read_bytes())
        yield from times
