"""Things that break in a bed, and what its clients notice of it."""

from __future__ import annotations

import json
import os
import signal
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.bed.bed import Bed
from tests.bed.hosts import Plug
from tests.bed.namespaces import Namespace
from tests.bed.traffic import Script

AT_MOST = 10_000
"""Connections of one process: it may have so many files open on most machines."""
OPENING = 150.0


def wait_reached(bed: Bed, *unknown: str) -> None:
    """Until every LB, not only the one that serves it, knows every server's MAC: else nothing can move there.
    unknown: addresses of servers that the controller has not been told of."""
    servers = [
        f"_dst={address} " for space in bed.servers if (address := space.name.removeprefix("server-")) not in unknown
    ]
    for node in bed.lbs.values():
        bed.wait_until(
            lambda node=node: all(server in node.ovs.dump_flows(node.bridge, "table=40") for server in servers),
            10,
            f"{node.lb.name} reaches every server",
        )


def kill(bed: Bed, lb: str) -> None:
    """kill -9 of the LB's ovs-vswitchd. Its links keep their carrier, and the kernel closes its control connection."""
    bed.lbs[lb].ovs.kill()


def freeze(bed: Bed, lb: str) -> None:
    """SIGSTOP to the LB's ovs-vswitchd: it forwards nothing, and nothing is closed."""
    _signal(bed, lb, signal.SIGSTOP)


def thaw(bed: Bed, lb: str) -> None:
    """SIGCONT: the LB goes on with the rules it had."""
    _signal(bed, lb, signal.SIGCONT)


def cut(bed: Bed, lb: str, side: str) -> None:
    """Cut the LB's "external", "internal" or "management" link: both ends lose their carrier."""
    bed.switch.set_link(_plug(bed, lb, side).port, False)


def cut_silently(bed: Bed, lb: str, side: str) -> None:
    """The same beyond the first cable: nothing passes, the carrier stays."""
    bed.switch.ip("link", "set", _plug(bed, lb, side).port, "nomaster")


def mend(bed: Bed, lb: str, side: str) -> None:
    """Undo cut() or cut_silently()."""
    plug = _plug(bed, lb, side)
    bed.switch.ip("link", "set", plug.port, "up", "master", plug.segment)


def _signal(bed: Bed, lb: str, number: signal.Signals) -> None:
    pid = bed.lbs[lb].ovs.vswitchd_pid
    assert pid is not None, f"{lb}: ovs-vswitchd does not run"
    os.kill(pid, number)


def _plug(bed: Bed, lb: str, side: str) -> Plug:
    node = bed.lbs[lb]
    device = {"external": node.lb.external_port, "internal": node.lb.internal_port, "management": "eth0"}[side]
    return bed.plugs[node.space.name, device]


@dataclass(frozen=True)
class Silence:
    """A time without an answer on any connection, in seconds after the fault. `end`: the first packet that was
    forwarded again."""

    begin: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class Fates:
    """What became of established connections. `answers`: when each answer came (seconds of the monotonic clock),
    ascending; `checked`: when the last line went out over each of them."""

    alive: int
    reset: int
    closed: int
    hung: int
    answers: Sequence[float]
    checked: float

    def silence(self, fault: float) -> Silence | None:
        """The longest one after the time `fault`; None if it had no end while lines went out by themselves."""
        times = [fault, *(when for when in self.answers if fault < when < self.checked), self.checked]
        begin, end = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
        return None if end == self.checked else Silence(begin - fault, end - fault)


class Established:
    """`count` established connections from `space` (see established.py), and a line over one of them every `interval`
    seconds.

    patience: seconds without an answer, at the end, after which a connection hangs. TCP that has sent a line again
    for 5 s in vain waits as long again before it tries once more.
    """

    def __init__(
        self,
        bed: Bed,
        space: Namespace,
        address: object,
        count: int,
        *,
        interval: float = 0.001,
        patience: float = 15.0,
        port: int = 80,
    ) -> None:
        parts = -(-count // AT_MOST)
        self._files = [bed.directory / f"established-{space.name}-{address}-{part}" for part in range(parts)]
        self._scripts = []
        for part, file in enumerate(self._files):
            share = count // parts + (part < count % parts)
            options = (address, port, share, file, "--interval", interval * parts, "--patience", patience)
            self._scripts.append(Script(space, file.with_suffix(".log"), "established.py", *options, wait=False))
        for script in self._scripts:
            script.wait_ready(OPENING)

    def finish(self) -> Fates:
        """Check all of them, and end them. Raises TrafficError."""
        checked = time.monotonic()
        with ThreadPoolExecutor() as pool:
            said = [json.loads(text) for text in pool.map(Script.finish, self._scripts)]
        counts = {what: sum(each[what] for each in said) for what in ("alive", "reset", "closed", "hung")}
        return Fates(**counts, answers=sorted(_times(self._files)), checked=checked)

    def kill(self) -> None:
        for script in self._scripts:
            script.kill()


def _times(files: Iterable[Path]) -> Iterator[float]:
    for file in files:
        times = array("d")
        times.frombytes(file.read_bytes())
        yield from times
