"""Finds connections that ended or died silently, and those that never opened: reads the packet counters of every entry,
a few buckets at a time."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from lbctl.connections import pressure
from lbctl.connections.counted import counted_since
from lbctl.entries.access_table import GONE, NO_HOP, Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import FlowsAnswer
from lbctl.openflow.cookies import MASK_ALL, entry_cookie
from lbctl.openflow.inbound import EntryStats, EntryStatsDecoder, FlowStats
from lbctl.openflow.messages import DeleteEntries, ReadFlows
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import EXTERNAL, Side

SHORTEST, LONGEST = 0.5, 60.0
ASKED_AT_ONCE, LOOKS_AT_ONCE = 50, 200
"""Requests at a tick, about, and external IPs looked at: in a large site rounds take longer, else the controller would
do nothing but read."""
READ_PER_SECOND = 5_000
"""Entries of an external IP, at most: what half-open ones cost must not cost more."""
NOTICED = 5.0
"""Seconds after which it is noticed that there have come many."""
IDLE_AT_ONCE = 5_000
"""Entries that are looked at whether they are idle: some ms."""
SOON = 0.01
"""Seconds: not at this tick any more."""


def interval(serving: Serving) -> float:
    """Seconds for a round: an entry ends between its idle timeout and two rounds later."""
    shortest = min(map(serving.idle_timeout_of, serving.services or [(TCP, 0), (UDP, 0)]))
    shortest = min(shortest, serving.settings.half_closed_timeout)
    least = max(SHORTEST, len(serving.table) / READ_PER_SECOND)
    return max(min(shortest / 4, pressure.look_after(serving), LONGEST), least)


EndAll = Callable[[Serving, Iterable[Entry], float], Outbox]
Decode = Callable[[bytes], tuple[list[EntryStats], list[FlowStats]]]


@dataclass(slots=True)
class AskedBucket:
    """A bucket whose counters are on their way."""

    serving: Serving
    open: int = len(Side)
    """Directions that have not been answered whole."""
    counts: dict[bytes, list[int]] = field(default_factory=dict)
    """Key -> packets and bytes of both directions, and packets from outside."""
    replies: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Round:
    """One reading of all of an external IP's entries, spread over the first half of its interval."""

    started: float
    interval: float
    size: int
    work: deque[int]
    open: int = 0
    """Buckets that have been asked for and not answered."""
    tokens: list[int] = field(default_factory=list)
    """Of all that has been asked."""
    idle: Iterator[Entry] | None = None
    """Once all has been answered: entries that are still to be looked at whether they are idle."""

    def due_at(self, bucket: int) -> float:
        """When its bucket of that number (from 0) is to be asked for, at the earliest: the first tenth at once."""
        return self.started + (bucket / self.size - 0.1) * self.interval / 2


class Sweep:
    """Each external IP has its rounds; at the start of one come the entries that the last one has found idle."""

    def __init__(self, ground: Ground, end_all: EndAll, expire: EndAll, decode: Decode | None = None) -> None:
        """end_all: takes entries out of the table, and out of every switch; expire: so does this with those that were
        idle."""
        self._ground, self._end_all, self._expire = ground, end_all, expire
        self._decode = decode or EntryStatsDecoder().decode
        self._rounds: dict[int, Round] = {}
        self._agenda: list[tuple[float, int]] = []
        """A heap: when to look at which owner."""
        self._known: Mapping[int, Serving] = {}
        """What is on the agenda: by_owner of the directory, as it was."""

    def tick(self, now: float) -> Outbox:
        """Ends what is idle, and asks what is due. Costs what is due, not what there is."""
        self._enlist(self._ground.external_ips.by_owner, now)
        ended: Outbox = []
        asked: Outbox = []
        for _ in range(LOOKS_AT_ONCE):
            if not self._agenda or self._agenda[0][0] > now or len(asked) >= ASKED_AT_ONCE:
                break
            owner = self._agenda[0][1]
            if serving := self._known.get(owner):
                again_at = self._look(serving, now, asked, ended)
                heapq.heapreplace(self._agenda, (again_at, owner))
            else:
                heapq.heappop(self._agenda)
                self._rounds.pop(owner, None)
        return ended + asked

    def _enlist(self, servings: Mapping[int, Serving], now: float) -> None:
        """Puts new external IPs on the agenda."""
        if servings is not self._known:
            listed = {owner for _, owner in self._agenda}
            for owner in servings.keys() - listed:
                heapq.heappush(self._agenda, (now, owner))
            self._known = servings

    def _look(self, serving: Serving, now: float, asked: Outbox, ended: Outbox) -> float:
        """Does what is due, adding to `asked` and `ended`. Returns when to look again."""
        if not self._ground.switches[serving.assigned].ready:
            self._rounds.pop(serving.owner, None)
            return now + SHORTEST
        current = self._rounds.get(serving.owner) or Round(float("-inf"), 0.0, 0, deque())
        current.interval = min(current.interval, interval(serving))
        if not current.work and now - current.started >= current.interval:
            if current.open == 0 and self._look_for_idle(serving, current, now, ended):
                return now + SOON
            for token in current.tokens:
                self._ground.tokens.cancel(token)  # what has not been answered by now will not be
            buckets = deque(serving.table.buckets())
            current = self._rounds[serving.owner] = Round(now, interval(serving), len(buckets), buckets)
        asked += self._due(serving, current, now)
        if not current.work:
            return min(current.started + current.interval, now + NOTICED)
        return max(current.due_at(current.size - len(current.work)), now + SOON)

    def _look_for_idle(self, serving: Serving, current: Round, now: float, ended: Outbox) -> bool:
        """Among some of the entries. Are there others?"""
        if current.idle is None:
            current.idle = iter(serving.table.snapshot())
        some = list(itertools.islice(current.idle, IDLE_AT_ONCE))
        there = [entry for entry in some if not entry.flags & GONE]
        if idle := serving.idle_since(there, now, current.started):
            self._ground.counters["entries_expired"] += len(idle)
            ended += self._expire(serving, idle, now)
        return len(some) == IDLE_AT_ONCE

    def _due(self, serving: Serving, current: Round, now: float) -> Outbox:
        out: Outbox = []
        while current.work and now >= current.due_at(current.size - len(current.work)) and len(out) < ASKED_AT_ONCE:
            bucket = current.work.popleft()
            current.open += 1
            asked = AskedBucket(serving)
            for side in Side:
                answered = partial(self._answered, serving.assigned, asked)
                token = self._ground.tokens.new(FlowsAnswer(serving.assigned, answered))
                current.tokens.append(token)
                cookie = entry_cookie(side, serving.owner, bucket)
                out.append(ToSwitch(serving.assigned, ReadFlows(side.access_table, cookie, MASK_ALL, token)))
        return out

    def _answered(self, lb: str, asked: AskedBucket, body: bytes, more: bool, now: float) -> Outbox:
        """Notes which entries have had packets since the last round. Those that the access table does not have are
        deleted: leftovers in the switch (a move back can overtake the deletion of the old entries)."""
        for stats in self._decode(body)[0]:
            counts = asked.counts.setdefault(stats.key, [0, 0, 0])
            counts[0] += stats.packets
            counts[1] += stats.bytes
            counts[2] += stats.packets if stats.side is EXTERNAL else 0
            asked.replies[stats.key] = stats.reply
        if more:
            return []
        asked.open -= 1
        if asked.open:
            return []
        if current := self._rounds.get(asked.serving.owner):
            current.open -= 1
        return self._note(asked, lb, now)

    def _note(self, asked: AskedBucket, lb: str, now: float) -> Outbox:
        unknown: list[Entry] = []
        never_opened: list[Entry] = []
        half_open = asked.serving.table.half_open
        since = counted_since(asked.serving, self._ground.switches[lb])
        late = now - pressure.half_open_timeout(asked.serving)
        for key, (packets, size, from_outside) in asked.counts.items():
            entry = asked.serving.table.by_key(key)
            if entry is None:
                unknown.append(Entry(key, asked.replies[key], NO_HOP, now))
                continue
            if entry.packets != packets:
                entry.packets, entry.bytes = packets, size
                entry.last_seen = now
            if entry in half_open:
                from_opener = packets - from_outside if entry.inner_hop else from_outside
                if from_opener > half_open[entry] or entry.created < since:
                    del half_open[entry]
                elif entry.created <= late:
                    never_opened.append(entry)
        out: Outbox = [ToSwitch(lb, DeleteEntries(tuple(unknown)))] if unknown else []
        if never_opened:
            self._ground.counters["half_open_expired"] += len(never_opened)
            out += self._end_all(asked.serving, never_opened, now)
        return out
