"""The fast algorithm: mend the current assignment, and compute one anew only if that is too far from the lower bound.

Mending takes what is cheapest off the overloaded LBs, packs it into the others (best fit, decreasing: the packing of
MULTIFIT, Coffman, Garey and Johnson 1978, with the limit known beforehand), and then exchanges external IPs between the
most loaded LB and others until the limit holds or nothing helps. Anew: LPT (Graham 1969), and the same exchanges. At
the end, what may go back goes back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from lbctl.assignment.bounds import lower_bound
from lbctl.assignment.feasible import kept
from lbctl.assignment.placement import NOWHERE, Placement
from lbctl.assignment.problem import Indexed, Solution

LOOKS = 24
"""How many of the least loaded LBs an exchange is tried with."""
STEPS_PER_LB = 20


def solve(ix: Indexed, time_limit: float) -> Solution:
    """It proves nothing, except that staying is best where that is so, and needs no time limit."""
    bound = lower_bound(ix)
    start = kept(ix)
    enough = bound * (1 + ix.problem.tolerance)
    if start == ix.current and max(ix.relative(start)) <= enough:
        return Solution(start, bound, True)
    found = [_mended(ix, start, enough)]
    if found[0].highest() > enough:
        found.append(_anew(ix, start, enough))
    best = min(each.highest() for each in found)
    limit = enough if best <= enough * (1 + 1e-9) else best * (1 + ix.problem.tolerance)
    for state in found:
        _return(state, limit)
    places = [state.place for state in found] + [start] * (NOWHERE not in start)
    fit = [place for place in places if max(ix.relative(place)) <= limit * (1 + 1e-9)]
    return Solution(min(fit, key=lambda place: (ix.moved(place), max(ix.relative(place)))), bound, False)


def best_known(ix: Indexed) -> list[int]:
    """The assignment with the lowest highest load that the exchanges find, whatever it moves."""
    bound, start = lower_bound(ix), kept(ix)
    states = [_mended(ix, start, bound), _anew(ix, start, bound)]
    return min(states, key=Placement.highest).place


def _mended(ix: Indexed, start: list[int], limit: float) -> Placement:
    state = Placement(ix, start)
    loose = [item for item, lb in enumerate(start) if lb == NOWHERE]
    for lb, capacity in enumerate(ix.capacity):
        loose += _shed(state, lb, state.load[lb] - limit * capacity)
    _pack(state, loose, limit)
    _exchange(state, limit)
    return state


def _anew(ix: Indexed, start: list[int], limit: float) -> Placement:
    # Those with enemies stay where `kept` has put them; exchanges may move them.
    state = Placement(ix, [lb if enemies else NOWHERE for lb, enemies in zip(start, ix.enemies, strict=True)])
    _pack(state, [item for item, lb in enumerate(state.place) if lb == NOWHERE], limit)
    _exchange(state, limit)
    return state


def _shed(state: Placement, lb: int, excess: float) -> list[int]:
    """Takes at least that load off an LB, as far as what is there may be elsewhere: the cheapest one that is enough, or
    those that are cheapest for their load."""
    if excess <= 0:
        return []
    ix = state.ix
    movable = [item for load, item in state.on[lb] if load > 0 and len(ix.allowed[item]) > 1]
    alone = min((item for item in movable if ix.load[item] >= excess),
                key=lambda item: (ix.cost[item], ix.load[item], item), default=None)
    several: list[int] = []
    shed = 0.0
    for item in sorted(movable, key=lambda item: (ix.cost[item] / ix.load[item], item)):
        if shed >= excess:
            break
        several.append(item)
        shed += ix.load[item]
    chosen = [alone] if alone is not None and ix.cost[alone] <= sum(ix.cost[item] for item in several) else several
    for item in chosen:
        state.take(item)
    return chosen


def _pack(state: Placement, loose: list[int], limit: float) -> None:
    """Places them: the largest first, each where the least room is left over; where there is room nowhere, on the least
    loaded."""
    ix = state.ix
    wide = max(ix.allowed, key=len)
    rooms = sorted((limit * ix.capacity[lb] - state.load[lb], lb) for lb in wide)
    room_of = {lb: room for room, lb in rooms}
    for item in sorted(loose, key=lambda item: (len(ix.allowed[item]) == len(wide), -ix.load[item], item)):
        load = ix.load[item]
        lb = next((lb for _, lb in rooms[bisect_left(rooms, (load, NOWHERE)):] if state.may(item, lb)), None)
        if lb is None:
            open_to = [lb for lb in ix.allowed[item] if state.free(item, lb)]
            lb = min(open_to, key=lambda lb: ((state.load[lb] + load) / ix.capacity[lb], lb))
        state.put(item, lb)
        if lb in room_of:
            del rooms[bisect_left(rooms, (room_of[lb], lb))]
            room_of[lb] -= load
            insort(rooms, (room_of[lb], lb))


def _exchange(state: Placement, limit: float) -> None:
    """Moves one from the most loaded LB to another, or exchanges two, as long as the higher of the two loads falls by
    it."""
    ix = state.ix
    order = sorted((state.relative(lb), lb) for lb in frozenset().union(*set(ix.members)))
    for _ in range(STEPS_PER_LB * len(order) + 100):
        highest, lb = order[-1]
        if highest <= limit:
            return
        change = _change(state, lb, [other for _, other in order[:LOOKS] if other != lb], highest, limit)
        if change is None:
            return
        out, back, other = change
        for each in (lb, other):
            del order[bisect_left(order, (state.relative(each), each))]
        state.take(out)
        if back != NOWHERE:
            state.take(back)
            state.put(back, lb)
        state.put(out, other)
        for each in (lb, other):
            insort(order, (state.relative(each), each))


def _change(state: Placement, lb: int, others: list[int], highest: float, limit: float) -> tuple[int, int, int] | None:
    """Who goes from there, who comes back (or NOWHERE), and from where: the first that leaves both within the limit,
    else the best."""
    best: tuple[float, int, int, int] | None = None
    for other in others:
        found = _between(state, lb, other)
        if found is not None and (best is None or found < best):
            best = found
            if best[0] <= limit:
                break
    return best[1:] if best is not None and best[0] < highest * (1 - 1e-9) else None


def _between(state: Placement, lb: int, other: int) -> tuple[float, int, int, int] | None:
    """The best move or exchange between two LBs: the higher relative load after it, who goes, who comes back, the other
    LB."""
    ix = state.ix
    ours, theirs = ix.capacity[lb], ix.capacity[other]
    ideal = (state.load[lb] * theirs - state.load[other] * ours) / (ours + theirs)
    best: tuple[float, int, int, int] | None = None
    held = state.on[other]
    # Those much too large or small need a partner; without one, the nearest to the ideal on either side are enough.
    for load, item in state.on[lb]:
        if load <= 0 or not state.may(item, other) and not ix.enemies[item]:
            continue
        at = bisect_right(held, (load - ideal, NOWHERE))
        for back_load, back in (*held[max(at - 1, 0):at + 2], (0.0, NOWHERE)):
            if back_load >= load or not _may_swap(state, item, lb, back, other):
                continue
            high = max((state.load[lb] - load + back_load) / ours, (state.load[other] + load - back_load) / theirs)
            if best is None or (high, item, back, other) < best:
                best = (high, item, back, other)
    return best


def _may_swap(state: Placement, item: int, lb: int, back: int, other: int) -> bool:
    return state.may(item, other, back) and (back == NOWHERE or state.may(back, lb, item))


def _return(state: Placement, limit: float) -> None:
    """Those that need not have moved go back, the costliest first, until none can."""
    ix = state.ix
    away = sorted((item for item, lb in enumerate(state.place) if lb != ix.current[item]),
                  key=lambda item: (-ix.cost[item], item))
    before = len(away) + 1
    while len(away) < before:  # one that goes back makes room for others
        before = len(away)
        away = [item for item in away if not _returned(state, item, limit)]


def _returned(state: Placement, item: int, limit: float) -> bool:
    ix = state.ix
    home = ix.current[item]
    if not state.may(item, home) or state.load[home] + ix.load[item] > limit * ix.capacity[home]:
        return False
    state.take(item)
    state.put(item, home)
    return True
