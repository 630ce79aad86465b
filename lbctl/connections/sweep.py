"""Finds connections that ended or died silently: reads the packet counters of every entry, a few buckets at a time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.serving import Directory, Serving
from lbctl.openflow.cookies import MASK_ALL, entry_cookie
from lbctl.openflow.inbound import EntryStats
from lbctl.openflow.messages import ReadFlows
from lbctl.site.model import Settings
from lbctl.switches.switch import Switch
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import Side

SHORTEST, LONGEST = 0.5, 60.0
ASKED_AT_ONCE, LOOKS_AT_ONCE = 50, 500
"""Requests at a tick, about, and external IPs looked at: in a large site rounds take longer, else the controller would
do nothing but read."""
SOON = 0.01
"""Seconds: not at this tick any more."""


def interval(serving: Serving) -> float:
    """Seconds for a round: an entry ends between its idle timeout and two rounds later."""
    settings: Settings = serving.settings
    protocols = {protocol for protocol, _ in serving.services} or {TCP, UDP}
    shortest = min(settings.idle_timeout_of(protocol) for protocol in protocols)
    return min(max(shortest / 4, SHORTEST), LONGEST)


@dataclass(slots=True)
class Asked:
    """A bucket whose counters are on their way."""

    serving: Serving
    open: int = len(Side)
    """Directions that have not been answered whole."""
    counts: dict[bytes, list[int]] = field(default_factory=dict)
    """Key -> packets and bytes, of both directions."""
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

    def due_at(self, bucket: int) -> float:
        """When its bucket of that number (from 0) is to be asked for, at the earliest: the first tenth at once."""
        return self.started + (bucket / self.size - 0.1) * self.interval / 2


class Sweep:
    """Each external IP has its rounds; at the start of one come the entries that the last one has found idle."""

    def __init__(self) -> None:
        self._rounds: dict[int, Round] = {}
        self._asked: dict[int, Asked] = {}
        self._agenda: list[tuple[float, int]] = []
        """A heap: when to look at which owner."""
        self._known: Mapping[int, Serving] = {}
        """What is on the agenda: by_owner of the directory, as it was."""

    def tick(self, directory: Directory, switches: Mapping[str, Switch], new_token: Callable[[], int],
             now: float) -> tuple[Outbox, list[tuple[Serving, list[Entry]]]]:
        """The requests that are due, and the idle entries. Costs what is due, not what there is."""
        self._enlist(directory.by_owner, now)
        out: Outbox = []
        idle: list[tuple[Serving, list[Entry]]] = []
        for _ in range(LOOKS_AT_ONCE):
            if not self._agenda or self._agenda[0][0] > now or len(out) >= ASKED_AT_ONCE:
                break
            owner = self._agenda[0][1]
            if serving := self._known.get(owner):
                heapq.heapreplace(self._agenda, (self._look(serving, switches, new_token, now, out, idle), owner))
            else:
                heapq.heappop(self._agenda)
                self._rounds.pop(owner, None)
        return out, idle

    def _enlist(self, servings: Mapping[int, Serving], now: float) -> None:
        """Puts new external IPs on the agenda."""
        if servings is not self._known:
            listed = {owner for _, owner in self._agenda}
            for owner in servings.keys() - listed:
                heapq.heappush(self._agenda, (now, owner))
            self._known = servings

    def _look(self, serving: Serving, switches: Mapping[str, Switch], new_token: Callable[[], int], now: float, out: Outbox,
              idle: list[tuple[Serving, list[Entry]]]) -> float:
        """Does what is due, adding to `out` and `idle`. Returns when to look again."""
        if not switches[serving.assigned].ready:
            self._rounds.pop(serving.owner, None)
            return now + SHORTEST
        current = self._rounds.get(serving.owner) or Round(float("-inf"), 0.0, 0, deque())
        if not current.work and now - current.started >= current.interval:
            if current.open == 0 and (entries := serving.idle_since(now)):
                idle.append((serving, entries))
            for token in current.tokens:
                self._asked.pop(token, None)  # what has not been answered by now will not be
            buckets = deque(sorted({entry.bucket for entry in serving.table.entries()}))
            current = self._rounds[serving.owner] = Round(now, interval(serving), len(buckets), buckets)
        out += self._due(serving, current, new_token, now)
        if not current.work:
            return current.started + current.interval
        return max(current.due_at(current.size - len(current.work)), now + SOON)

    def _due(self, serving: Serving, current: Round, new_token: Callable[[], int], now: float) -> Outbox:
        out: Outbox = []
        while current.work and now >= current.due_at(current.size - len(current.work)) and len(out) < ASKED_AT_ONCE:
            bucket = current.work.popleft()
            current.open += 1
            asked = Asked(serving)
            for side in Side:
                token = new_token()
                self._asked[token] = asked
                current.tokens.append(token)
                cookie = entry_cookie(side, serving.owner, bucket)
                out.append(ToSwitch(serving.assigned, ReadFlows(side.access_table, cookie, MASK_ALL, token)))
        return out

    def asked(self, token: int) -> bool:
        return token in self._asked

    def answer(self, token: int, found: Iterable[EntryStats], more: bool, now: float) -> tuple[Entry, ...]:
        """Notes which entries have had packets since the last round. Returns those that the access table does not have:
        leftovers in the switch (a move back can overtake the deletion of the old entries)."""
        asked = self._asked[token]
        for stats in found:
            counts = asked.counts.setdefault(stats.key, [0, 0])
            counts[0] += stats.packets
            counts[1] += stats.bytes
            asked.replies[stats.key] = stats.reply
        if more:
            return ()
        del self._asked[token]
        asked.open -= 1
        if asked.open:
            return ()
        if current := self._rounds.get(asked.serving.owner):
            current.open -= 1
        return self._note(asked, now)

    @staticmethod
    def _note(asked: Asked, now: float) -> tuple[Entry, ...]:
        unknown = []
        for key, (packets, size) in asked.counts.items():
            entry = asked.serving.table.by_key(key)
            if entry is None:
                unknown.append(Entry(key, asked.replies[key], NO_HOP, now))
            elif entry.packets != packets:
                entry.packets, entry.bytes = packets, size
                entry.last_seen = now
        return tuple(unknown)
