"""The load of the experiment, computed from a seed: who asks how much when, and looks the name up when.

A *group* is the users behind one resolver (an office, a provider's customers): its resolver asks the name server, keeps
the first of the addresses that it is given for CACHED seconds, and all of its users go there. So a group is what
round-robin DNS spreads, and groups differ in size. In each phase they have other sizes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

EXTERNAL_IPS = 12
GROUPS = 24
PHASES = 3
CACHED = 30.0
"""Seconds that a resolver keeps an address."""
LOOKED_UP_FIRST = 0.1
"""Seconds between the first look-ups of two groups."""
SIZE = 20 * 1024
"""Bytes of an answer's body."""
ON_THE_WIRE = SIZE + 250 + 15 * 66
"""The same with its HTTP header and 15 frames' headers (Ethernet, IPv4, TCP with timestamps)."""
LINK = 3_000_000
"""Bytes/s that an LB's external port carries: 24 Mbit/s."""
UTILISATION = 0.65
"""Of all LBs' links together, in every phase."""


@dataclass(frozen=True)
class Shape:
    """seed: of sizes and arrivals. phase: seconds that a phase lasts. lbs: how many links there are."""

    seed: int
    phase: float
    lbs: int

    @property
    def seconds(self) -> float:
        return self.phase * PHASES

    def rate(self, group: int, phase: int) -> float:
        """Requests/s of a group: sizes go as 1/k (Zipf), shuffled anew for each phase."""
        ranks = random.Random(f"{self.seed} {phase}").sample(range(1, GROUPS + 1), GROUPS)
        total = UTILISATION * self.lbs * LINK / ON_THE_WIRE
        return total / ranks[group] / sum(1 / rank for rank in ranks)

    def requests(self, group: int) -> Iterator[float]:
        """When the group's users ask, in seconds from the beginning: a Poisson process of the phase's rate."""
        chance = random.Random(f"{self.seed} {group} requests")
        for phase in range(PHASES):
            rate, at = self.rate(group, phase), phase * self.phase
            while (at := at + chance.expovariate(rate)) < (phase + 1) * self.phase:
                yield at

    def look_ups(self, group: int) -> Iterator[float]:
        """When its resolver asks the name server; the first time before the beginning.

        No two groups ask at the same time, so that round-robin DNS gives the same addresses in every run.
        """
        yield (group - GROUPS) * LOOKED_UP_FIRST - 1.0
        at = (group + 0.5) * CACHED / GROUPS
        while at < self.seconds:
            yield at
            at += CACHED
