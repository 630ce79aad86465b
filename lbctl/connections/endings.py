"""How entries end: after FIN both ways, after a RST, or because somebody wants it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

from lbctl.connections.answers import drop
from lbctl.connections.arrival import Arrival
from lbctl.connections.remembered import Remembered
from lbctl.connections.translated import whose
from lbctl.entries.access_table import ENDING, FIN_IN, FIN_OUT, GONE, REFUSED, REINSTALLED, RESET, REUSED, Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.cookies import owner_in
from lbctl.openflow.inbound import EntryRemoved, EntryStats
from lbctl.openflow.messages import DeleteEntries, entry_messages
from lbctl.switches.switch import Switch
from lbctl.values.keys import service_of
from lbctl.values.side import INTERNAL

CACHED_SECONDS = 15.0
"""The datapath may remember an unused flow for this long: Open vSwitch's max-idle (10 s), and some more."""
CLOCK_RATIO, CLOCK_STEP = 1.01, 0.5
"""A switch's clock may run that much faster than ours; and a busy one reads its clock only so often (seconds). A flow
that ran out was there for a second (the shortest linger) at least, so a new entry is told from an old flow all the
same."""
REMEMBERED_SECONDS, REMEMBERED = 60.0, 20_000
"""So long what a RST has ended, and at most so many of those; and so many that have ended half closed. A RST's
receiver ignores it if its sequence number is not the next that it expects (RFC 9293 3.10.7.4), which nobody here
knows. If the hosts talk on, their connection does."""


class Endings:
    """Of the entries of all external IPs."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._directory = ground, ground.external_ips
        self._ended: dict[bytes, float] = {}
        """Keys of the opening packets of entries that ended in the last CACHED_SECONDS, and when; the oldest first."""
        self._lingering: deque[tuple[float, Serving, Entry]] = deque()
        self._reset, self._half_closed = Remembered(REMEMBERED), Remembered(REMEMBERED)
        """What a RST has ended; what has ended half closed, because it was silent."""

    def has_just_ended(self, key: bytes) -> bool:
        """Had an entry that a packet of that key opened a short while ago, and is no more?"""
        return key in self._ended

    def reset(self, arrival: Arrival) -> Outbox:
        """A RST that a switch has translated and sent on: its entry lingers, then ends."""
        found = whose(self._ground, arrival)
        if found is None:
            return drop(arrival.switch, "unknown_address")
        serving, entry = found
        if entry and serving.table.by_key(entry.key) is entry and not entry.flags & RESET:
            entry.flags |= RESET | (REFUSED if arrival.way is INTERNAL else 0)
            serving.table.changed(entry)
            self._lingering.append((arrival.now + self._ground.settings.linger, serving, entry))
        return []

    def remembered(self, arrival: Arrival, serving: Serving, key: bytes) -> Entry | None:
        """The entry of a packet with that key that may be revived."""
        which = arrival.way, serving, key, arrival.now
        return self._reset.find(*which) or self._half_closed.find(*which)

    def revived(self, arrival: Arrival, serving: Serving, key: bytes) -> Entry | None:
        """The entry of a packet with that key, in the table again, if a RST or one FIN has ended it: whoever sent that,
        the hosts have not taken it for the end. None if there is none, or its ports are others' by now."""
        entry = self.remembered(arrival, serving, key)
        if entry is None:
            return None
        self._forget(entry)
        if not serving.restore(entry, arrival.now):
            return None
        entry.flags, entry.last_seen = REINSTALLED, arrival.now
        self._ended.pop(entry.opening_key, None)
        arrival.switch.counters["connections_revived"] += 1
        return entry

    def entry_removed(self, switch: Switch, removed: EntryRemoved, now: float) -> Outbox:
        """One direction of an entry has seen its FIN and ran out; after both, the entry ends."""
        serving = self._directory.by_owner.get(owner_in(removed.cookie))
        if serving is None:
            return []
        entry = serving.table.find(removed.side, removed.key)
        if entry is None or removed.duration > (now - entry.created) * CLOCK_RATIO + CLOCK_STEP:
            return []  # older than the entry: it was a flow of an earlier connection with the same ports
        entry.flags |= removed.side.flag
        if serving.holders != {switch.lb.name}:
            entry.flags |= REINSTALLED
        if not _has_finished(entry, now):
            serving.table.changed(entry)
            return []
        out = self.end_all(serving, [entry], now)
        return out if entry.flags & REINSTALLED else []

    def finished(self, serving: Serving, found: Iterable[EntryStats], now: float) -> Outbox:
        """What an LB held of an external IP that it serves no more. Which of it has seen its FIN or RST was known there
        alone: elsewhere those entries would stay until they are idle for too long."""
        ended = []
        for stats in found:
            entry = serving.table.by_key(stats.key)
            # A flow older than the entry was an earlier connection's, with the same ports.
            if stats.finished and entry and entry.reply == stats.reply and stats.duration <= now - entry.created:
                entry.flags |= REINSTALLED | stats.side.flag
                if _has_finished(entry, now):
                    ended.append(entry)
        return self.end_all(serving, ended, now)

    def end_all(self, serving: Serving, entries: Iterable[Entry], now: float) -> Outbox:
        """Takes entries out of the table and out of every switch."""
        ended = tuple(entry for entry in entries if not entry.flags & GONE)
        for entry in ended:
            serving.remove(entry, now)
            self._forget(entry)
            self._ended.pop(entry.opening_key, None)
            self._ended[entry.opening_key] = now
        return [ToSwitch(name, message) for name in serving.holders for message in entry_messages(DeleteEntries, ended)]

    def expire(self, serving: Serving, entries: Iterable[Entry], now: float) -> Outbox:
        """They have been silent for too long. One that was half closed may speak again, for as long as it might have
        been silent if it had been open: its FIN may have been forged, or its other host has had nothing to say."""
        expired = list(entries)
        out = self.end_all(serving, expired, now)
        for entry in expired:
            until = entry.last_seen + serving.idle_timeout_of(service_of(entry.key))
            if entry.flags & ENDING and until > now and self._half_closed.add(serving, entry, until):
                self._ground.counters["half_closed_forgotten_early"] += 1
        return out

    def tick(self, now: float) -> Outbox:
        """Ends what has lingered long enough."""
        recent = now - CACHED_SECONDS
        for key in [key for key, _ in itertools.takewhile(lambda item: item[1] < recent, self._ended.items())]:
            del self._ended[key]
        self._reset.tick(now)
        self._half_closed.tick(now)
        out: Outbox = []
        while self._lingering and self._lingering[0][0] <= now:
            _, serving, entry = self._lingering.popleft()
            # A SYN may have made it live again, or another may have its place.
            if entry.flags & RESET and not entry.flags & GONE:
                out += self.end_all(serving, [entry], now)
                if self._reset.add(serving, entry, now + REMEMBERED_SECONDS):
                    self._ground.counters["resets_forgotten_early"] += 1
        return out

    def _forget(self, entry: Entry) -> None:
        """Nothing with one of its keys may be revived: another entry has had them since."""
        self._reset.forget(entry)
        self._half_closed.forget(entry)


def _has_finished(entry: Entry, now: float) -> bool:
    """FIN both ways? Where the ports had been used shortly before, nobody knows: the datapath's cache may have told the
    flows of the earlier connection's FINs. Such an entry stays until it is idle; a packet puts its flows back."""
    unsure = entry.flags & REUSED and now < entry.created + CACHED_SECONDS
    return not unsure and entry.flags & (FIN_IN | FIN_OUT) == FIN_IN | FIN_OUT
