"""The exact algorithm: two mixed-integer programs for HiGHS, by scipy.

x[i, j] = 1 if external IP i is on LB j, for the j that it may be on; sum over j of x[i, j] = 1; x[i, j] + x[k, j] <= 1
for i and k that must not share an LB. First program: minimise U, with the load of each LB j at most U times its
capacity. Second: U held at most (1 + tolerance) times the first one's result, minimise the weight of what is not where
it is now.

With headroom h asked for: for each LB f that may be lost, and each i that may be elsewhere, y[f, i, j] = 1 if i goes
from f to j then; sum over j of y[f, i, j] = x[i, f], and for each j other than f the load by x and y[f] at most h times
its capacity. If that cannot be, or is not found in time, the programs are solved without, and the plan's after_loss
tells.

HiGHS prints a line of its own to standard output now and then; scipy cannot stop that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from lbctl.assignment import heuristic
from lbctl.assignment.bounds import lower_bound
from lbctl.assignment.headroom import after_loss
from lbctl.assignment.problem import Indexed, Solution

GAP = 1e-3
"""Relative; two values that differ by less are the same to this algorithm."""
ROUNDING = 1e-5
"""Relative; HiGHS keeps constraints up to 1e-6."""
SCENARIO_VARIABLES = 50_000
"""With more, headroom is not put into the programs: HiGHS would find nothing in time."""


def solve(ix: Indexed, time_limit: float) -> Solution:
    """Each of the two programs gets half of the time (with headroom, a quarter, since they may be solved again
    without). What they do not find in time, the heuristic has found."""
    if ix.problem.headroom is not None:
        program = _Program(ix, ix.problem.headroom)
        if program.count <= SCENARIO_VARIABLES:
            found = _solve(ix, program, time_limit / 4)
            if found is not None:
                return found
        time_limit /= 2
    found = _solve(ix, _Program(ix, None), time_limit / 2)
    return found if found is not None else heuristic.solve(ix, time_limit)


def _solve(ix: Indexed, program: _Program, seconds: float) -> Solution | None:
    """None: there is no assignment with the headroom, or none was found in time."""
    bound, headroom = lower_bound(ix), program.headroom
    known = [heuristic.best_known(ix), heuristic.solve(ix, 0.0).place]
    if headroom is not None:
        known = [place for place in known if after_loss(ix, place) <= headroom]
    least = min((max(ix.relative(place)) for place in known), default=np.inf)
    proved = least <= bound * (1 + GAP)
    if not proved:
        first = program.least_load(bound, least, seconds)
        if first is not None:
            place, lower, proved = first
            known.append(place)
            bound, least = max(bound, lower), min(max(ix.relative(place)), least)
        elif not known:
            return None
    limit = least * (1 + ix.problem.tolerance)
    second = program.least_moves(limit, seconds)
    candidates = known if second is None else [*known, second[0]]
    fit = [place for place in candidates if ix.valid(place) and max(ix.relative(place)) <= limit * (1 + ROUNDING)]
    chosen = min(fit, key=lambda place: (ix.moved(place), max(ix.relative(place))))
    worst = None if headroom is None else min(after_loss(ix, chosen), headroom)
    return Solution(chosen, bound, proved and second is not None and second[1], worst)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Constraints lower <= A x <= upper, while they are collected."""

    row: list[int]
    column: list[int]
    value: list[float]
    lower: list[float]
    upper: list[float]

    def add(self, terms: list[tuple[int, float]], lower: float, upper: float) -> None:
        self.row.extend([len(self.lower)] * len(terms))
        self.column.extend(column for column, _ in terms)
        self.value.extend(value for _, value in terms)
        self.lower.append(lower)
        self.upper.append(upper)


class _Program:
    """The variables: U first, then all x, then all y. Loads are scaled so that U is about 1."""

    def __init__(self, ix: Indexed, headroom: float | None) -> None:
        self.headroom = headroom
        self._ix = ix
        self._scale = lower_bound(ix) or 1.0
        self._rows = _Rows([], [], [], [], [])
        self._x: dict[tuple[int, int], int] = {}
        for item, allowed in enumerate(ix.allowed):
            for lb in allowed:
                self._x[item, lb] = len(self._x) + 1
        self.count = len(self._x) + 1
        self._on: list[list[int]] = [[] for _ in ix.names]
        for item, lb in self._x:
            self._on[lb].append(item)
        self._place_rows()
        if headroom is not None:
            for failed in range(len(ix.names)):
                self._loss_rows(failed, headroom)

    def _share(self, item: int, lb: int) -> float:
        return self._ix.load[item] / self._ix.capacity[lb] / self._scale

    def _place_rows(self) -> None:
        ix, x = self._ix, self._x
        for item, allowed in enumerate(ix.allowed):
            self._rows.add([(x[item, lb], 1.0) for lb in allowed], 1.0, 1.0)
            for other in ix.enemies[item]:
                for lb in ix.members[item] & ix.members[other] if other > item else ():
                    self._rows.add([(x[item, lb], 1.0), (x[other, lb], 1.0)], 0.0, 1.0)
        for lb, items in enumerate(self._on):
            self._rows.add([(0, -1.0), *((x[item, lb], self._share(item, lb)) for item in items)], -np.inf, 0.0)

    def _loss_rows(self, failed: int, headroom: float) -> None:
        ix, x, taken = self._ix, self._x, dict[int, list[tuple[int, int]]]()
        for item in self._on[failed]:
            others = [lb for lb in ix.allowed[item] if lb != failed]
            if not others:
                continue
            columns = range(self.count, self.count + len(others))
            self.count += len(others)
            self._rows.add([*((column, 1.0) for column in columns), (x[item, failed], -1.0)], 0.0, 0.0)
            for column, lb in zip(columns, others, strict=True):
                taken.setdefault(lb, []).append((item, column))
        for lb, pairs in taken.items():
            terms = [(x[item, lb], self._share(item, lb)) for item in self._on[lb]]
            moved = [(column, self._share(item, lb)) for item, column in pairs]
            self._rows.add([*terms, *moved], -np.inf, headroom / self._scale)
            there = dict(pairs)
            for item, column in pairs:
                for other in ix.enemies[item]:
                    rivals = [x[other, lb]] if (other, lb) in x else []
                    rivals += [there[other]] if other in there and other > item else []
                    for rival in rivals:
                        self._rows.add([(column, 1.0), (rival, 1.0)], 0.0, 1.0)

    def least_load(self, bound: float, known: float | None, seconds: float) -> tuple[list[int], float, bool] | None:
        """The assignment, a lower bound, and whether it is the best up to GAP; None if there is none or none was
        found."""
        goal = np.zeros(self.count)
        goal[0] = 1.0
        found = self._run(goal, bound, np.inf if known is None else known, seconds)
        if found is None:
            return None
        place, lower, proved = found
        return place, lower * self._scale, proved

    def least_moves(self, limit: float, seconds: float) -> tuple[list[int], bool] | None:
        """The assignment, and whether it is the best up to GAP; None if none was found."""
        goal = np.zeros(self.count)
        for (item, lb), column in self._x.items():
            if lb != self._ix.current[item]:
                goal[column] = self._ix.cost[item]
        found = self._run(goal / (goal.max() or 1.0), 0.0, limit, seconds)
        return None if found is None else (found[0], found[2])

    def _run(self, goal: np.ndarray, lowest: float, highest: float,
             seconds: float) -> tuple[list[int], float, bool] | None:
        rows = self._rows
        if self.headroom is not None and len(self._ix.names) > 1:
            highest = min(highest, self.headroom)  # what an LB has when another is lost that gives it nothing
        if lowest > highest:
            return None
        matrix = coo_array((rows.value, (rows.row, rows.column)), shape=(len(rows.lower), self.count)).tocsr()
        lower, upper = np.zeros(self.count), np.ones(self.count)
        lower[0], upper[0] = lowest / self._scale * (1 - 1e-9), highest / self._scale * (1 + 1e-9)
        whole = np.ones(self.count)
        whole[0] = 0
        result = milp(goal, integrality=whole, bounds=Bounds(lower, upper),
                      constraints=LinearConstraint(matrix, rows.lower, rows.upper),
                      options={"time_limit": seconds, "mip_rel_gap": GAP})
        if result.x is None:
            return None
        best = [self._chosen(item, result.x) for item in range(len(self._ix.allowed))]
        return best, float(result.mip_dual_bound or 0.0), result.status == 0

    def _chosen(self, item: int, values: np.ndarray) -> int:
        """The LB of an external IP: its variables are 0 but for one, up to rounding."""
        return max(self._ix.allowed[item], key=lambda lb: float(values[self._x[item, lb]]))
