"""SYNs by which a client uses a port again whose last connection went to a server that takes none any more.

The entry of a connection that its hosts have closed is there for `linger` more, and a new connection would follow it to
a server that is drained, removed or down. Whether the hosts have closed it, the switch is asked: a SYN alone, which
anybody may forge, ends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address

from lbctl.connections.arrival import Arrival
from lbctl.entries.access_table import ENDING, GONE, Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MASK_ALL, entry_cookie
from lbctl.openflow.inbound import EntryStatsDecoder
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

Then = Callable[[Arrival, Serving, Entry, bool], Outbox]
"""What is done with the SYN. The last one: is the entry's connection over?"""


@dataclass(slots=True)
class _Waiting:
    arrival: Arrival
    serving: Serving
    entry: Entry
    until: float
    again_at: float


class Reused:
    """Those of all external IPs."""

    def __init__(self, ground: Ground, then: Then) -> None:
        self._ground, self._then = ground, then
        self._decode = EntryStatsDecoder().decode
        self._waiting: dict[bytes, _Waiting] = {}
        """By the key of the entry."""

    def ask(self, arrival: Arrival, serving: Serving, entry: Entry) -> Outbox | None:
        """Asks whether the hosts have closed the entry's connection; `then` goes on with the SYN. None if there is no
        reason to."""
        packet = arrival.packet
        if packet.protocol != TCP or arrival.side is not EXTERNAL or entry.isn == packet.seq or entry.flags & ENDING:
            return None
        if arrival.switch.lb.name != serving.assigned or entry.inner_hop or not _is_closed(serving, entry):
            return None
        if entry.key in self._waiting:
            return []  # the same SYN, or another one: the first one is answered soon
        if len(self._waiting) >= AT_ONCE:
            return None
        waiting = _Waiting(arrival, serving, entry, arrival.now + PATIENCE, arrival.now)
        self._waiting[entry.key] = waiting
        return self._read(waiting, arrival.now)

    def tick(self, now: float) -> Outbox:
        """Asks again."""
        out: Outbox = []
        for waiting in [each for each in self._waiting.values() if now >= each.again_at]:
            if now >= waiting.until or waiting.entry.flags & (GONE | ENDING):
                out += self._go_on(waiting, bool(waiting.entry.flags & ENDING), now)
            else:
                out += self._read(waiting, now)
        return out

    def _read(self, waiting: _Waiting, now: float) -> Outbox:
        waiting.again_at = now + AGAIN
        lb, entry, found = waiting.arrival.switch.lb.name, waiting.entry, dict[Side, bool]()
        out: Outbox = []
        for side in Side:
            token = self._ground.tokens.new(FlowsAnswer(lb, partial(self._answered, waiting, side, found)))
            cookie = entry_cookie(side, waiting.serving.owner, entry.bucket)
            out.append(ToSwitch(lb, ReadFlows(side.access_table, cookie, MASK_ALL, token)))
        return out

    def _answered(
        self, waiting: _Waiting, side: Side, found: dict[Side, bool], body: bytes, more: bool, now: float
    ) -> Outbox:
        """found: of each side that has been answered whole, whether its flow has run out or waits for that."""
        open_there = [stats for stats in self._decode(body)[0] if stats.key == waiting.entry.key and not stats.finished]
        found[side] = found.get(side, True) and not open_there
        if more or len(found) < len(Side) or not all(found.values()):
            return []
        return self._go_on(waiting, True, now)

    def _go_on(self, waiting: _Waiting, over: bool, now: float) -> Outbox:
        if self._waiting.get(waiting.entry.key) is not waiting:
            return []
        del self._waiting[waiting.entry.key]
        waiting.arrival.now = now
        return self._then(waiting.arrival, waiting.serving, waiting.entry, over)


def _is_closed(serving: Serving, entry: Entry) -> bool:
    """Does the entry's server take no connections any more?"""
    address, port = entry.server
    return serving.servers.closed(service_of(entry.key), Endpoint(ip_address(address), port))
