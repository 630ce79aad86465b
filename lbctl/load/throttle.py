"""What the controller and a switch can bear: the external IP that most new connections come to is given a lower rate
while answers come late, and its rate back when they don't.

The rate of its meter goes down by much, and up by little, to below what was too much last. So a flood is turned away in
the switch before it delays what concerns others, however fast or slow the machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import Confirmation
from lbctl.openflow.messages import Barrier
from lbctl.openflow.meters import limit_new
from lbctl.values.addresses import Address

PERIOD = 0.1
"""Seconds between two looks."""
BUSY = 300.0
"""New connections a second of an LB below which nothing is asked, and to which nothing is limited."""
SLOW, QUICK = 0.2, 0.03
"""Seconds until a switch has confirmed: more is too late; less leaves room for more."""
MOMENT = 0.2
"""Seconds that it may be late at a stretch: what stood still for once has not had too much to do."""
LOWER, HIGHER = 0.6, 1.05
"""What a rate is multiplied by."""
SAFE, CREEP = 0.8, 1.01
"""A rate is raised to this share of the one that was too much; and what is taken for too much grows by so much."""
STEP = 1.0
"""Seconds between two higher rates."""
UNUSED, UNUSED_FOR = 0.5, 10.0
"""A limit that less than this share is used of, for so many seconds, is lifted."""
MEMORY = 0.5
"""Seconds over which requests are counted, about."""
LOST = 10.0
"""Seconds after which a confirmation is not waited for any more."""


@dataclass(slots=True)
class Limit:
    """In force for an external IP. too_much: the rate at which answers came late; changed: when it was last lowered or
    raised; used: when most of it was last used."""

    rate: float
    too_much: float
    changed: float
    used: float


class Throttle:
    """Of all external IPs."""

    def __init__(self, ground: Ground, take: Callable[[], Mapping[Serving, int]]) -> None:
        """take: the packets that would open a connection, by external IP, since it was last called."""
        self._ground, self._take = ground, take
        self._limits: dict[Address, Limit] = {}
        self._asked: dict[str, float] = {}
        """When an LB was asked for the confirmation that is awaited."""
        self._delays: dict[str, float] = {}
        """How long the last one took."""
        self._late: dict[str, float] = {}
        """Since when it has been late each time."""
        self._rates: Mapping[Serving, float] = {}
        self._draining: dict[str, float] = {}
        """Since when an LB has a lower rate, and what was under way before that has not come through."""
        self._looked_at = float("-inf")

    def limit(self, address: Address) -> float | None:
        """Connection requests a second that may reach the controller now, if that is less than the setting."""
        found = self._limits.get(address)
        return found.rate if found else None

    def tick(self, now: float) -> Outbox:
        """Asks busy switches how long they take, and lowers or raises one rate at a time."""
        elapsed = min(now - self._looked_at, LOST)
        if elapsed < PERIOD:
            return []
        self._looked_at = now
        rates = self._smoothed(self._take(), elapsed)
        busy = {serving.assigned for serving, rate in rates.items() if rate >= BUSY}
        busy |= {serving.assigned for address in self._limits if (serving := self._ground.external_ips.get(address))}
        if not busy and not self._limits:
            return []
        return self._ask(busy, now) + self._lower(rates, now) + self._raise(rates, now)

    def _smoothed(self, asked: Mapping[Serving, int], elapsed: float) -> Mapping[Serving, float]:
        """Requests a second of each external IP, over the last MEMORY seconds or so."""
        weight = min(1.0, elapsed / MEMORY)
        rates = {serving: rate * (1 - weight) for serving, rate in self._rates.items() if rate >= 1.0}
        for serving, count in asked.items():
            rate = count / elapsed
            rates[serving] = rates[serving] + rate * weight if serving in rates else rate
        self._rates = rates
        return rates

    def _ask(self, busy: set[str], now: float) -> Outbox:
        out: Outbox = []
        self._asked = {lb: at for lb, at in self._asked.items() if now < at + LOST}
        self._draining = {lb: at for lb, at in self._draining.items() if now < at + LOST}
        for lb in busy - self._asked.keys():
            switch = self._ground.switches.get(lb)  # another site file may have taken it away
            if switch and switch.ready:
                self._asked[lb] = now
                token = self._ground.tokens.new(Confirmation(lb, partial(self._told, lb, now)))
                out.append(ToSwitch(lb, Barrier(token)))
        return out

    def _told(self, lb: str, asked: float, now: float) -> Outbox:
        if self._asked.get(lb) != asked:
            return []
        del self._asked[lb]
        if lb not in self._draining:
            self._delays[lb] = now - asked
        elif asked >= self._draining[lb]:
            del self._draining[lb]
        return []

    def _delay(self, lb: str, now: float) -> float:
        if lb in self._draining:
            return 0.0
        return max(now - self._asked.get(lb, now), self._delays.get(lb, 0.0))

    def _lower(self, rates: Mapping[Serving, float], now: float) -> Outbox:
        """The rate of the external IP with most requests, of those whose switch is late."""
        busy = [serving for serving, rate in rates.items() if rate >= BUSY]
        self._late = {lb: self._late.get(lb, now) for lb in {serving.assigned for serving in busy}
                      if self._delay(lb, now) > SLOW}
        late = [serving for serving in busy if now >= self._late.get(serving.assigned, now) + MOMENT]
        if not late:
            return []
        serving = max(late, key=lambda each: rates[each])
        before = self._limits.get(serving.address)
        too_much = min(rates[serving], before.rate if before else rates[serving])
        rate = max(BUSY, LOWER * too_much)
        if before is None:
            self._ground.log("more new connections than can be served: limited", level="warning", lb=serving.assigned,
                             external_ip=str(serving.address), rate=round(rate))
        self._draining[serving.assigned] = now
        self._delays.pop(serving.assigned, None)
        return self._set(serving, Limit(rate, too_much, now, now))

    def _raise(self, rates: Mapping[Serving, float], now: float) -> Outbox:
        """Every rate whose switch is prompt; and lifts those that are not needed any more."""
        out: Outbox = []
        for address, limit in list(self._limits.items()):
            serving = self._ground.external_ips.get(address)
            if serving is None:
                del self._limits[address]
                continue
            if rates.get(serving, 0.0) > UNUSED * limit.rate:
                limit.used = now
            too_much, lb = limit.too_much * CREEP, serving.assigned
            rate = max(limit.rate, min(limit.rate * HIGHER, too_much * SAFE))
            prompt = lb not in self._draining and self._delay(lb, now) <= QUICK
            if now >= limit.used + UNUSED_FOR or prompt and rate >= self._ground.settings.new_rate:
                del self._limits[address]
                self._ground.log("new connections are not limited any more", lb=lb, external_ip=str(address))
                out += self._meter(serving, self._ground.settings.new_rate)
            elif prompt and now >= limit.changed + STEP:
                out += self._set(serving, Limit(rate, too_much, now, limit.used))
        return out

    def _set(self, serving: Serving, limit: Limit) -> Outbox:
        self._limits[serving.address] = limit
        return self._meter(serving, int(limit.rate))

    def _meter(self, serving: Serving, rate: int) -> Outbox:
        """At every LB: it may have been another that served it when the rate was set."""
        message = limit_new(serving.owner, rate)
        return [ToSwitch(switch.lb.name, message) for switch in self._ground.ready()]
