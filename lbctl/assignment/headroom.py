"""N-1: what becomes of the loads when any one LB is lost.

An assignment x has the headroom h if for each LB f there is an assignment y with y(i) = x(i) for all i not on f, y(i)
!= f, y(i) an LB that i may be on, and on each LB other than f a relative load of at most h. An external IP that may be
on f only is lost with it, and does not count. The loss of an empty LB counts: what the others have without it must be
within h too.

Here y is made by LPT: where that stays within h, the headroom is there; where it does not, a better y might exist.
"""

from __future__ import annotations

from lbctl.assignment.placement import Placement
from lbctl.assignment.problem import Indexed


def after_loss(ix: Indexed, place: list[int]) -> float:
    """The highest relative load after the loss of the LB whose loss is worst; infinite if an external IP would have
    nowhere to go."""
    state = Placement(ix, place)
    order = sorted((state.relative(lb), lb) for lb in range(len(ix.names)))
    alike: dict[float, list[int]] = {}
    for _, lb in order:
        alike.setdefault(ix.capacity[lb], []).append(lb)
    return max((_lost(state, lb, order[-2:], alike) for lb in range(len(ix.names))), default=0.0)


def _lost(state: Placement, failed: int, top: list[tuple[float, int]], alike: dict[float, list[int]]) -> float:
    """top: the two most loaded. alike: capacity -> the LBs that have it, the least loaded first."""
    ix, gained = state.ix, dict[int, float]()
    # What was together on one LB may be so again: for not_with, only those that stay matter. Of the LBs that are alike,
    # as many as there are external IPs to place, and the failed one, are enough: the others cannot be the best.
    few = [lb for lbs in alike.values() for lb in lbs[:len(state.on[failed]) + 1] if lb != failed]
    highest = max((relative for relative, lb in top if lb != failed), default=0.0)
    for load, item in reversed(state.on[failed]):
        if len(ix.allowed[item]) == 1:
            continue
        anywhere = not ix.enemies[item] and all(lb in ix.members[item] for lb in few)
        free = [lb for lb in (few if anywhere else ix.allowed[item]) if lb != failed and state.free(item, lb)]
        if not free:
            return float("inf")
        lb = min(free, key=lambda lb: ((state.load[lb] + gained.get(lb, 0.0) + load) / ix.capacity[lb], lb))
        gained[lb] = gained.get(lb, 0.0) + load
        highest = max(highest, (state.load[lb] + gained[lb]) / ix.capacity[lb])
    return highest
