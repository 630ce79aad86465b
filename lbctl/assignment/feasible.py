"""An assignment that is allowed, as near to the current one as comes easily: the start of every search.

Without `not_with` each external IP can be placed for itself. With it this is list colouring of a graph, which is
NP-hard in general: few steps settle what people write in practice, and a bounded search with backtracking the rest.
"""

from __future__ import annotations

from lbctl.assignment.placement import NOWHERE, Placement
from lbctl.assignment.problem import Indexed, Unassignable
from lbctl.values.addresses import Address

STEPS = 50_000


def kept(ix: Indexed) -> list[int]:
    """The current assignment, NOWHERE for those that must not stay. Raises Unassignable."""
    place = [lb if lb in members else NOWHERE for lb, members in zip(ix.current, ix.members, strict=True)]
    bound = [item for item, enemies in enumerate(ix.enemies) if enemies]
    # The costlier stays.
    for item in sorted(bound, key=lambda each: (-ix.cost[each], each)):
        rivals = [other for other in ix.enemies[item] if place[other] == place[item] != NOWHERE]
        for other in rivals:
            place[other] = NOWHERE
    loose = [item for item in bound if place[item] == NOWHERE]
    if not loose:
        return place
    state = Placement(ix, place)
    for item in sorted(loose, key=lambda each: (len(ix.allowed[each]), -len(ix.enemies[each]), each)):
        free = [lb for lb in ix.allowed[item] if state.free(item, lb)]
        if not free:
            return _coloured(ix, place, bound)
        state.put(item, min(free, key=lambda lb: ((state.load[lb] + ix.load[item]) / ix.capacity[lb], lb)))
    return state.place


def _coloured(ix: Indexed, place: list[int], bound: list[int]) -> list[int]:
    """All that have enemies, placed anew: the one with the fewest LBs left is next (DSATUR); the current LB is tried
    first."""
    place = [NOWHERE if ix.enemies[item] else lb for item, lb in enumerate(place)]
    left = {item: set(ix.allowed[item]) for item in bound}
    trail: list[tuple[int, list[int], list[int]]] = []  # external IP, LBs still to try, those that lost its LB by it
    item, options = _next(ix, left, place)
    for _ in range(STEPS):
        if not options:
            if not trail:
                raise Unassignable(_reason(ix, bound, "cannot all be apart on the load balancers that they may be on"))
            item, options, struck = trail.pop()
            for other in struck:
                left[other].add(place[item])
            place[item] = NOWHERE
            continue
        lb = options.pop()
        place[item] = lb
        struck = [other for other in ix.enemies[item] if place[other] == NOWHERE and lb in left[other]]
        for other in struck:
            left[other].discard(lb)
        trail.append((item, options, struck))
        if len(trail) == len(bound):
            return place
        item, options = _next(ix, left, place)
    raise Unassignable(_reason(ix, bound, f"were not found places apart in {STEPS} steps"))


def _next(ix: Indexed, left: dict[int, set[int]], place: list[int]) -> tuple[int, list[int]]:
    """The next external IP to place, and its LBs, the one to try first at the end."""
    item = min((each for each in left if place[each] == NOWHERE),
               key=lambda each: (len(left[each]), -len(ix.enemies[each]), each))
    return item, sorted(left[item], key=lambda lb: (lb == ix.current[item], ix.capacity[lb], -lb))


def _reason(ix: Indexed, bound: list[int], what: str) -> str:
    """Names the first few: those with the fewest LBs."""
    tightest = sorted(bound, key=lambda each: (len(ix.allowed[each]), each))[:5]
    some: list[Address] = [ix.addresses[item] for item in tightest]
    more = f" and {len(bound) - 5} more" if len(bound) > 5 else ""
    return f"by not_with, {', '.join(map(str, some))}{more} {what}"
