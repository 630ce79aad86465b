"""How an LB forgets the entries of an external IP that it does not serve any more: a few at a time."""

from __future__ import annotations

from functools import partial

from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import Confirmation, FlowsAnswer
from lbctl.moves.needs import Packets
from lbctl.openflow.cookies import MASK_ALL, Kind, entry_cookie
from lbctl.openflow.inbound import EntryStatsDecoder
from lbctl.openflow.messages import Barrier, DeleteCookie, ReadFlows
from lbctl.values.addresses import Address
from lbctl.values.keys import BUCKETS
from lbctl.values.side import EXTERNAL, INTERNAL

AT_ONCE = 16
"""Buckets of entries that are deleted before the switch must confirm, at most."""
FLOWS = 200
"""Flows that are in them, about: a switch is busy with reading, deleting and freeing them for some milliseconds."""


class Forgetting:
    """What all LBs are still to forget."""

    def __init__(self, ground: Ground, packets: Packets) -> None:
        self._ground, self._packets = ground, packets
        self._left: dict[tuple[str, Address], list[int]] = {}
        """LB and external IP -> cookies of the entries, bucket by bucket."""
        self._decoder = EntryStatsDecoder()

    def start(self, lb: str, serving: Serving) -> Outbox:
        """From now on that LB is to forget the external IP's entries. They are those of the table: it was told of each
        that ended until now."""
        if not self._ground.switches[lb].ready:
            return []  # it is read back when it returns
        self._left[lb, serving.address] = [entry_cookie(side, serving.owner, bucket) for side in (EXTERNAL, INTERNAL)
                                           for bucket in serving.table.buckets()]
        return self._go_on(lb, serving)

    def at_once(self, lb: str, serving: Serving) -> Outbox:
        """All that is left, before anything else: the external IP comes back there, and what it gets then must stay."""
        return self._delete(lb, serving, self._left.pop((lb, serving.address), []))

    def lost(self, lb: str) -> None:
        """That LB's connection has ended: it is read back when it returns."""
        self._left = {place: cookies for place, cookies in self._left.items() if place[0] != lb}

    def _go_on(self, lb: str, serving: Serving, _now: float = 0.0) -> Outbox:
        """A few buckets at a time, so that the switch is never busy for long."""
        cookies = self._left.pop((lb, serving.address), [])
        if not cookies:
            return []
        some = min(AT_ONCE, FLOWS * BUCKETS // (len(serving.table) or 1) or 1)
        if rest := cookies[some:]:
            self._left[lb, serving.address] = rest
        token = self._ground.tokens.new(Confirmation(lb, partial(self._go_on, lb, serving)))
        return [*self._delete(lb, serving, cookies[:some]), ToSwitch(lb, Barrier(token))]

    def _delete(self, lb: str, serving: Serving, cookies: list[int]) -> Outbox:
        """Deletes them, but asks what they were before."""
        out: Outbox = []
        for cookie in cookies:
            table = "access_in" if cookie >> 48 & 0xFF == Kind.ENTRY_IN else "access_out"
            token = self._ground.tokens.new(FlowsAnswer(lb, partial(self._last_words, serving)))
            out += [
                ToSwitch(lb, ReadFlows(table, cookie, MASK_ALL, token)),
                ToSwitch(lb, DeleteCookie(table, cookie, MASK_ALL)),
            ]
        return out

    def _last_words(self, serving: Serving, body: bytes, _more: bool, now: float) -> Outbox:
        return self._packets.finished(serving, self._decoder.decode(body)[0], now)
