"""What the switches drop by themselves, for a reason that a flow of its own counts; read now and then."""

from __future__ import annotations

from functools import partial

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MARK, MASK_KIND, Kind
from lbctl.openflow.inbound import decode_flow_stats
from lbctl.openflow.messages import ReadFlows

PERIOD = 5.0
"""Seconds."""
ASKED_AT_ONCE = 25
"""LBs that are asked at a tick, at most."""
TABLE, KIND, REASON = "wrong_side", Kind.WRONG_SIDE, "wrong_side"


class Drops:
    """Of all LBs."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._read: dict[str, int] = {}
        """By LB: packets, as last read."""
        self._known: set[str] = set()
        """LBs that have been asked; others are asked as soon as they are ready."""
        self._to_ask: list[str] = []
        self._next = 0.0

    def tick(self, now: float) -> Outbox:
        """Asks each LB once in a period."""
        if now >= self._next and not self._to_ask:
            self._next, self._to_ask = now + PERIOD, [switch.lb.name for switch in self._ground.ready()]
        some, self._to_ask = self._to_ask[:ASKED_AT_ONCE], self._to_ask[ASKED_AT_ONCE:]
        some += [switch.lb.name for switch in self._ground.ready() if switch.lb.name not in self._known]
        return [self._question(name) for name in some if name in self._ground.switches]

    def _question(self, name: str) -> ToSwitch:
        self._known.add(name)
        token = self._ground.tokens.new(FlowsAnswer(name, partial(self._answered, name)))
        return ToSwitch(name, ReadFlows(TABLE, MARK << 56 | KIND << 48, MASK_KIND, token))

    def _answered(self, name: str, body: bytes, more: bool, now: float) -> Outbox:
        """One flow, so one part that has it."""
        switch = self._ground.switches.get(name)
        for flow in decode_flow_stats(body) if switch else ():
            # What it says at first is where it starts. Fewer: the switch was restarted.
            before = self._read.get(name, flow.packets)
            fresh = flow.packets - before if flow.packets >= before else flow.packets
            self._read[name] = flow.packets
            if switch and fresh:
                switch.counters[f"dropped_{REASON}"] += fresh
        return []
