"""What no assignment can undercut: lower bounds of the highest relative load, each in O(n log n) or little more."""

from __future__ import annotations

import math
from itertools import accumulate

from lbctl.assignment.problem import Indexed


def lower_bound(ix: Indexed) -> float:
    """The best of the bounds below; 0 if there is no load."""
    return max(_largest(ix), _sets(ix), _fewest(ix), _pigeonhole(ix), 0.0)


def _largest(ix: Indexed) -> float:
    """Each external IP is on some LB: at best the largest it may be on."""
    widest = {members: max(ix.capacity[lb] for lb in members) for members in set(ix.members)}
    return max((load / widest[members] for load, members in zip(ix.load, ix.members, strict=True)), default=0.0)


def _sets(ix: Indexed) -> float:
    """The external IPs that may be nowhere but in a set of LBs share its capacity (the area bound, for each set that
    occurs, and for all LBs together)."""
    total: dict[frozenset[int], float] = {}
    for load, members in zip(ix.load, ix.members, strict=True):
        total[members] = total.get(members, 0.0) + load
    sets = {*total, frozenset().union(*total)} if total else set()
    if len(sets) > 200:  # comparing all with all would take too long
        sets = {frozenset().union(*total)}
    return max((math.fsum(load for inner, load in total.items() if inner <= outer)
                / math.fsum(ix.capacity[lb] for lb in outer)
                for outer in sets), default=0.0)


def _eligible(ix: Indexed) -> list[float]:
    """The capacities that any external IP may use, largest first."""
    return sorted((ix.capacity[lb] for lb in frozenset().union(*set(ix.members))), reverse=True)


def _fewest(ix: Indexed) -> float:
    """The k largest external IPs are on k LBs at most: at best the k largest."""
    loads = accumulate(sorted(ix.load, reverse=True))
    capacities = accumulate(_eligible(ix))
    return max((load / capacity for load, capacity in zip(loads, capacities, strict=False)), default=0.0)


def _pigeonhole(ix: Indexed) -> float:
    """With m LBs, k + 1 of the k m + 1 largest external IPs share one: at best the smallest of them, on the largest."""
    capacities, loads = _eligible(ix), sorted(ix.load, reverse=True)
    count, sums = len(capacities), [0.0, *accumulate(loads)]
    lasts = ((k, k * count + 1) for k in range(1, (len(loads) - 1) // count + 1 if count else 0))
    return max(((sums[last] - sums[last - k - 1]) / capacities[0] for k, last in lasts), default=0.0)
