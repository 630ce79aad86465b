"""How much each external IP carries, from the counters of the flows that its packets pass in table transfer_mode.

One request for each LB and period reads those of its own external IPs, or of all after its own have changed: every
packet of an external IP meets exactly one of its flows there, whichever way it goes. (The access table would tell the
same by a request for each external IP, but Open vSwitch would look at every entry for each of them.)

A flow that takes another's place, as when the transfer mode changes, goes on with its counters (OpenFlow 1.4.0 6.4:
no OFPFF_RESET_COUNTS). What counters say at first is where they start, not what has just been carried; where they
have shrunk, the switch was restarted, and they started from zero. What an external IP carries is the sum over all
LBs, so a move makes no gap.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MARK, MASK_KIND, MASK_MARK, Kind, owner_in
from lbctl.openflow.inbound import FlowStats, decode_flow_stats
from lbctl.openflow.messages import ReadFlows
from lbctl.site.model import PACKETS_PER_CONNECTION
from lbctl.switches.switch import Switch
from lbctl.values.portions import portions

TABLE = "transfer_mode"
AT_ONCE = 500
"""External IPs that are counted or smoothed at a tick, about: of a larger site, others follow with the next one."""
PERIODS = 3.0
"""Periods after which a change has gone into the smoothed value by 1 - 1/e."""
UNANSWERED = 3
"""Periods after which an LB is asked again though it has not answered."""
ASKED_AT_ONCE = 25
"""LBs that are asked at a tick, at most: their answers come together."""


class Load(NamedTuple):
    """Of an external IP, or of all of an LB's: rates per second, both directions together."""

    packets: float = 0.0
    bytes: float = 0.0
    opened: float = 0.0

    def __add__(self, other: Load) -> Load:  # type: ignore[override]
        return Load(self.packets + other.packets, self.bytes + other.bytes, self.opened + other.opened)

    def towards(self, other: Load, share: float) -> Load:
        """A share (0 to 1) of the way to the other."""
        return Load(
            self.packets + share * (other.packets - self.packets),
            self.bytes + share * (other.bytes - self.bytes),
            self.opened + share * (other.opened - self.opened),
        )


@dataclass(slots=True)
class AskedLb:
    """A request under way to that LB, or its answer that has not been counted. served: Switch.served_version then."""

    lb: str
    token: int
    at: float
    served: int
    found: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Owner -> packets, bytes."""


@dataclass(slots=True)
class Reading:
    """What an LB has said last. served: Switch.served_version then; counts: owner -> packets, bytes, as last read;
    rates: owner -> packets/s, bytes/s since the reading before."""

    at: float
    served: int
    counts: dict[int, tuple[int, int]]
    rates: dict[int, tuple[float, float]]


@dataclass(slots=True)
class Smoothed:
    """One external IP's. opened: connections, as of the last smoothing."""

    load: Load | None
    opened: int


class Loads:
    """Of all external IPs of a control function."""

    def __init__(self, ground: Ground, decode: Callable[[bytes], Iterable[FlowStats]] = decode_flow_stats) -> None:
        self._ground, self._decode = ground, decode
        self.totals: Counter[tuple[str, int, str]] = Counter()
        """(LB, owner, packets or bytes) -> counted since the control function started."""
        self._asked: dict[str, AskedLb] = {}
        """LB -> what has not been answered."""
        self._readings: dict[str, Reading] = {}
        self._smoothed: dict[int, Smoothed] = {}
        self._work: deque[Iterator[int]] = deque()
        """Readings to be counted and loads to be smoothed, one after the other; each tells how many external IPs it has
        gone through since it told last."""
        self.version = 0
        """Another one once the loads are others."""
        self._next = float("-inf")
        self._then = 0.0
        self._to_ask: deque[str] = deque()
        """LBs that are still to be asked in this period."""

    @property
    def _period(self) -> float:
        """Seconds."""
        return self._ground.settings.load_period

    def tick(self, now: float) -> Outbox:
        """To be called often: smooths what has come in, and asks again, once in a period."""
        switches = self._ground.switches
        self._go_on()
        if now >= self._next and not self._work:
            if self._next > float("-inf"):
                self._work.append(self._smooth(list(self._ground.external_ips), now - self._then, now))
            self._next, self._then = max(self._next + self._period, now), now
            for asked in [asked for asked in self._asked.values() if now - asked.at >= UNANSWERED * self._period]:
                self._ground.tokens.cancel(asked.token)
                del self._asked[asked.lb]
            self._to_ask = deque(name for name in switches if name not in self._asked)
        out: Outbox = []
        while self._to_ask and len(out) < ASKED_AT_ONCE:
            name = self._to_ask.popleft()
            if name in switches and switches[name].ready:
                out.append(self._question(switches[name], now))
        return out

    def _go_on(self) -> None:
        """Counts and smooths, as much as there may be at once."""
        left = AT_ONCE
        while self._work and left > 0:
            done = next(self._work[0], None)
            if done is None:
                self._work.popleft()
            left -= done or 0

    def _question(self, switch: Switch, now: float) -> ToSwitch:
        """The flows of external IPs that it does not serve count next to nothing, but are many in a large site. What
        they count belongs to the load when it has served one until now, or does so from now on."""
        name, served = switch.lb.name, switch.served_version
        token = self._ground.tokens.new(FlowsAnswer(name, partial(self._answered, name)))
        self._asked[name] = AskedLb(name, token, now, served)
        if name in self._readings and self._readings[name].served == served:
            return ToSwitch(name, ReadFlows(TABLE, MARK << 56 | Kind.MODE << 48, MASK_KIND, token))
        return ToSwitch(name, ReadFlows(TABLE, MARK << 56, MASK_MARK, token))

    def _answered(self, lb: str, body: bytes, more: bool, now: float) -> Outbox:
        """One part of the answer to the question to that LB."""
        asked = self._asked[lb]
        for flow in self._decode(body):
            packets, size = asked.found.get(owner_in(flow.cookie), (0, 0))
            asked.found[owner_in(flow.cookie)] = packets + flow.packets, size + flow.bytes
        if not more:
            self._work.append(self._count(asked, now))
        return []

    def _count(self, asked: AskedLb, now: float) -> Iterator[int]:
        """What has been read at that time."""
        before = self._readings.get(asked.lb) or Reading(now - self._period, asked.served, asked.found, {})
        elapsed = max(now - before.at, self._period / 2)
        rates: dict[int, tuple[float, float]] = {}
        for some in portions(asked.found.items(), AT_ONCE):
            for owner, counts in some:
                old = before.counts.get(owner, (0, 0))
                packets, size = (
                    counts if counts[0] < old[0] or counts[1] < old[1] else (counts[0] - old[0], counts[1] - old[1])
                )
                self.totals[asked.lb, owner, "packets"] += packets
                self.totals[asked.lb, owner, "bytes"] += size
                rates[owner] = packets / elapsed, size / elapsed
                before.counts[owner] = counts
            yield len(some)
        if self._asked.get(asked.lb) is asked:
            del self._asked[asked.lb]
        self._readings[asked.lb] = Reading(now, asked.served, before.counts, rates)

    def _smooth(self, servings: Sequence[Serving], seconds: float, now: float) -> Iterator[int]:
        """Some after the others; they count once all are known."""
        share = 1.0 - math.exp(-seconds / (PERIODS * self._period))
        smoothed: dict[int, Smoothed] = {}
        rates: dict[int, tuple[float, float]] = {}
        yield from self._rates(rates, now)
        for some in portions(servings, AT_ONCE):
            for serving in some:
                before = self._smoothed.get(serving.owner) or Smoothed(None, serving.opened)
                packets, size = rates.get(serving.owner, (0.0, 0.0))
                load = Load(packets, size, (serving.opened - before.opened) / seconds)
                if before.load:
                    load = before.load.towards(load, share)
                smoothed[serving.owner] = Smoothed(load, serving.opened)
            yield len(some)
        self._smoothed = smoothed
        self.version += 1

    def _rates(self, sums: dict[int, tuple[float, float]], now: float) -> Iterator[int]:
        """Fills in those of each owner, over all LBs, as of the last readings. The LB that has it counts also when it
        can't be read: it goes on forwarding."""
        by_owner = self._ground.external_ips.by_owner
        for lb, reading in list(self._readings.items()):
            recent = now - reading.at < 2 * self._period
            for some in portions(list(reading.rates.items()), AT_ONCE):
                for owner, (packets, size) in some:
                    serving = None if recent else by_owner.get(owner)
                    if recent or serving and serving.assigned == lb:
                        before = sums.get(owner, (0.0, 0.0))
                        sums[owner] = before[0] + packets, before[1] + size
                yield len(some)

    def weight(self, serving: Serving) -> float:
        """What an external IP costs its LB now: packets a second, and what new connections cost in packets."""
        load = self.of(serving)
        return load.packets + PACKETS_PER_CONNECTION * load.opened

    def by_lb(self) -> dict[str, float]:
        """What each LB carries: the sum of its external IPs' weights."""
        weights = dict.fromkeys(self._ground.switches, 0.0)
        for serving in self._ground.external_ips:
            load = self.of(serving)
            weights[serving.assigned] += load.packets + PACKETS_PER_CONNECTION * load.opened
        return weights

    def of(self, serving: Serving) -> Load:
        """What it carries now, smoothed."""
        found = self._smoothed.get(serving.owner)
        return found.load or Load() if found else Load()
