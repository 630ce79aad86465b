"""Whom an LB hears: which of the next hops and routers whose MACs it knows still answer ARP and neighbour discovery."""

from __future__ import annotations

from collections.abc import Set

from lbctl.values.addresses import Address

QUESTIONS, SECONDS = 3, 3.0
"""One that has answered none of so many questions, in so many seconds, is silent (Linux asks three times, a second
apart: RFC 4861 10, MAX_UNICAST_SOLICIT)."""
DOUBT = 0.5
"""Seconds after which a question should have been answered."""


class Hearing:
    """Times are the caller's clock in seconds."""

    def __init__(self) -> None:
        self._asked: dict[Address, tuple[float, int]] = {}
        """Who has not answered: when it was asked first since it last did, and how often."""
        self._silent: set[Address] = set()

    @property
    def silent(self) -> Set[Address]:
        """Who has not answered for so long that nothing new is sent there."""
        return self._silent

    def asked(self, address: Address, now: float) -> bool:
        """A question goes out. Is that one silent from now on?"""
        since, times = self._asked.get(address, (now, 0))
        self._asked[address] = since, times + 1
        if address in self._silent or times < QUESTIONS or now < since + SECONDS:
            return False
        self._silent.add(address)
        return True

    def heard(self, address: Address) -> bool:
        """It has told its MAC. Was it silent?"""
        self._asked.pop(address, None)
        if address not in self._silent:
            return False
        self._silent.discard(address)
        return True

    def doubtful(self, now: float) -> list[Address]:
        """Who has not answered the last question, though there was time."""
        return [address for address, (since, _) in self._asked.items() if now >= since + DOUBT]

    def forget(self) -> None:
        """The LB itself was away."""
        self._asked.clear()
        self._silent.clear()
