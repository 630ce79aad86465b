"""Routers that several connections have left, and that send nothing any more: they have failed, so what else is
answered to them follows, too. It may be silent itself and wait for an answer."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from lbctl.entries.access_table import GONE, Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MASK_ALL
from lbctl.openflow.hop_rules import hop_flow
from lbctl.openflow.inbound import decode_flow_stats
from lbctl.openflow.messages import ModifyEntries, ReadFlows, entry_messages
from lbctl.values.keys import unpack_key
from lbctl.values.side import EXTERNAL

SOME, SECONDS = 3, 5.0
"""So many entries that leave a router within so many seconds raise the question whether it is still there."""
ASK_AGAIN, ASKED = 1.5, 9.0
"""Seconds between two looks at its packets, which Open vSwitch counts some half a second late; and in which it is
looked at."""
WATCHED = 16
"""Routers that the question is open of, at most."""
AT_A_TICK = 2000
"""Entries looked at."""

Place = tuple[str, bytes]
"""An LB, and a router's MAC (packed)."""


@dataclass(slots=True)
class Left:
    """A router that entries have left. to: the MAC that the last one followed to; packets: those from the router, as of
    the last look."""

    to: bytes
    until: float
    entries: int = 0
    ask_at: float = float("inf")
    packets: int | None = None


class SilentRouters:
    """Of all LBs."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._left: dict[Place, Left] = {}
        self._following: deque[Iterator[Outbox]] = deque()

    def left(self, lb: str, old: bytes, new: bytes, now: float) -> None:
        """An entry at that LB has followed its client, who is behind a router, from one MAC to another."""
        left = self._left.get((lb, old))
        if left is None:
            if len(self._left) == WATCHED:
                return
            left = self._left[lb, old] = Left(new, now + SECONDS)
        left.to = new
        left.entries += 1
        if left.entries == SOME:
            left.ask_at, left.until = now, now + ASKED

    def tick(self, now: float) -> Outbox:
        """Asks what is due, and lets some entries follow."""
        out: Outbox = []
        for place, left in list(self._left.items()):
            if left.until <= now:
                del self._left[place]
            elif left.ask_at <= now:
                out += self._ask(place, left, now)
        if self._following:
            step = next(self._following[0], None)
            if step is None:
                self._following.popleft()
            else:
                out += step
        return out

    def _ask(self, place: Place, left: Left, now: float) -> Outbox:
        lb, old = place
        if not self._ground.switches[lb].ready or not self._ground.hops.knows(EXTERNAL, old):
            del self._left[place]
            return []
        left.ask_at = now + ASK_AGAIN
        flow = hop_flow(EXTERNAL, old)
        token = self._ground.tokens.new(FlowsAnswer(lb, partial(self._answered, place)))
        return [ToSwitch(lb, ReadFlows(flow.table, flow.cookie, MASK_ALL, token))]

    def _answered(self, place: Place, body: bytes, more: bool, now: float) -> Outbox:
        """One flow, so one part."""
        left = self._left.get(place)
        if left is None:
            return []
        packets = sum(flow.packets for flow in decode_flow_stats(body))
        if packets == left.packets:
            lb, old = place
            del self._left[place]
            self._ground.log("router is silent: its connections follow", level="warning", lb=lb, router=old.hex(":"),
                             to=left.to.hex(":"))
            self._following.append(self._follow(lb, old, left.to))
        left.packets = packets
        return []

    def _follow(self, lb: str, old: bytes, new: bytes) -> Iterator[Outbox]:
        """Step by step."""
        for serving in [serving for serving in self._ground.external_ips if serving.assigned == lb]:
            entries = iter(serving.table.snapshot())
            while some := list(itertools.islice(entries, AT_A_TICK)):
                yield self._follow_some(serving, some, old, new)

    def _follow_some(self, serving: Serving, entries: list[Entry], old: bytes, new: bytes) -> Outbox:
        followed = []
        for entry in entries:
            if (entry.next_hop == old and not entry.inner_hop and not entry.flags & GONE
                    and self._ground.behind_router(unpack_key(entry.key)[1])):
                entry.next_hop = new
                serving.table.changed(entry)
                followed.append(entry)
        self._ground.counters["hops_followed_together"] += len(followed)
        return [ToSwitch(name, message) for name in serving.holders if self._ground.switches[name].ready
                for message in entry_messages(ModifyEntries, followed)]
