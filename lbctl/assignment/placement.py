"""An assignment while it is being changed: who is where, sorted by load on each LB, and which LB has how much."""

from __future__ import annotations

from bisect import bisect_left, insort

from lbctl.assignment.problem import Indexed

NOWHERE = -1


class Placement:
    """place: external IP -> LB or NOWHERE; load: of each LB; on: for each LB, its (load, external IP), ascending."""

    def __init__(self, ix: Indexed, place: list[int]) -> None:
        self.ix = ix
        self.place = list(place)
        self.on: list[list[tuple[float, int]]] = [[] for _ in ix.names]
        for item, lb in enumerate(place):
            if lb != NOWHERE:
                self.on[lb].append((ix.load[item], item))
        for each in self.on:
            each.sort()
        self.load = [sum(load for load, _ in each) for each in self.on]

    def take(self, item: int) -> None:
        lb, load = self.place[item], self.ix.load[item]
        held = self.on[lb]
        del held[bisect_left(held, (load, item))]
        self.load[lb] -= load
        self.place[item] = NOWHERE

    def put(self, item: int, lb: int) -> None:
        load = self.ix.load[item]
        insort(self.on[lb], (load, item))
        self.load[lb] += load
        self.place[item] = lb

    def free(self, item: int, lb: int, but: int = NOWHERE) -> bool:
        """It may be there, as far as the others there are concerned; `but` is about to leave."""
        enemies = self.ix.enemies[item]
        return not enemies or all(other == but or self.place[other] != lb for other in enemies)

    def may(self, item: int, lb: int, but: int = NOWHERE) -> bool:
        return lb in self.ix.members[item] and self.free(item, lb, but)

    def relative(self, lb: int) -> float:
        return self.load[lb] / self.ix.capacity[lb]

    def highest(self) -> float:
        return max(map(self.relative, range(len(self.load))))
