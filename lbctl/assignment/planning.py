"""Chooses the algorithm, and makes a plan of the assignment that it finds."""

from __future__ import annotations

from collections.abc import Callable

from lbctl.assignment import heuristic
from lbctl.assignment.headroom import after_loss
from lbctl.assignment.ordering import ordered
from lbctl.assignment.problem import Indexed, Plan, PlannedMove, Problem, Unassignable, checked

Algorithm = Callable[[Indexed, float], tuple[list[int], float, bool]]
"""A checked problem and a time limit in seconds -> LB of each external IP, a lower bound of the highest relative load, proved."""


ALGORITHMS: dict[str, Algorithm] = {"heuristic": heuristic.solve}


def assign(problem: Problem, algorithm: str = "auto", time_limit: float = 10.0) -> Plan:
    """The plan: the least highest relative load, then the least weight of moves. time_limit: seconds, for the exact algorithm only.

    algorithm: "auto", or one of ALGORITHMS. Raises Unassignable with the reason for people.
    """
    ix = checked(problem)
    if algorithm == "auto":
        algorithm = "heuristic"
    if algorithm not in ALGORITHMS:
        raise Unassignable(f"there is no algorithm {algorithm}; there are auto, {', '.join(ALGORITHMS)}")
    if not ix.addresses:
        nothing = dict.fromkeys(ix.names, 0.0)
        return Plan({}, (), nothing, dict(nothing), 0.0, True, algorithm, None if problem.headroom is None else 0.0)
    place, bound, optimal = ALGORITHMS[algorithm](ix, time_limit)
    return Plan(
        target={address: ix.names[lb] for address, lb in zip(ix.addresses, place, strict=True)},
        moves=tuple(_move(ix, item, place[item]) for item in ordered(ix, place)),
        before=dict(zip(ix.names, ix.relative(ix.current), strict=True)),
        after=dict(zip(ix.names, ix.relative(place), strict=True)),
        bound=bound, optimal=optimal, algorithm=algorithm,
        after_loss=None if problem.headroom is None else after_loss(ix, place),
    )


def _move(ix: Indexed, item: int, target: int) -> PlannedMove:
    entries = round(ix.cost[item] - ix.problem.move_cost)
    return PlannedMove(ix.addresses[item], ix.names[ix.current[item]], ix.names[target], entries)
