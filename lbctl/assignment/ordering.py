"""The order of a plan's moves: no LB is above both what it had before and what it has after, as far as an order can do
that.

A move waits until its target has room. If all wait (a swap: two that must change places), the one goes that exceeds
least.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from lbctl.assignment.problem import Indexed

SLACK = 1e-9
"""Relative; for the rounding of sums."""


def ordered(ix: Indexed, target: list[int]) -> list[int]:
    """The external IPs to move, by their numbers, in order; those on the most loaded LBs are preferred."""
    return _Ordering(ix, target).run()


class _Ordering:
    def __init__(self, ix: Indexed, target: list[int]) -> None:
        self._ix, self._target = ix, target
        self._place = list(ix.current)
        before, after = ix.loads(ix.current), ix.loads(target)
        self._room = [max(had, gets) * (1 + SLACK) for had, gets in zip(before, after, strict=True)]
        self._now = before
        self._waiting: list[list[tuple[float, int]]] = [[] for _ in ix.names]
        """For each LB, a heap of what is to go there: load, number."""
        for item, lb in enumerate(target):
            if lb != ix.current[item]:
                heappush(self._waiting[lb], (ix.load[item], item))

    def run(self) -> list[int]:
        done: list[int] = []
        count = sum(map(len, self._waiting))
        ready: list[tuple[float, int]] = []
        for lb in range(len(self._room)):
            self._offer(lb, ready)
        while len(done) < count:
            item = self._next(ready)
            if item is None:
                item = self._least_harm()
            source, lb = self._place[item], self._target[item]
            self._place[item] = lb
            self._now[source] -= self._ix.load[item]
            self._now[lb] += self._ix.load[item]
            done.append(item)
            self._offer(source, ready)
        return done

    def _offer(self, lb: int, ready: list[tuple[float, int]]) -> None:
        """What fits there now becomes ready; the rest goes on waiting."""
        kept = []
        heap = self._waiting[lb]
        while heap and self._now[lb] + heap[0][0] <= self._room[lb]:
            load, item = heappop(heap)
            if self._free(item, lb):
                source = self._place[item]
                heappush(ready, (-self._now[source] / self._ix.capacity[source], item))
            else:
                kept.append((load, item))
        for each in kept:
            heappush(heap, each)

    def _next(self, ready: list[tuple[float, int]]) -> int | None:
        """One that is ready, and still is: others may have gone to the same LB since."""
        while ready:
            _, item = heappop(ready)
            lb = self._target[item]
            if self._now[lb] + self._ix.load[item] <= self._room[lb]:
                return item
            heappush(self._waiting[lb], (self._ix.load[item], item))
        return None

    def _free(self, item: int, lb: int) -> bool:
        return all(self._place[other] != lb for other in self._ix.enemies[item])

    def _least_harm(self) -> int:
        """Of those waiting, the one whose going exceeds the least, relative to its target's capacity; those that would
        meet one that they must not be with come last."""
        best: tuple[bool, float, int] | None = None
        for lb, heap in enumerate(self._waiting):
            for load, item in (heap[:1] if heap and self._free(heap[0][1], lb) else heap):
                harm = (not self._free(item, lb), (self._now[lb] + load - self._room[lb]) / self._ix.capacity[lb], item)
                best = harm if best is None else min(best, harm)
        assert best is not None
        item = best[2]
        heap = self._waiting[self._target[item]]
        heap.remove((self._ix.load[item], item))
        heapify(heap)
        return item
