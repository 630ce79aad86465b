"""Gratuitous ARP (IPv6: unsolicited neighbour advertisements), repeated and paced: who answers for an external IP and
its gateway now.

Kernels before 4.13 ignore an update within a second of the last one (arp locktime), and a lost frame must not leave a
neighbour with the old address, so each announcement is made five times, 1.1 s apart. Switches limit ARP, and a burst
would be lost: of many external IPs those that have been announced least come first, then the busiest. Each round but
the first has an order of its own: a limit drops every second frame, say, and would drop the same ones again.

Whom none of these reached is told by the slow announcements that never end: sooner, if packets for an external IP still
come to another LB. Where that LB is dead, nobody sees them.
"""

from __future__ import annotations

import heapq
import itertools
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lbctl.values.addresses import Address

TIMES = 5
SPACING = 1.1
ASTRAY, ALWAYS = 30.0, 60.0
"""Seconds between announcements to those whom the first ones have not reached: while packets for it go astray, and in
any case (more, where SLOW asks for it)."""
SLOW = 0.25
"""The share of the rate that those have which never end: a switch that limits even this rate lets them through."""
BURST = 0.2
"""Seconds' worth of announcements that may be made at once."""


@dataclass(slots=True, eq=False)
class Announced:
    """lb: that has it; at: when it is due; left: how often, before it is announced slowly; last: when it was. ready: it
    is due, and waits for its turn."""

    lb: str
    at: float
    left: int
    last: float = float("-inf")
    ready: bool = False


class Announcements:
    """When which external IP is to be announced. Only its latest LB is announced."""

    def __init__(self, rate: Callable[[], float], weight: Callable[[Address], float]) -> None:
        """rate: external IPs a second. weight: how busy that one is."""
        self._rate, self._weight = rate, weight
        self._items: dict[Address, Announced] = {}
        self._serial = itertools.count()
        self._later: list[tuple[float, int, Address, Announced]] = []
        """A heap: when it is due. What has another time by now, or is not the external IP's latest, does not count."""
        self._ready: list[tuple[float, float, int, Address, Announced]] = []
        """A heap of those that are due, by their turns."""
        self._allowed, self._since = 0.0, float("-inf")
        """So many may be announced now, as of then."""
        self._slot = 0.0
        """When the last of the slow ones is due."""

    def start(self, address: Address, lb: str, now: float) -> bool:
        """It is to be announced from now on. True: the first time is now, by the caller."""
        item = self._items[address] = Announced(lb, now, TIMES)
        if not self._may(now):
            self._put_off(address, item, now)
            return False
        self._done(address, item, now)
        return True

    def again(self, addresses: Iterable[tuple[Address, str]], now: float) -> None:
        """Packets for them, which that LB has, still come to others."""
        for address, lb in addresses:
            item = self._items.get(address)
            if item is None:
                item = self._items[address] = Announced(lb, now, 1, now)
                self._put_off(address, item, now)
            elif not item.left and item.last + ASTRAY < item.at:
                self._put_off(address, item, item.last + ASTRAY)

    def forget(self, address: Address) -> None:
        """It is not to be announced, whoever has it."""
        self._items.pop(address, None)

    def due(self, now: float) -> list[tuple[Address, str]]:
        """What is to be announced now: (external IP, LB)."""
        while self._later and self._later[0][0] <= now:
            at, _, address, item = heapq.heappop(self._later)
            if self._items.get(address) is item and item.at == at and not item.ready:
                item.ready = True
                heapq.heappush(self._ready, (*self._turn(address, item), next(self._serial), address, item))
        found = []
        while self._ready:
            *_, address, item = self._ready[0]
            there = self._items.get(address) is item
            if there and not self._may(now):
                break
            heapq.heappop(self._ready)
            if there:
                found.append((address, item.lb))
                self._done(address, item, now)
        return found

    def _turn(self, address: Address, item: Announced) -> tuple[float, float]:
        """The least first."""
        if item.left == TIMES:
            return -TIMES, -self._weight(address)
        return -item.left, zlib.crc32(address.packed, int(item.last))

    def _done(self, address: Address, item: Announced, now: float) -> None:
        item.left, item.last, item.ready = max(0, item.left - 1), now, False
        at = now + SPACING
        if not item.left:
            at = self._slot = max(now + ALWAYS, self._slot + 1 / (SLOW * self._rate()))
        self._put_off(address, item, at)

    def _put_off(self, address: Address, item: Announced, at: float) -> None:
        item.at = at
        heapq.heappush(self._later, (at, next(self._serial), address, item))

    def _may(self, now: float) -> bool:
        """One more? Then it counts as made (a token bucket)."""
        rate = self._rate()
        self._allowed = min(max(2.0, rate * BURST), self._allowed + (now - self._since) * rate)
        self._since = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True
