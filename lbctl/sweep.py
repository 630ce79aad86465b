"""Finds connections that ended or died silently: reads the packet counters of every entry, a few buckets at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lbctl.access_table import NO_HOP, Entry
from lbctl.messages import Outbox, ReadFlows
from lbctl.model import TCP, UDP, Settings
from lbctl.openflow.inbound import EntryStats
from lbctl.pipeline.cookies import MASK_ALL, Kind, entry_cookie
from lbctl.serving import Serving
from lbctl.switch import Switch

SHORTEST, LONGEST = 0.5, 60.0
DIRECTIONS = (("access_in", Kind.ENTRY_IN), ("access_out", Kind.ENTRY_OUT))


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
    open: int = len(DIRECTIONS)
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


class Sweep:
    """Each external IP has its rounds; at the start of one come the entries that the last one has found idle."""

    def __init__(self) -> None:
        self._rounds: dict[int, Round] = {}
        self._asked: dict[int, Asked] = {}

    def tick(self, servings: Iterable[Serving], switches: dict[str, Switch], new_token: Callable[[], int],
             now: float) -> tuple[Outbox, list[tuple[Serving, list[Entry]]]]:
        """The requests that are due, and the idle entries."""
        out: Outbox = []
        idle = []
        known = {}
        for serving in servings:
            if not switches[serving.assigned].ready:
                continue
            current = known[serving.owner] = self._rounds.get(serving.owner) or Round(float("-inf"), 0.0, 0, deque())
            if not current.work and now - current.started >= current.interval:
                if current.open == 0 and (entries := serving.idle_since(now)):
                    idle.append((serving, entries))
                self._drop_requests(serving)
                buckets = deque(sorted({entry.bucket for entry in serving.table.entries()}))
                current = known[serving.owner] = Round(now, interval(serving), len(buckets), buckets)
            out += self._due(serving, current, new_token, now)
        self._rounds = known
        return out, idle

    def _drop_requests(self, serving: Serving) -> None:
        """What has not been answered by now will not be."""
        self._asked = {token: asked for token, asked in self._asked.items() if asked.serving is not serving}

    def _due(self, serving: Serving, current: Round, new_token: Callable[[], int], now: float) -> Outbox:
        due = current.size * min(1.0, (now - current.started) / (current.interval / 2) + 0.1)
        out: Outbox = []
        while current.work and current.size - len(current.work) < due:
            bucket = current.work.popleft()
            current.open += 1
            asked = Asked(serving)
            for table, kind in DIRECTIONS:
                token = new_token()
                self._asked[token] = asked
                out.append((serving.assigned, ReadFlows(table, entry_cookie(kind, serving.owner, bucket), MASK_ALL, token)))
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
