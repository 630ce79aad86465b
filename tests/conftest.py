"""How tests share the machine: `-n auto` runs several at once (pytest-xdist); by default it is one after the other.

A test marked `alone` measures how quick something is: no other test runs beside it, of this run or of another one.

And what hypothesis looks at: something else in each run, by a seed that pytest's head shows; `--hypothesis-seed=N`
looks at the same again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import core
from xdist.workermanage import WorkerController

DOOR, ROOM = (Path(tempfile.gettempdir(), f"lbctl-tests-{os.geteuid()}.{name}") for name in ("door", "room"))
"""Files that are locked: ROOM while a test runs, DOOR while it waits for that. So who waits to be alone lets nobody
else in."""

UNIT = Path(__file__).resolve().parent / "unit"

_workers: list[int] = []
"""Process ids of this run's workers."""

SEED = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: no other test runs beside this one")
    config.addinivalue_line("markers", "quick: `./test.sh --quick` runs it, and all unit tests that are not long")
    config.addinivalue_line("markers", "long: a unit test of many seconds or examples, left out by `./test.sh --quick`")
    if _is_worker(config):
        signal.signal(signal.SIGINT, _interrupted_once)
    _choose_seed(config)


class OneSeed(random.Random):
    """What hypothesis draws each test's seed from: always the same.

    With its own way to fix the seed, its option --hypothesis-seed, hypothesis would neither keep nor try kept examples.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def getrandbits(self, _bits: int, /) -> int:
        return self._seed


def _choose_seed(config: pytest.Config) -> None:
    """The one that was asked for, or a new one; the same in all workers."""
    chosen = config.getoption("hypothesis_seed", None) or getattr(config, "workerinput", {}).get("seed")
    config.stash[SEED] = int(chosen or random.SystemRandom().getrandbits(32))
    core.threadlocal._hypothesis_global_random = OneSeed(config.stash[SEED])


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    node.workerinput["seed"] = node.config.stash[SEED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"hypothesis: --hypothesis-seed={config.stash[SEED]} looks at the same examples again"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Beside what failed, where one looks for it; and with -q, where there is no head."""
    if exitstatus:
        terminalreporter.write_line(pytest_report_header(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests are quick unless they say that they are long. Those that fail may take their time: hypothesis looks
    for a smaller example for 300 s."""
    for item in items:
        if UNIT in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))
            if not item.get_closest_marker("long"):
                item.add_marker("quick")


def pytest_xdist_auto_num_workers() -> int:
    """Two for each processor, since integration tests mostly wait; more than there are long modules would be idle."""
    return min(2 * len(os.sched_getaffinity(0)), 8)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Around the whole test: the wait does not count against its time limit."""
    how = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with _locked(DOOR, fcntl.LOCK_EX) as door, _locked(ROOM, how):
        fcntl.flock(door, fcntl.LOCK_UN)
        return (yield)


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, how)
        yield file
    finally:
        os.close(file)


# An interrupted run cleans up: pytest-xdist would tell its workers after 5 s, and kill them after another 5.


def pytest_testnodeready(node: WorkerController) -> None:
    _workers.append(node.gateway._rinfo().pid)


def pytest_keyboard_interrupt() -> None:
    for pid in _workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes what a worker that was killed nevertheless has left."""
    if _workers and os.geteuid() == 0:
        from tests.bed import namespaces
        from topologies import rundir

        namespaces.remove_leftovers()
        with contextlib.suppress(rundir.LabError):
            rundir.remove_leftovers()


def _interrupted_once(*_: object) -> None:
    """Ctrl-C reaches a worker from the terminal, and from above: the second one must not end the clearing up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")
