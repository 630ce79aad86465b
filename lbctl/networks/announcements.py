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


@dataclass(slots=True)
class Announced:
    """lb: that has it; at: when it is due; left: how often, before it is announced slowly; last: when it was."""

    lb: str
    at: float
    left: int
    last: float = float("-inf")


class Announcements:
    """When which external IP is to be announced. Only its latest LB is announced."""

    def __init__(self, rate: Callable[[], float], weight: Callable[[Address], float]) -> None:
        """rate: external IPs a second. weight: how busy that one is."""
        self._rate, self._weight = rate, weight
        self._items: dict[Address, Announced] = {}
        self._allowed, self._since = 0.0, float("-inf")
        """So many may be announced now, as of then."""
        self._slot = 0.0
        """When the last of the slow ones is due."""

    def start(self, address: Address, lb: str, now: float) -> bool:
        """It is to be announced from now on. True: the first time is now, by the caller."""
        item = self._items[address] = Announced(lb, now, TIMES)
        if not self._may(now):
            return False
        self._done(item, now)
        return True

    def again(self, addresses: Iterable[tuple[Address, str]], now: float) -> None:
        """Packets for them, which that LB has, still come to others."""
        for address, lb in addresses:
            item = self._items.setdefault(address, Announced(lb, now, 1, now))
            if not item.left:
                item.at = min(item.at, item.last + ASTRAY)

    def forget(self, address: Address) -> None:
        """It is not to be announced, whoever has it."""
        self._items.pop(address, None)

    def due(self, now: float) -> list[tuple[Address, str]]:
        """What is to be announced now: (external IP, LB)."""
        ready = [(self._turn(address, item), address, item) for address, item in self._items.items() if item.at <= now]
        ready.sort(key=lambda each: each[0])
        found = []
        for _, address, item in ready:
            if not self._may(now):
                break
            found.append((address, item.lb))
            self._done(item, now)
        return found

    def _turn(self, address: Address, item: Announced) -> tuple[float, float]:
        """The least first."""
        if item.left == TIMES:
            return -TIMES, -self._weight(address)
        return -item.left, zlib.crc32(address.packed, int(item.last))

    def _done(self, item: Announced, now: float) -> None:
        item.left, item.last = max(0, item.left - 1), now
        item.at = now + SPACING
        if not item.left:
            item.at = self._slot = max(now + ALWAYS, self._slot + 1 / (SLOW * self._rate()))

    def _may(self, now: float) -> bool:
        """One more? Then it counts as made (a token bucket)."""
        rate = self._rate()
        self._allowed = min(max(2.0, rate * BURST), self._allowed + (now - self._since) * rate)
        self._since = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True
