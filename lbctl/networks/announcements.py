"""Gratuitous ARP (IPv6: unsolicited neighbour advertisements), repeated and paced: who answers for an external IP and
its gateway now.

Kernels before 4.13 ignore an update within a second of the last one (arp locktime), and a lost frame must not leave a
neighbour with the old address, so each announcement is made five times, 1.1 s apart. Switches limit ARP, and a burst
would be lost: of many external IPs those that have been announced least come first, then the busiest. As long as
packets for an external IP still come to another LB, it is announced again, slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lbctl.values.addresses import Address

TIMES = 5
SPACING = 1.1
AGAIN = 30.0
"""Seconds between announcements to those whom the first ones have not reached."""
BURST = 0.2
"""Seconds' worth of announcements that may be made at once."""


@dataclass(slots=True)
class Announced:
    """lb: that has it; at: when it is due; left: how often."""

    lb: str
    at: float
    left: int


class Announcements:
    """When which external IP is to be announced. Only its latest LB is announced."""

    def __init__(self, rate: Callable[[], float], weight: Callable[[Address], float]) -> None:
        """rate: external IPs a second. weight: how busy that one is."""
        self._rate, self._weight = rate, weight
        self._due: dict[Address, Announced] = {}
        self._last: dict[Address, float] = {}
        """When each that is due no more was announced last."""
        self._allowed, self._since = 0.0, float("-inf")
        """So many may be announced now, as of then."""

    def start(self, address: Address, lb: str, now: float) -> bool:
        """It is to be announced from now on. True: the first time is now, by the caller."""
        self._due[address] = Announced(lb, now, TIMES)
        if not self._may(now):
            return False
        self._done(address, now)
        return True

    def again(self, addresses: Iterable[tuple[Address, str]], now: float) -> None:
        """Packets for them, which that LB has, still come to others."""
        for address, lb in addresses:
            if address not in self._due and now >= self._last.get(address, float("-inf")) + AGAIN:
                self._due[address] = Announced(lb, now, 1)

    def due(self, now: float) -> list[tuple[Address, str]]:
        """What is to be announced now: (external IP, LB)."""
        ready = [address for address, item in self._due.items() if item.at <= now]
        ready.sort(key=lambda address: (-self._due[address].left, -self._weight(address)))
        found = []
        for address in ready:
            if not self._may(now):
                break
            found.append((address, self._due[address].lb))
            self._done(address, now)
        return found

    def _done(self, address: Address, now: float) -> None:
        item = self._due[address]
        item.at, item.left = now + SPACING, item.left - 1
        if not item.left:
            del self._due[address]
            self._last[address] = now

    def _may(self, now: float) -> bool:
        """One more? Then it counts as made (a token bucket)."""
        rate = self._rate()
        self._allowed = min(max(1.0, rate * BURST), self._allowed + (now - self._since) * rate)
        self._since = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True
