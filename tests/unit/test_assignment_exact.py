"""The exact algorithm against brute force on small cases, and on a site of the size that it is meant for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from lbctl.assignment import Capacity, Demand, Problem, assign
from lbctl.assignment.exact import GAP, ROUNDING
from tests.unit.test_assignment import FIRST, check_report, every_valid, large, place_of, problems, solved
from tests.unit.test_assignment_parts import spread_well


@settings(max_examples=60)
@given(problems())
def test_small_cases_are_solved_as_well_as_by_trying_all(problem) -> None:
    ix, plan = solved(problem, "exact")
    if plan is None:
        return
    check_report(problem, plan)
    places = every_valid(ix)
    assert place_of(ix, plan) in places
    least = min(max(ix.relative(place)) for place in places)
    slack = (1 + problem.tolerance) * (1 + ROUNDING)
    assert plan.optimal
    assert plan.bound <= least * (1 + 1e-6)
    assert max(plan.after.values()) <= least * (1 + GAP) * slack
    cheapest = min(ix.moved(place) for place in places if max(ix.relative(place)) <= least * (1 + problem.tolerance))
    assert ix.moved(place_of(ix, plan)) <= cheapest * (1 + GAP) + 1e-6


@settings(max_examples=100)
@given(problems(headroom=True))
def test_headroom_is_there_exactly_if_it_can_be(problem) -> None:
    """By trying all: every assignment, and for each LB lost, every way of spreading what was there."""
    ix, plan = solved(problem, "exact")
    if plan is None or len(problem.demands) > 5:  # trying all would take too long
        return
    assert plan.after_loss is not None
    reached = {tuple(place): spread_well(ix, place) for place in every_valid(ix)}
    limit = problem.headroom
    if min(reached.values()) <= limit * (1 - 1e-5):
        assert plan.after_loss <= limit
        assert reached[tuple(place_of(ix, plan))] <= limit * (1 + 1e-5)
    elif min(reached.values()) > limit * (1 + 1e-5):
        assert plan.after_loss > limit


@pytest.mark.parametrize("start", ["anywhere", "one"])
def test_a_hundred_external_ips_on_eight_lbs(start) -> None:
    problem = large(100, 8, 1, start=start)
    plan, quick = assign(problem, "exact", time_limit=60.0), assign(problem, "heuristic")
    assert plan.optimal
    assert max(plan.after.values()) <= plan.bound * (1 + problem.tolerance) * (1 + GAP) * (1 + ROUNDING)
    assert plan.cost + 100 * len(plan.moves) <= quick.cost + 100 * len(quick.moves)
    check_report(problem, plan)


def test_auto_is_exact_for_small_sites() -> None:
    assert assign(large(100, 8, 1, start="one")).algorithm == "exact"
    assert assign(large(100, 11, 1)).algorithm == "heuristic"


def test_out_of_time_the_plan_is_still_one_but_not_proved() -> None:
    problem = replace(large(300, 12, 2), tolerance=0.0)
    plan = assign(problem, "exact", time_limit=0.01)
    check_report(problem, plan)
    assert not plan.optimal
    assert plan.bound <= max(plan.after.values()) <= plan.bound * 1.01


def test_headroom_that_only_another_assignment_has() -> None:
    """If lb-a is lost, the largest needs nearly all of lb-b: the others must keep off it, though the highest load is
    lower without."""
    problem = Problem((Demand(FIRST, 5.0), Demand(FIRST + 1, 3.0), Demand(FIRST + 2, 1.0)),
                      (Capacity("lb-a", 10.0), Capacity("lb-b", 6.0), Capacity("lb-c", 3.0)),
                      dict.fromkeys((FIRST, FIRST + 1, FIRST + 2), "lb-a"), headroom=1.0)
    asked, lax, never = (assign(replace(problem, headroom=headroom), "exact") for headroom in (1.0, 99.0, 0.1))
    assert max(lax.after.values()) == 0.5 and lax.after_loss == pytest.approx(4 / 3)
    assert max(asked.after.values()) == 0.8 and asked.after_loss == pytest.approx(1.0)
    assert never.target == lax.target and never.after_loss == lax.after_loss


def test_headroom_knows_those_that_must_be_apart() -> None:
    """Of two LBs that are left, one could carry both, but they must be apart, and the other is too small for either."""
    first, second = Demand(FIRST, 4.0, not_with=frozenset({FIRST + 1})), Demand(FIRST + 1, 4.0)
    problem = Problem((first, second), (Capacity("lb-a", 8.0), Capacity("lb-b", 8.0), Capacity("lb-c", 1.0)),
                      {FIRST: "lb-a", FIRST + 1: "lb-b"}, headroom=1.0)
    assert assign(problem, "exact").after_loss == 4.0
    assert assign(replace(problem, demands=(replace(first, not_with=frozenset()), second)), "exact").after_loss == 1.0


def test_headroom_counts_the_loss_of_an_empty_lb() -> None:
    """lb-b is empty, and nothing could go there: when it is lost, lb-a still has more than the headroom."""
    demands = (Demand(FIRST, 2.0, only_on=frozenset({"lb-a"})),)
    assert assign(Problem(demands, (Capacity("lb-a"), Capacity("lb-b")), {FIRST: "lb-a"}, headroom=1.5),
                  "exact").after_loss == 2.0
