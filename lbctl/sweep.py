"""Finds connections that died silently: reads every entry's packet counter, a few buckets at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lbctl.access_table import Entry
from lbctl.messages import Outbox, ReadFlows
from lbctl.openflow.inbound import EntryStats
from lbctl.pipeline.cookies import MASK_ALL, Kind, entry_cookie
from lbctl.serving import Serving
from lbctl.switch import Switch

SHORTEST, LONGEST = 0.5, 60.0


class Sweep:
    """One round reads all entries once, spread over `interval` seconds; then come those idle for too long."""

    def __init__(self, idle_timeout: float) -> None:
        self.idle_timeout = idle_timeout
        self._work: deque[tuple[Serving, int]] = deque()
        self._round_started = float("-inf")
        self._round_size = 0
        self._asked: dict[int, Serving] = {}

    @property
    def interval(self) -> float:
        """Seconds for a round: an entry ends between idle_timeout and two rounds later."""
        return min(max(self.idle_timeout / 4, SHORTEST), LONGEST)

    def tick(self, servings: Iterable[Serving], switches: dict[str, Switch], new_token,
             now: float) -> tuple[Outbox, list[tuple[Serving, list[Entry]]]]:
        """The requests that are due; at the start of a round, also the entries that the last one has found idle."""
        idle = []
        if not self._work and now - self._round_started >= self.interval:
            watched = [serving for serving in servings if switches[serving.assigned].ready]
            if not self._asked:
                found = ((serving, list(serving.table.idle_since(now - self.idle_timeout))) for serving in watched)
                idle = [(serving, entries) for serving, entries in found if entries]
            self._asked.clear()
            self._work = deque((serving, bucket) for serving in watched
                               for bucket in sorted({entry.bucket for entry in serving.table.entries()}))
            self._round_started, self._round_size = now, len(self._work)
        return self._due(switches, new_token, now), idle

    def _due(self, switches: dict[str, Switch], new_token, now: float) -> Outbox:
        """The round's requests are spread over the first half of its interval."""
        due = self._round_size * min(1.0, (now - self._round_started) / (self.interval / 2) + 0.1)
        out: Outbox = []
        while self._work and self._round_size - len(self._work) < due:
            serving, bucket = self._work.popleft()
            if switches[serving.assigned].ready:
                token = new_token()
                self._asked[token] = serving
                cookie = entry_cookie(Kind.ENTRY_IN, int(serving.address), bucket)
                out.append((serving.assigned, ReadFlows("access_in", cookie, MASK_ALL, token)))
        return out

    def asked(self, token: int) -> bool:
        return token in self._asked

    def answer(self, token: int, found: Iterable[EntryStats], more: bool, now: float) -> tuple[Entry, ...]:
        """Notes which entries have had packets since the last round. Returns those that the access table does not have:
        leftovers in the switch (a move back can overtake the deletion of the old entries)."""
        serving = self._asked[token]
        if not more:
            del self._asked[token]
        unknown = []
        for stats in found:
            entry = serving.table.by_key(stats.key)
            if entry is None:
                unknown.append(Entry(stats.key, stats.reply, bytes(6), now))
            elif entry.packets != stats.packets:
                entry.packets = stats.packets
                entry.last_seen = now
        return tuple(unknown)
