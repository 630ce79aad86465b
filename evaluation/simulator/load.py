"""A synthetic day: what each external IP carries, and which LBs fail when. All of it follows from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[Any]
"""One for each external IP, or for each LB."""
HOUR, DAY = 3600.0, 86400.0
UTILISATION = 0.6
"""Of all LBs together, at the busiest time of the day, flash crowds aside."""
SPREAD = 0.7
"""Of the sizes of external IPs: log-normal, so that the largest of 10 000 has some 15 times the median."""
REGIONS = ((0.5, 20.0), (0.3, 12.0), (0.2, 4.0))
"""(share of the external IPs, hour at which they are busiest)"""
SWING = 0.6
"""Busiest and quietest hour are so much above and below the mean."""
DRIFT, DRIFT_TIME = 0.2, 1200.0
"""Standard deviation and correlation time (s) of the slow noise, of the load's logarithm."""
JITTER = 0.1
"""Standard deviation of the fast noise, new in every step."""
CROWDS, CROWD_RISE, CROWD_FALL = 60, 120.0, 1200.0
"""Flash crowds in a day; seconds to the peak, and in which a crowd shrinks to 1/e."""
CROWD_SIZE = (0.2, 0.8)
"""At its peak, of the smallest LB's capacity."""
FAILURES, REPAIR = 20, (300.0, 3600.0)
"""LBs that fail in a day, each at some time, and seconds until it is back."""
UNIT = 100_000.0
"""Of the loads: what an LB of capacity 1 can carry (packets/s, new connections in their terms)."""
WEIGHTS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Outage:
    """An LB (by its number) that has failed; seconds from the beginning of the day."""

    lb: int
    begin: float
    end: float


class Day:
    """What is computed from a seed.

    lbs, external_ips: how many. capacity: of each LB, in the loads' unit. mean: of each external IP over the day,
    without crowds.
    """

    def __init__(self, lbs: int, external_ips: int, seed: int) -> None:
        self._chance = chance = np.random.default_rng(seed)
        self.capacity = chance.choice(WEIGHTS, lbs) * UNIT
        sizes = chance.lognormal(0.0, SPREAD, external_ips)
        self._busiest = chance.choice(
            [hour * HOUR for _, hour in REGIONS], external_ips, p=[share for share, _ in REGIONS]
        )
        busiest = max(float((sizes * self._rhythm(hour * HOUR)).sum()) for hour in range(24))
        self.mean = sizes * (UTILISATION * float(self.capacity.sum()) / busiest)
        scale = (lbs * external_ips / 1e7) ** 0.5  # a smaller site has fewer of them
        crowds, failures = max(1, round(CROWDS * scale)), max(1, round(FAILURES * scale))
        self._crowds = list(
            zip(
                chance.integers(external_ips, size=crowds),
                chance.uniform(0, DAY, crowds),
                chance.uniform(*CROWD_SIZE, crowds) * float(self.capacity.min()),
                strict=True,
            )
        )
        self.outages = sorted(
            (
                Outage(int(lb), float(begin), float(begin + seconds))
                for lb, begin, seconds in zip(
                    chance.choice(lbs, min(failures, lbs), replace=False),
                    chance.uniform(0, DAY, failures),
                    chance.uniform(*REPAIR, failures),
                    strict=False,
                )
            ),
            key=lambda outage: outage.begin,
        )
        self._drift = chance.normal(0.0, DRIFT, external_ips)
        self._at = 0.0

    def step(self, at: float) -> Numbers:
        """The load of each external IP now.

        To be called with ascending times, in seconds from the beginning of the day.
        """
        keep = math.exp(-(at - self._at) / DRIFT_TIME)
        self._at = at
        count = len(self.mean)
        self._drift = keep * self._drift + math.sqrt(1 - keep * keep) * self._chance.normal(0.0, DRIFT, count)
        noise = np.exp(self._drift - DRIFT * DRIFT / 2) * np.exp(
            self._chance.normal(-JITTER * JITTER / 2, JITTER, count)
        )
        load: Numbers = self.mean * self._rhythm(at) * noise
        for external_ip, begin, size in self._crowds:
            load[external_ip] += size * _crowd(at - begin)
        return load

    def _rhythm(self, at: float) -> Numbers:
        rhythm: Numbers = 1 + SWING * np.cos((at - self._busiest) * (2 * math.pi / DAY))
        return rhythm


def _crowd(age: float) -> float:
    """From 0 to 1 and back, by its age in seconds."""
    if age < 0:
        return 0.0
    return age / CROWD_RISE if age < CROWD_RISE else math.exp(-(age - CROWD_RISE) / CROWD_FALL)
