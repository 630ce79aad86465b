"""A crash loop is slowed, and told; whoever tells the controller to end makes none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.store.runs import FREE, LONGEST_WAIT, SHORT, Run, Runs


def test_starts_after_crashes_wait_longer_and_longer() -> None:
    now, run, waits = 1e9, Run(float("-inf")), []
    for _ in range(10):
        run = run.next(now)
        waits.append(run.wait)
        now += run.wait
        run = replace(run, began=now)
        now += 2.0  # then it crashes
    assert waits[:FREE] == [0.0] * FREE and waits[FREE:FREE + 4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == LONGEST_WAIT and waits == sorted(waits)


@given(st.lists(st.tuples(st.floats(0, 2 * SHORT), st.booleans()), max_size=20))
def test_only_crashes_in_a_row_count(lives: list[tuple[float, bool]]) -> None:
    now, run = 1e9, Run(float("-inf"))
    for lasted, told in lives:
        run = replace(run.next(now), began=now, told=told)
        now += lasted
    expected = len(list(itertools.takewhile(lambda life: life[0] < SHORT and not life[1], reversed(lives))))
    assert run.next(now).crashes == pytest.approx(expected, abs=1)  # rounding of times


def test_a_clock_that_was_set_back_makes_no_crash() -> None:
    assert Run(1e9, crashes=5).next(1e9 - 3600).crashes == 0


def test_the_last_run_is_kept(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs")
    assert runs.last().next(0.0).crashes == 0
    runs.write(Run(5.0, 3, told=True))
    assert runs.last() == Run(5.0, 3, told=True)


@given(st.binary(max_size=60))
def test_a_file_that_is_damaged_is_as_if_there_were_none(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("runs") / "runs"
    path.write_bytes(content)
    assert isinstance(Runs(path).last(), Run)


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "nowhere" / "runs")
    runs.write(Run(1.0))
    assert runs.last().crashes == 0
