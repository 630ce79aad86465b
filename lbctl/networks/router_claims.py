"""Who says that a router on the external network has another MAC now is believed when it answers a question too, and
the MAC that was known does not: anybody there can send an ARP frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lbctl.values.addresses import Address

WAIT = 0.5
"""Seconds in which a question is answered."""

Place = tuple[str, Address]
"""An LB, and the router that it has heard of."""


@dataclass(slots=True)
class Claim:
    """mac: the new one, as text; answered: it has answered a question."""

    mac: str
    until: float
    answered: bool = False


class RouterClaims:
    """Those that are to be confirmed: one for each place at most."""

    def __init__(self) -> None:
        self._open: dict[Place, Claim] = {}

    def heard(self, place: Place, known: str, mac: str, answer: bool, now: float) -> bool:
        """That router has told this MAC; known: the one that is believed. answer: to a question. True: ask it, at the
        known MAC and at all."""
        claim = self._open.get(place)
        if mac == known:
            if claim and answer:
                del self._open[place]
            return False
        if claim is None:
            self._open[place] = Claim(mac, now + WAIT)
            return True
        claim.answered = claim.answered or answer and mac == claim.mac
        return False

    def confirmed(self, now: float) -> Iterator[tuple[Place, str]]:
        """The claims that have stood their time: the place, and its MAC from now on."""
        for place, claim in [item for item in self._open.items() if item[1].until <= now]:
            del self._open[place]
            if claim.answered:
                yield place, claim.mac
