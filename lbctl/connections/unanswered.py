"""SYNs that come again because nobody has answered them: the switch is asked whether the server has said anything.

A server that has lost its power keeps its share of new connections until it is missed (ARP, a health check); whoever
waits for it is helped by the next repetition of its SYN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lbctl.connections.arrival import Arrival
from lbctl.connections.counted import counted_since
from lbctl.connections.lately import Lately
from lbctl.entries.access_table import ANSWERED, Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MASK_ALL, entry_cookie
from lbctl.openflow.inbound import EntryStatsDecoder
from lbctl.openflow.messages import ReadFlows
from lbctl.values.side import EXTERNAL, INTERNAL

SECONDS = 2.0
"""After the first SYN: Linux sends it again after 1, 3, and 7 s (RFC 6298, tcp_syn_retries), others likewise."""
AT_ONCE, SPACING = 100, 1.0
"""So many are asked about in so many seconds; others get their entry again."""

Then = Callable[[Arrival, Serving, Entry, bool], Outbox]
"""What is done with the SYN. The last one: has the server answered?"""


class Unanswered:
    """Those of all external IPs."""

    def __init__(self, ground: Ground, then: Then) -> None:
        self._ground, self._then = ground, then
        self._decode = EntryStatsDecoder().decode
        self._asked = Lately[bytes](SPACING, AT_ONCE)
        """Keys of entries."""

    def ask(self, arrival: Arrival, serving: Serving, entry: Entry) -> Outbox:
        """Asks whether the server of that entry has sent anything; `then` goes on with the SYN. Empty if there is no
        reason to."""
        packet, now, lb = arrival.packet, arrival.now, arrival.switch.lb.name
        if arrival.way is not EXTERNAL or entry not in serving.table.half_open or entry.isn != packet.seq:
            return []
        if serving.config.direct:
            return []  # nobody sees what its servers answer
        if entry.flags & ANSWERED or lb != serving.assigned or entry.created < counted_since(serving, arrival.switch):
            return []
        if now < entry.created + SECONDS or not self._asked.may(entry.key, now):
            return []
        token = self._ground.tokens.new(FlowsAnswer(lb, partial(self._read, arrival, serving, entry, [])))
        cookie = entry_cookie(INTERNAL, serving.owner, entry.bucket)
        return [ToSwitch(lb, ReadFlows(INTERNAL.access_table, cookie, MASK_ALL, token))]

    def _read(
        self, arrival: Arrival, serving: Serving, entry: Entry, packets: list[int], body: bytes, more: bool, now: float
    ) -> Outbox:
        packets += [stats.packets for stats in self._decode(body)[0] if stats.key == entry.key]
        if more:
            return []
        arrival.now = now
        # A flow that is not there has run out: after the server's FIN.
        return self._then(arrival, serving, entry, not packets or sum(packets) > 0)
