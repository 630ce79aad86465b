"""Chooses the algorithm, and makes a plan of the assignment that it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lbctl.assignment import heuristic
from lbctl.assignment.headroom import after_loss
from lbctl.assignment.ordering import ordered
from lbctl.assignment.problem import Indexed, Plan, PlannedMove, Problem, Solution, Unassignable, checked

Algorithm = Callable[[Indexed, float], Solution]
"""A checked problem and a time limit in seconds -> what it finds. Raises Unassignable."""


def _exact(ix: Indexed, time_limit: float) -> Solution:
    from lbctl.assignment import exact  # scipy takes a third of a second to load: only who needs it pays

    return exact.solve(ix, time_limit)


ALGORITHMS: dict[str, Algorithm] = {"exact": _exact, "heuristic": heuristic.solve}
EXACT_UP_TO = 1_000
"""External IPs x LBs; beyond it "auto" takes the heuristic (docs/assignment.md has the measurement)."""


def assign(problem: Problem, algorithm: str = "auto", time_limit: float = 10.0) -> Plan:
    """The plan: the least highest relative load, then the least weight of moves. time_limit: seconds, for the exact
    algorithm only.

    algorithm: "auto", or one of ALGORITHMS. Raises Unassignable with the reason for people.
    """
    ix = checked(problem)
    if algorithm == "auto":
        algorithm = "exact" if len(ix.addresses) * len(ix.names) <= EXACT_UP_TO else "heuristic"
    if algorithm not in ALGORITHMS:
        raise Unassignable(f"there is no algorithm {algorithm}; there are auto, {', '.join(ALGORITHMS)}")
    if not ix.addresses:
        nothing = dict.fromkeys(ix.names, 0.0)
        return Plan({}, (), nothing, dict(nothing), 0.0, True, algorithm, None if problem.headroom is None else 0.0)
    found = ALGORITHMS[algorithm](ix, time_limit)
    place, worst = found.place, found.after_loss
    if problem.headroom is not None and worst is None:
        worst = after_loss(ix, place)
    return Plan(
        target={address: ix.names[lb] for address, lb in zip(ix.addresses, place, strict=True)},
        moves=tuple(_moves(ix, place)),
        before=dict(zip(ix.names, ix.relative(ix.current), strict=True)),
        after=dict(zip(ix.names, ix.relative(place), strict=True)),
        bound=found.bound, optimal=found.proved, algorithm=algorithm, after_loss=worst,
    )


def _moves(ix: Indexed, place: list[int]) -> Iterator[PlannedMove]:
    loads = ix.loads(ix.current)
    for item in ordered(ix, place):
        source, target = ix.current[item], place[item]
        loads[source] -= ix.load[item]
        loads[target] += ix.load[item]
        entries = round(ix.cost[item] - ix.problem.move_cost)
        brings = loads[target] / ix.capacity[target]
        yield PlannedMove(ix.addresses[item], ix.names[source], ix.names[target], entries, brings)
