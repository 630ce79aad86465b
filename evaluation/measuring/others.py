"""How much of the machine other work takes; and runs that are repeated because of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from evaluation.measuring.usage import TICKS

TOLERATED = 0.05
"""Of the machine's processor time."""
ATTEMPTS = 2
WAIT = 3.0
KERNEL_THREAD = 0x200000
"""PF_KTHREAD in the flags of a process."""

T = TypeVar("T")


class _Process(NamedTuple):
    """`start`: when it started, which together with `pid` names it for good. `ticks`: processor time so far."""

    pid: int
    start: str
    parent: int
    ticks: int
    space: int
    """Of its network namespace: the inode."""


class Watch:
    """Watches from when it is made. Ours are this process, what it has started, and what runs inside `namespaces`.

    `namespaces`: paths of named network namespaces. What others have started and ended meanwhile is not seen.
    """

    def __init__(self, namespaces: Iterable[Path] = ()) -> None:
        self._spaces = {path.stat().st_ino for path in namespaces}
        self._before = {(each.pid, each.start): each.ticks for each in _processes()}
        self._begun = time.monotonic()

    def share(self) -> float:
        """The share of the machine's processor time (0 to 1) that others have taken since then."""
        processes = list(_processes())
        ours = _descendants(processes)
        others = [each for each in processes if each.pid not in ours and each.space not in self._spaces]
        taken = sum(each.ticks - self._before.get((each.pid, each.start), 0) for each in others) / TICKS
        return max(0.0, taken / ((time.monotonic() - self._begun) * (os.cpu_count() or 1)))


def undisturbed(run: Callable[[], T], namespaces: Iterable[Path] = ()) -> tuple[T, float]:
    """The result of `run`, and the share of the processor time that others took meanwhile (see Watch).

    A run that lost more than TOLERATED to others is repeated, up to ATTEMPTS times; the least disturbed one counts.
    """
    spaces = list(namespaces)
    best: tuple[T, float] | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT)
        result, share = watched(run, spaces)
        if best is None or share < best[1]:
            best = result, share
        if share <= TOLERATED:
            break
    assert best is not None
    return best


def watched(run: Callable[[], T], namespaces: Iterable[Path] = ()) -> tuple[T, float]:
    """The same for a run that cannot be repeated."""
    watch = Watch(namespaces)
    result = run()
    return result, watch.share()


def _processes() -> Iterable[_Process]:
    """All but kernel threads, and those that end while this looks at them."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            if int(fields[6]) & KERNEL_THREAD:
                continue
            space = os.stat(f"{entry.path}/ns/net").st_ino
        except OSError:
            continue
        yield _Process(int(entry.name), fields[19], int(fields[1]), int(fields[11]) + int(fields[12]), space)


def _descendants(processes: Iterable[_Process]) -> set[int]:
    """This process and everything that it has started, directly or not."""
    children: dict[int, list[int]] = {}
    for each in processes:
        children.setdefault(each.parent, []).append(each.pid)
    found, left = {os.getpid()}, [os.getpid()]
    while left:
        new = [child for child in children.get(left.pop(), ()) if child not in found]
        found.update(new)
        left += new
    return found
