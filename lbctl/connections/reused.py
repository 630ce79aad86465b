"""SYNs by which a client uses a port again whose last connection went to a server that takes none any more.

The entry of a connection that its hosts have closed is there for `linger` more, and a new connection would follow it to
a server that is drained, removed or down. Whether the hosts have closed it, the switch is asked: a SYN alone, which
anybody may forge, ends nothing. If they have not, the SYN goes to the old server: one that knows the connection answers
(RFC 5961 4), and one that has said nothing when the SYN comes again after 2 s has gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from lbctl.connections.arrival import Arrival
from lbctl.connections.unanswered import SECONDS
from lbctl.entries.access_table import ENDING, GONE, Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MASK_ALL, entry_cookie
from lbctl.openflow.inbound import EntryStats, EntryStatsDecoder
from lbctl.openflow.messages import ReadFlows
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import service_of
from lbctl.values.protocols import TCP
from lbctl.values.side import EXTERNAL, Side

AGAIN, PATIENCE = 0.25, 0.9
"""Seconds from one question to the next, and until the SYN goes the entry's way: a FIN is known in the switch's flow
once its revalidators have come by (twice a second), and the client sends its SYN again after 1 s (RFC 6298)."""
AT_ONCE = 100
"""So many SYNs wait for answers at most; others go their entry's way."""
REMEMBERED_SECONDS, REMEMBERED = 30.0, 1000
"""So long, and so many SYNs that went to the old server; Linux sends one again after 1, 3, 7, 15 s."""

Then = Callable[[Arrival, Serving, Entry, bool], Outbox]
"""What is done with the SYN. The last one: is the entry's connection over?"""


@dataclass(slots=True)
class _Waiting:
    """A SYN whose entry's flows are being read. before: packets that the server had sent when the same SYN came first;
    None: that is now. heard: the same, by the last answer."""

    arrival: Arrival
    serving: Serving
    entry: Entry
    until: float
    again_at: float
    before: int | None
    heard: int = 0


class Reused:
    """Those of all external IPs."""

    def __init__(self, ground: Ground, then: Then) -> None:
        self._ground, self._then = ground, then
        self._decode = EntryStatsDecoder().decode
        self._waiting: dict[bytes, _Waiting] = {}
        """By the key of the entry."""
        self._passed_on: dict[bytes, tuple[float, int]] = {}
        """By the key of the entry: when its SYN went to the old server, and what that had sent; the oldest first."""

    def ask(self, arrival: Arrival, serving: Serving, entry: Entry) -> Outbox | None:
        """Asks whether the connection of that entry is over; `then` goes on with the SYN. None if there is no reason
        to."""
        packet, now, before = arrival.packet, arrival.now, None
        if packet.protocol != TCP or arrival.way is not EXTERNAL or entry.flags & ENDING:
            return None
        if entry.isn == packet.seq:
            passed_on_at, before = self._passed_on.get(entry.key, (now, 0))
            if now < passed_on_at + SECONDS:
                return None
        if arrival.switch.lb.name != serving.assigned or not is_closed(serving, entry):
            return None
        if entry.key in self._waiting:
            return []  # the same SYN, or another one: the first one is answered soon
        if len(self._waiting) >= AT_ONCE:
            return None
        patience = PATIENCE if before is None else 0.0
        waiting = self._waiting[entry.key] = _Waiting(arrival, serving, entry, now + patience, now, before)
        return self._read(waiting, now)

    def tick(self, now: float) -> Outbox:
        """Asks again."""
        while self._passed_on and now >= next(iter(self._passed_on.values()))[0] + REMEMBERED_SECONDS:
            del self._passed_on[next(iter(self._passed_on))]
        out: Outbox = []
        for waiting in [each for each in self._waiting.values() if now >= each.again_at]:
            if now >= waiting.until or waiting.entry.flags & (GONE | ENDING):
                out += self._go_on(waiting, bool(waiting.entry.flags & ENDING), now)
            else:
                out += self._read(waiting, now)
        return out

    def _read(self, waiting: _Waiting, now: float) -> Outbox:
        waiting.again_at = now + AGAIN
        lb, entry = waiting.arrival.switch.lb.name, waiting.entry
        found: list[EntryStats] = []
        left = set(Side)
        out: Outbox = []
        for side in Side:
            token = self._ground.tokens.new(FlowsAnswer(lb, partial(self._answered, waiting, found, left, side)))
            cookie = entry_cookie(side, waiting.serving.owner, entry.bucket)
            out.append(ToSwitch(lb, ReadFlows(side.access_table, cookie, MASK_ALL, token)))
        return out

    def _answered(
        self, waiting: _Waiting, found: list[EntryStats], left: set[Side], side: Side, body: bytes, more: bool,
        now: float,
    ) -> Outbox:
        """found: the entry's flows that are there; left: the sides that have not been answered whole."""
        found += [stats for stats in self._decode(body)[0] if stats.key == waiting.entry.key]
        left -= set() if more else {side}
        if left:
            return []
        waiting.heard = sum(stats.packets for stats in found if stats.side is not EXTERNAL)
        # A flow that is not there any more has run out after its FIN.
        closed = all(stats.finished for stats in found)
        silent = waiting.heard == waiting.before
        if closed or silent or now >= waiting.until:
            return self._go_on(waiting, closed or silent, now)
        return []

    def _go_on(self, waiting: _Waiting, over: bool, now: float) -> Outbox:
        key = waiting.entry.key
        if self._waiting.get(key) is not waiting:
            return []
        del self._waiting[key]
        self._passed_on.pop(key, None)
        if not over and len(self._passed_on) < REMEMBERED:
            self._passed_on[key] = now, waiting.heard
        waiting.arrival.now = now
        return self._then(waiting.arrival, waiting.serving, waiting.entry, over)


def is_closed(serving: Serving, entry: Entry) -> bool:
    """Does the entry's server take no connections any more?"""
    address, port = entry.server
    return serving.servers.closed(service_of(entry.key), Endpoint(ip_address(address), port))
