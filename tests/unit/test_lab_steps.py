"""What a lab does about programs that fail or never end, as far as it can be seen without a lab."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from topologies import programs, steps
from topologies.rundir import LabError
from topologies.shell import in_one_line, remedy
from topologies.steps import step


@pytest.fixture
def alarm() -> Iterator[None]:
    """The test's own time limit, which uses the same timer, is set aside, and runs on afterwards."""
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    yield
    signal.setitimer(signal.ITIMER_REAL, left, interval)


def test_a_program_without_end_is_named(monkeypatch: pytest.MonkeyPatch, alarm: None) -> None:
    monkeypatch.setattr(steps, "LIMIT", 0.5)
    with pytest.raises(LabError, match=r"^the name server: no end after 0\.5 s; `sleep 60` \(process \d+\) still runs"):
        with step("the name server"):
            programs.run(["sleep", "60"])
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_is_in_time_is_left_alone(alarm: None) -> None:
    handler = signal.getsignal(signal.SIGALRM)
    with step("nothing"):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and signal.getsignal(signal.SIGALRM) is handler


def test_an_outer_limit_holds_after_an_inner_step(monkeypatch: pytest.MonkeyPatch, alarm: None) -> None:
    monkeypatch.setattr(steps, "LIMIT", 0.5)
    with pytest.raises(LabError, match=r"^the whole: "), step("the whole"):
        for _ in range(60):
            with step("a part"):
                time.sleep(0.1)


def test_another_thread_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LIMIT", 0.01)
    done: list[bool] = []

    def work() -> None:
        with step("in a thread"):
            time.sleep(0.1)
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (
            "nice -n -15 mnexec -a 77 ovsdb-server /run/x/conf.db",
            "If ovsdb-server itself is broken: apt-get install --reinstall openvswitch-switch",
        ),
        ("mnexec", "If mnexec itself is broken: apt-get install --reinstall mininet"),
        ("/usr/sbin/nginx -p /run/x", "If nginx itself is broken: apt-get install --reinstall nginx"),
        ("[ -e file ]", "Does this work here when you type it?"),
    ],
)
def test_what_to_do_about_a_program(command: str, wanted: str) -> None:
    assert remedy(command) == wanted


def test_one_line_of_what_was_said() -> None:
    assert in_one_line(["  one ", "", "two."]) == "one; two"
    assert in_one_line([]) == "it said nothing"
