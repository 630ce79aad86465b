"""The experiment's load is the same in every run, and its figures are what they say; the experiment itself is run in
tests/integration/test_experiment.py."""

from __future__ import annotations

import itertools

import pytest

from evaluation.experiment.results import BIN, Move, Request, Run, Sample, quantile, seeds_table, table
from evaluation.experiment.shape import GROUPS, LINK, ON_THE_WIRE, PHASES, UTILISATION, Shape

SHAPE = Shape(seed=3, phase=20.0, lbs=3)


def test_the_load_is_the_same_in_every_run_and_another_one_with_another_seed() -> None:
    assert list(SHAPE.requests(5)) == list(Shape(3, 20.0, 3).requests(5)) != list(Shape(4, 20.0, 3).requests(5))


@pytest.mark.parametrize("phase", range(PHASES))
def test_in_each_phase_the_links_are_used_to_the_same_extent(phase: int) -> None:
    rates = [SHAPE.rate(group, phase) for group in range(GROUPS)]
    assert sum(rates) * ON_THE_WIRE == pytest.approx(UTILISATION * 3 * LINK)
    assert sorted(rates)[-1] == pytest.approx(2 * sorted(rates)[-2]), "sizes go as 1/k"
    due = [at for group in range(GROUPS) for at in SHAPE.requests(group) if phase * 20 <= at < (phase + 1) * 20]
    assert len(due) == pytest.approx(sum(rates) * 20, rel=0.1)


def test_groups_change_their_sizes_from_phase_to_phase() -> None:
    first, second = ([SHAPE.rate(group, phase) for group in range(GROUPS)] for phase in (0, 1))
    assert first != second and sorted(first) == pytest.approx(sorted(second))


def test_no_two_groups_look_the_name_up_at_the_same_time() -> None:
    times = sorted(at for group in range(GROUPS) for at in SHAPE.look_ups(group))
    assert len(times) == 3 * GROUPS and times[GROUPS - 1] < 0 <= times[GROUPS]
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.09


def run(requests=(), failures=(), moves=(), samples=()) -> Run:
    return Run("automatic", (), tuple(requests), tuple(failures), 1, tuple(moves), tuple(samples), 0)


HOME, AWAY = Sample(-1.0, {"a": "lb-a", "b": "lb-b"}, {}), Sample(2.5, {"a": "lb-b", "b": "lb-b"}, {})


def test_the_worst_load_follows_the_assignment() -> None:
    asked = (("a", 0.0), ("a", 0.5), ("b", 1.0), ("a", 2.4), ("b", 3.0), ("a", 3.0))
    requests = [Request(due, 0.1, ip) for ip, due in asked]
    one = ON_THE_WIRE / (LINK * BIN)
    moved = run(requests, samples=(HOME, AWAY))
    assert moved.worst_loads() == [(0.0, pytest.approx(2 * one)), (2.0, pytest.approx(2 * one))]
    assert moved.mean_load() == moved.highest_load() == pytest.approx(2 * one)
    assert run(requests, samples=(HOME,)).worst_loads()[1] == (2.0, pytest.approx(2 * one)), "a, a at lb-a"


def test_what_has_failed_was_asked_for_too_and_is_harm() -> None:
    failed = run([Request(0.0, 0.1, "a")], [(0.1, "a", "reset")], samples=(HOME,))
    assert failed.worst_loads() == [(0.0, pytest.approx(2 * ON_THE_WIRE / (LINK * BIN)))]
    assert not failed.harmless and run([Request(0.0, 0.1, "a")]).harmless
    for state, lost in (("rolled-back", 0), ("done", 1)):
        assert not run(moves=[Move("a", "lb-a", "lb-b", state, None, 1.0, lost)]).harmless


def test_quantiles_and_bins() -> None:
    assert [quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0.0, 0.5, 0.95, 1.0)] == [1.0, 3.0, 4.0, 4.0]
    late = run([Request(0.0, 0.2, "a"), Request(1.0, 3.5, "a")], samples=(HOME,))
    assert late.latencies(0.95) == [(0.0, 3.5)]
    assert [at for at, _ in late.throughputs()] == [0.0, 4.0]
    assert (late.in_time(4.0), late.in_time(5.0)) == (1, 2)
    [answered, *_] = table([late], 5.0).rows
    assert answered.cells == ("requests answered", "2")


def test_several_seeds_are_compared_by_both_runs_of_each() -> None:
    runs = [run([Request(0.0, took, "a")], samples=(HOME,)) for took in (0.2, 0.1)]
    compared = seeds_table({1: runs, 7: runs})
    assert [row.cells[0] for row in compared.rows] == ["1", "7"]
    assert compared.rows[0].cells[compared.columns.index("latency, median")] == "200 ms / 100 ms"
