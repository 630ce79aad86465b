"""What the switches drop by themselves: the counters of the flows and meters that drop, read now and then, and added to
the LB's own by their reasons (values/drops.py).

What they say at first is where they start, since an earlier controller has counted it; where one has shrunk, it began
anew, from zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from functools import partial

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import COOKIE_DROPS, MASK_DROPS, known_kind
from lbctl.openflow.inbound import decode_flow_stats, decode_meter_stats
from lbctl.openflow.messages import Message, ReadFlows, ReadMeters
from lbctl.openflow.meters import over
from lbctl.openflow.rules import DROPPING_TABLES
from lbctl.switches.switch import Switch

PERIOD = 10.0
"""Seconds between two readings of an LB."""
ASKED_AT_ONCE = 5
"""LBs that are asked at a tick, at most."""

Counted = dict[Hashable, int]
"""Flow or meter -> packets that it has dropped, as last read."""


class Dropped:
    """Of all LBs. The access tables are not asked: no flow drops there, and there are many."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._counted: dict[str, Counted] = {}
        """By LB; those that have been asked."""
        self._open: dict[str, list[int]] = {}
        """LB -> tokens of what it was asked last."""
        self._next = float("-inf")
        self._to_ask: deque[str] = deque()

    def tick(self, now: float) -> Outbox:
        """To be called often. An LB that has just come is asked at once, so that nothing is missed."""
        switches = self._ground.switches
        if now >= self._next:
            self._next = now + PERIOD
            self._counted = {name: counted for name, counted in self._counted.items() if name in switches}
            self._to_ask = deque(switches)
        elif not self._to_ask:
            self._to_ask.extend(name for name, switch in switches.items()
                                if switch.ready and name not in self._counted)
        out: Outbox = []
        for _ in range(min(len(self._to_ask), ASKED_AT_ONCE)):
            switch = switches.get(self._to_ask.popleft())
            if switch and switch.ready:
                out += self._ask(switch)
        return out

    def _ask(self, switch: Switch) -> Outbox:
        name, tokens = switch.lb.name, self._ground.tokens
        for token in self._open.get(name, ()):
            tokens.cancel(token)  # what has not been answered by now will not be
        first = name not in self._counted
        counted = self._counted.setdefault(name, {})
        asked: list[Message] = [
            ReadFlows(table, COOKIE_DROPS, MASK_DROPS,
                      tokens.new(FlowsAnswer(name, partial(self._flows, switch, counted, first))))
            for table in DROPPING_TABLES
        ]
        asked.append(ReadMeters(tokens.new(FlowsAnswer(name, partial(self._meters, switch, counted, first)))))
        self._open[name] = [message.token for message in asked if isinstance(message, ReadFlows | ReadMeters)]
        return [ToSwitch(name, message) for message in asked]

    def _flows(self, switch: Switch, counted: Counted, first: bool, body: bytes, _more: bool, _now: float) -> Outbox:
        for flow in decode_flow_stats(body):
            kind = known_kind(flow.cookie)
            if kind is not None and kind.drops:  # else another release's, about to be deleted
                _count(switch, counted, first, (flow.table, flow.cookie), kind.reason, flow.packets)
        return []

    def _meters(self, switch: Switch, counted: Counted, first: bool, body: bytes, _more: bool, _now: float) -> Outbox:
        for meter, packets in decode_meter_stats(body).items():
            _count(switch, counted, first, meter, over(meter), packets)
        return []


def _count(switch: Switch, counted: Counted, first: bool, what: Hashable, reason: str, packets: int) -> None:
    before = counted.get(what, packets if first else 0)
    counted[what] = packets
    if more := packets - before if packets >= before else packets:
        switch.counters[f"dropped_{reason}"] += more
