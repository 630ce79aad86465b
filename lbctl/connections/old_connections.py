"""Which connections a slice's old server has still: its sockets tell, where it has a keeper; else the slice's packets
that have no entry, once there have been none for as long as a connection of that service may be silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from weakref import WeakKeyDictionary

from lbctl.connections.sliced import next_hop_of, slice_of_entry
from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.ground.effects import FetchCopy, Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer, RowsAnswer
from lbctl.keeper.claims import own_rows
from lbctl.keeper.rows import Row
from lbctl.openflow.cookies import MARK, MASK_KIND, Kind
from lbctl.openflow.entry_flows import entry_flows
from lbctl.openflow.inbound import decode_flow_stats
from lbctl.openflow.messages import AddEntries, AddFlows, ReadFlows, entry_messages
from lbctl.openflow.slice_rules import default_flows
from lbctl.servers.slicing import Change
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.keys import Place, service_of

SOCKETS = "sockets"
AGAIN, SILENCE_INTERVAL = 5.0, 1.0
"""Seconds until keepers are asked again, of which one has not answered; and between two looks at the counters."""

Flip = Callable[[set[int], Outbox, float], Outbox]
"""Is told slices whose old connections have entries, and the messages that add these."""


@dataclass(eq=False, slots=True)
class _Looking:
    """At one change. asked_at: when keepers were asked last; waiting: those of which servers have not answered; rows:
    what the others have; counters: packets without an entry, by slice, and since when there are so many."""

    asked_at: float = float("-inf")
    waiting: set[Address] = field(default_factory=set)
    failed: bool = False
    rows: list[Row] = field(default_factory=list)
    counters: dict[int, tuple[int, float]] = field(default_factory=dict)


class OldConnections:
    """Of all changes of sliced services."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._looking: WeakKeyDictionary[Change, _Looking] = WeakKeyDictionary()

    def look(self, serving: Serving, place: Place, change: Change, now: float, flip: Flip) -> Outbox:
        """To be called at each tick of a change that waits for them."""
        looking = self._looking.setdefault(change, _Looking())
        servers = {server.address for server in change.before.values()}
        keepers = {server: self._ground.keeper_of(server) for server in servers}
        if not all(keepers.values()):
            return self._counters(serving, place, change, looking, now, flip)
        if now < looking.asked_at + AGAIN:
            return []
        looking.asked_at, looking.waiting, looking.rows, looking.failed = now, servers, [], False
        out: Outbox = []
        for server, keeper in keepers.items():
            told = partial(self._told, serving, place, change, looking, server, flip)
            if keeper:
                token = self._ground.tokens.new(RowsAnswer(told))
                out.append(FetchCopy(keeper, serving.config, server, SOCKETS, token))
        return out

    def _told(
        self, serving: Serving, place: Place, change: Change, looking: _Looking, server: Address, flip: Flip,
        rows: list[Row] | None, now: float,
    ) -> Outbox:
        looking.waiting.discard(server)
        looking.failed |= rows is None
        looking.rows += own_rows(rows or [], serving.config, server)
        if looking.waiting or self._looking.get(change) is not looking:
            return []
        if looking.failed:
            return self._counters(serving, place, change, looking, now, flip)
        del self._looking[change]
        return flip(set(change.before), self._keep(serving, place, change, looking.rows, now), now)

    def _keep(self, serving: Serving, place: Place, change: Change, rows: list[Row], now: float) -> Outbox:
        """Entries for those of the change's slices, to their old server."""
        entries: list[Entry] = []
        hopless: list[Entry] = []
        for row in rows:
            if service_of(row.key) != place or serving.table.by_key(row.key) or serving.table.by_reply(row.reply):
                continue
            entry = Entry(row.key, row.reply, next_hop_of(self._ground, serving, row.key), now)
            number = slice_of_entry(serving, place, entry)
            address, port = entry.server
            if number is None or change.before.get(number) != Endpoint(ip_address(address), port):
                continue
            entry.flags = row.flags
            serving.table.add(entry)
            (hopless if entry.next_hop == NO_HOP else entries).append(entry)
        # Where the client is, is not known: its answers find their way without an entry.
        one_way = tuple(entry_flows(entry, serving.settings.linger)[0] for entry in hopless)
        messages = [*entry_messages(AddEntries, entries), *([AddFlows(one_way)] if one_way else [])]
        return [ToSwitch(name, message) for name in serving.holders if self._ground.switches[name].ready
                for message in messages]

    def _counters(
        self, serving: Serving, place: Place, change: Change, looking: _Looking, now: float, flip: Flip
    ) -> Outbox:
        if now < looking.asked_at + SILENCE_INTERVAL or not self._ground.switches[serving.assigned].ready:
            return []
        looking.asked_at = now
        told = partial(self._counted, serving, place, change, looking, flip, [])
        token = self._ground.tokens.new(FlowsAnswer(serving.assigned, told))
        cookie = MARK << 56 | Kind.SLICE << 48 | serving.owner
        return [ToSwitch(serving.assigned, ReadFlows("access_in", cookie, MASK_KIND | 0xFFFFFFFF, token))]

    def _counted(
        self, serving: Serving, place: Place, change: Change, looking: _Looking, flip: Flip, found: list[bytes],
        body: bytes, more: bool, now: float,
    ) -> Outbox:
        found.append(body)
        if more or self._looking.get(change) is not looking:
            return []
        packets: Counter[int] = Counter()  # of flows with the same cookie together: digests may be the same
        for each in found:
            for stats in decode_flow_stats(each):
                packets[stats.cookie] += stats.packets
        silence, silent = serving.idle_timeout_of(place), set()
        for number, default in default_flows(serving.sliced(place)).items():
            if number not in change.before or default.cookie not in packets:
                continue
            count, before = packets[default.cookie], looking.counters.get(number)
            if before is None or before[0] != count:
                before = looking.counters[number] = count, now
            if now - before[1] >= silence:
                silent.add(number)
        if not silent:
            return []
        del self._looking[change]
        return flip(silent, [], now)
