"""Is it the LBs that have failed, or is the control function itself cut off from them?

Most LBs do not lose their OpenFlow connections at once: the management network does, or the control function's host, or
it was stopped for long. Such an outage is nobody's failure: all LBs forward on. Those that come back do so one after
the other (Open vSwitch tries every 1 to 8 s), and who comes first shall not take for lost who comes last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

PATIENCE = 15.0
"""Seconds in which all LBs should have connected again: Open vSwitch tries every 8 s at most."""
QUIET_ROUNDS = 20
"""Rounds of questions in which an LB that is reached says something, or has been taken for failed. Rounds are counted,
not seconds: a control function that was busy is not cut off."""


class Outage:
    """Of one control function, from round to round."""

    def __init__(self) -> None:
        self.since: float | None = None
        """When most LBs were lost. None: they are there."""
        self._quiet: Counter[str] = Counter()
        """By LB that is connected: rounds in which it has said nothing."""
        self._lost: dict[str, float] = {}
        """LBs that were lost in the last outage and are not back, and since when to wait for each."""

    def round(self, connected: Set[str], heard: Set[str], missing: Set[str], now: float) -> bool:
        """connected: LBs that are. heard: those that have said something in the round that ends. missing: LBs that were
        connected and are not. None of them is known to have failed. Has the outage begun or ended?"""
        self._quiet = Counter({name: self._quiet[name] + 1 for name in connected - heard})
        lost = missing | {name for name, rounds in self._quiet.items() if rounds >= QUIET_ROUNDS}
        reached = connected - lost
        before = self.since
        if len(lost) > len(reached):
            self.since = now if before is None else before
            for name in lost:
                self._lost.setdefault(name, now)
            if not reached:  # nobody could take anything over
                self._lost = dict.fromkeys(self._lost, now)
        else:
            self.since = None
        self._lost = {name: since for name, since in self._lost.items() if name in lost}
        return (before is None) is not (self.since is None)

    def waits_for(self, name: str, now: float) -> bool:
        """Was that LB lost in an outage, and may it still come back by itself?"""
        return name in self._lost and now < self._lost[name] + PATIENCE
