"""How much each slice's clients have sent: what the flows of table slices_in have counted at the external IP's LB.

Their counters begin anew at another LB, and when a flow is put in again (a slice changes hands): what it had counted
since the last reading is lost then.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MARK, MASK_KIND, Kind
from lbctl.openflow.inbound import decode_slice_stats
from lbctl.openflow.messages import ReadFlows
from lbctl.values.slices import NOTHING_SENT, Sent

INTERVAL = 10.0
"""Seconds from one reading of all to the next; at each tick one external IP is read."""

Counted = dict[tuple[int, bytes], tuple[int, int]]
"""Priority and match of a flow -> packets and bytes."""


class SliceCounters:
    """Of all sliced services."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._turns: deque[Serving] = deque()
        self._begin_at = 0.0
        self._before: dict[tuple[int, str], Counted] = {}
        """By owner and LB, what was counted last."""

    def tick(self, now: float) -> Outbox:
        """Asks for the counters whose turn it is."""
        if not self._turns and now >= self._begin_at:
            self._begin_at = now + INTERVAL
            self._turns.extend(serving for serving in self._ground.external_ips if serving.slices)
            owners = {serving.owner for serving in self._turns}
            self._before = {place: counted for place, counted in self._before.items() if place[0] in owners}
        if not self._turns:
            return []
        serving = self._turns.popleft()
        lb = serving.assigned
        if not self._ground.switches[lb].ready:
            return []
        token = self._ground.tokens.new(FlowsAnswer(lb, partial(self._read, serving, lb, [])))
        cookie = MARK << 56 | Kind.SLICE << 48 | serving.owner
        return [ToSwitch(lb, ReadFlows("slices_in", cookie, MASK_KIND | 0xFFFFFFFF, token))]

    def _read(self, serving: Serving, lb: str, found: list[bytes], body: bytes, more: bool, now: float) -> Outbox:
        found.append(body)
        if more:
            return []
        before, counted = self._before.get((serving.owner, lb), {}), Counted()
        for stats in (stats for each in found for stats in decode_slice_stats(each)):
            name = stats.priority, stats.match
            counted[name] = stats.packets, stats.bytes
            packets, size = before.get(name, (0, 0))
            if stats.packets < packets:
                packets, size = 0, 0
            slicing = serving.slices.get((stats.protocol, stats.port))
            if slicing and stats.packets > packets:
                sent = slicing.sent.get(stats.number, NOTHING_SENT)
                slicing.sent[stats.number] = Sent(
                    sent.packets + stats.packets - packets, sent.bytes + stats.bytes - size, now)
        self._before[serving.owner, lb] = counted
        return []
