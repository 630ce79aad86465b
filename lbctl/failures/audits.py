"""Whether the LBs' switches hold what they were ordered to: looked at now and then, and as soon as one has refused
something; what is not as it should be is put right, and told.

An order that a switch has refused is tried again, less and less often, until it takes it: until then that LB is not fit
to get external IPs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from lbctl.ground.effects import Outbox, ToSwitch, to_switch
from lbctl.ground.ground import Ground
from lbctl.ground.tokens import Confirmation, FlowsAnswer
from lbctl.openflow.errors import Refusal
from lbctl.openflow.messages import Barrier, ReadFlows
from lbctl.openflow.tables import TABLES
from lbctl.switches.comparison import Comparison, Look
from lbctl.switches.readback import ACCESS_TABLES, RULES
from lbctl.switches.switch import Switch

PERIOD = 30.0
"""Seconds in which each LB is looked at once."""
STEPS = 10
"""Portions that are compared at a tick (switches/comparison.py)."""
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds until an LB is looked at again that has refused something; doubled each time."""


@dataclass(slots=True)
class Audit:
    """One look at all tables of one LB. tokens: of the questions. compared: how many tables have been. wrong: by
    table, flows that were not as ordered; foreign: flows of others. refused: has it refused something meanwhile?"""

    after_refusal: bool
    tokens: list[int] = field(default_factory=list)
    compared: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    refused: bool = False


@dataclass(slots=True)
class Retry:
    """Of an LB that has refused something. due: when to look at it; None: it has taken all since. wait: seconds until
    it is looked at once more. since: when this began."""

    due: float | None
    wait: float
    since: float


class Audits:
    """Of all LBs."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._started = float("-inf")
        self._size = 0
        self._to_look_at: deque[str] = deque()
        """What is left of this round."""
        self._running: dict[str, Audit] = {}
        self._retries: dict[str, Retry] = {}
        """By LB."""
        self._looks: dict[tuple[str, str], Look] = {}
        """LB and table -> how it looked last."""
        self._comparing: deque[tuple[Switch, Audit, Iterator[Outbox]]] = deque()
        """Tables that have been answered, in the order of their turns."""

    # Refusals.

    def refused(self, switch: Switch, refusal: Refusal, now: float) -> Outbox:
        """The switch has refused an order."""
        name = switch.lb.name
        if switch.refusal is None or switch.refusal.what != refusal.what:
            self._ground.log("refused by the switch", level="error", lb=name, reason=str(refusal), hint=refusal.mend)
        switch.refusal = refusal
        if audit := self._running.get(name):
            audit.refused = True
        retry = self._retries.setdefault(name, Retry(now + FIRST_RETRY, FIRST_RETRY, now))
        if retry.due is None:
            retry.wait = min(2 * retry.wait, LAST_RETRY)
            retry.due = now + retry.wait
        return [] if refusal.of_entry else self._ground.tokens.refused(name, f"{name}: {refusal}", now)

    def connected(self, switch: Switch) -> None:
        """How it looked before says nothing any more."""
        name = switch.lb.name
        self._looks = {place: look for place, look in self._looks.items() if place[0] != name}
        self._running.pop(name, None)

    def made_whole(self, switch: Switch) -> Outbox:
        """It has been sent what it missed: does it confirm that?"""
        return [self._ask_for_confirmation(switch)]

    def _ask_for_confirmation(self, switch: Switch) -> ToSwitch:
        """Of all that it has been sent until now."""
        confirmation = Confirmation(switch.lb.name, partial(self._holds, switch))
        return ToSwitch(switch.lb.name, Barrier(self._ground.tokens.new(confirmation)))

    def _holds(self, switch: Switch, now: float) -> Outbox:
        """All that it was sent has been done, and nothing of it refused."""
        if switch.refusal:
            self._ground.log("the switch refuses nothing any more", lb=switch.lb.name)
        switch.confirmed, switch.refusal = True, None
        if retry := self._retries.get(switch.lb.name):
            retry.due, retry.since = None, now
        return []

    # Looking.

    def tick(self, now: float) -> Outbox:
        """To be called often."""
        switches = self._ground.switches
        self._retries = {name: retry for name, retry in self._retries.items() if name in switches
                         and switches[name].ready and (retry.due is not None or now < retry.since + 2 * LAST_RETRY)}
        out: Outbox = []
        for name, retry in self._retries.items():
            if retry.due is not None and now >= retry.due and switches[name].whole:
                retry.wait = min(2 * retry.wait, LAST_RETRY)
                retry.due = now + retry.wait
                out += self._look_at(switches[name], after_refusal=True)
        return out + self._go_on() + self._round(now)

    def _round(self, now: float) -> Outbox:
        switches = self._ground.switches
        if not self._to_look_at and now - self._started >= PERIOD:
            self._started, self._to_look_at, self._size = now, deque(switches), len(switches)
            self._running = {name: audit for name, audit in self._running.items() if name in switches}
            self._looks = {place: look for place, look in self._looks.items() if place[0] in switches}
        due = (now - self._started) / PERIOD * self._size
        out: Outbox = []
        while self._to_look_at and self._size - len(self._to_look_at) < due:
            switch = switches.get(self._to_look_at.popleft())
            busy = switch and any(switch is other for other, _, _ in self._comparing)
            if switch and switch.fit and not busy:
                out += self._look_at(switch, after_refusal=False)
        return out

    def _look_at(self, switch: Switch, after_refusal: bool) -> Outbox:
        name, tokens = switch.lb.name, self._ground.tokens
        if before := self._running.get(name):
            for token in before.tokens:
                tokens.cancel(token)  # what has not been answered by now will not be
        audit = self._running[name] = Audit(after_refusal)
        out: Outbox = []
        for table in TABLES:
            comparison = Comparison(table, switch.held, self._looks.pop((name, table), None))
            token = tokens.new(FlowsAnswer(name, partial(self._answered, switch, audit, comparison)))
            audit.tokens.append(token)
            cookie, mask = RULES if table in ACCESS_TABLES else (0, 0)
            out.append(ToSwitch(name, ReadFlows(table, cookie, mask, token)))
        return out

    def _answered(
        self, switch: Switch, audit: Audit, comparison: Comparison, body: bytes, more: bool, _now: float
    ) -> Outbox:
        comparison.answer(body)
        if not more:
            self._comparing.append((switch, audit, self._compare(switch, audit, comparison)))
        return []

    def _go_on(self) -> Outbox:
        """Compares what has been answered, some at a tick."""
        out: Outbox = []
        for _ in range(STEPS):
            if not self._comparing:
                break
            switch, audit, steps = self._comparing[0]
            step = next(steps, None) if switch.ready and self._running.get(switch.lb.name) is audit else None
            if step is None:
                self._comparing.popleft()
            elif step:
                out += step
                break  # messages are encoded, which takes longer
        return out

    def _compare(self, switch: Switch, audit: Audit, comparison: Comparison) -> Iterator[Outbox]:
        name = switch.lb.name
        for _ in comparison.steps():
            yield []
        found, look = comparison.result()
        if look:
            self._looks[name, comparison.table] = look
        audit.compared += 1
        audit.foreign += found.foreign
        if found:
            if not audit.wrong:
                # One that was deleted has taken the flows along that use it.
                yield from self._ground.meters(name)
            audit.wrong[comparison.table] += len(found)
            for messages in comparison.repair():
                yield to_switch(name, messages)
        if audit.compared == len(TABLES):
            yield from self._ended(switch, audit)

    def _ended(self, switch: Switch, audit: Audit) -> Iterator[Outbox]:
        """All tables have been looked at."""
        name = switch.lb.name
        switch.counters["audits"] += 1
        if audit.foreign > switch.foreign:
            self._ground.log("flows of others in the tables", level="warning", lb=name, flows=audit.foreign,
                             hint="they may come before lbctl's: look at cookies that do not begin with 0x1b")
        switch.foreign = audit.foreign
        if audit.wrong and not audit.after_refusal:
            switch.counters["flows_put_right"] += audit.wrong.total()
            self._ground.log("flows were not as ordered, and are put right", level="error", lb=name,
                             flows=audit.wrong.total(), tables=sorted(audit.wrong),
                             hint="somebody or something else changes the flows of this bridge")
        if not audit.wrong and audit.after_refusal:  # a meter may be what was refused
            yield from self._ground.meters(name)
        if (audit.wrong or audit.after_refusal) and not audit.refused:
            yield [self._ask_for_confirmation(switch)]
