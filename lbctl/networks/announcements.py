"""Gratuitous ARP (IPv6: unsolicited neighbour advertisements), repeated: who answers for an external IP and its
gateway now.

Kernels before 4.13 ignore an update within a second of the last one (arp locktime), and a lost frame must not leave a
neighbour with the old address, so each announcement is made five times, 1.1 s apart.
"""

from __future__ import annotations

from lbctl.values.addresses import Address

TIMES = 5
SPACING = 1.1


class Announcements:
    """When which external IP is to be announced. Only its latest LB is announced."""

    def __init__(self) -> None:
        self._due: dict[Address, tuple[str, float, int]] = {}

    def start(self, address: Address, lb: str, now: float) -> None:
        """The caller announces once itself, now; the rest becomes due."""
        self._due[address] = (lb, now + SPACING, TIMES - 1)

    def stop(self, address: Address) -> None:
        self._due.pop(address, None)

    def due(self, now: float) -> list[tuple[Address, str]]:
        """What is to be announced now: (external IP, LB)."""
        ready = [(address, lb) for address, (lb, at, _) in self._due.items() if at <= now]
        for address, lb in ready:
            left = self._due[address][2] - 1
            if left:
                self._due[address] = (lb, now + SPACING, left)
            else:
                del self._due[address]
        return ready
