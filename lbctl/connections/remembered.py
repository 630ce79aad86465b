"""Entries that have ended though their hosts may talk on: nobody here knows which sequence numbers these take for their
peer's, so what looked like an end may have been forged, or seen one way only."""

from __future__ import annotations

import itertools
from collections import OrderedDict

from lbctl.entries.access_table import Entry
from lbctl.ground.serving import Serving
from lbctl.values.side import EXTERNAL, Side


class Remembered:
    """At most so many, the latest."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._by_key: OrderedDict[bytes, tuple[float, Serving, Entry]] = OrderedDict()
        """Until when, and which; the oldest first."""
        self._by_reply: dict[bytes, bytes] = {}
        """Their keys, by their reply keys."""

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, serving: Serving, entry: Entry, until: float) -> bool:
        """True if another one had to go for it."""
        full = len(self._by_key) >= self.most
        if full:
            self.forget(next(iter(self._by_key.values()))[2])
        self._by_key[entry.key] = until, serving, entry
        self._by_reply[entry.reply] = entry.key
        return full

    def find(self, way: Side, serving: Serving, key: bytes, now: float) -> Entry | None:
        """The entry whose packets that way carry this key."""
        found = self._by_key.get(key if way is EXTERNAL else self._by_reply.get(key, b""))
        return found[2] if found and found[0] > now and found[1] is serving else None

    def forget(self, entry: Entry) -> None:
        """And whatever else has one of its keys."""
        for key in (entry.key, self._by_reply.get(entry.reply)):
            if key is not None and (found := self._by_key.pop(key, None)):
                self._by_reply.pop(found[2].reply, None)

    def tick(self, now: float) -> None:
        """Forgets the oldest, whose time is over."""
        over = itertools.takewhile(lambda found: found[0] <= now, self._by_key.values())
        for _, _, entry in list(over):
            self.forget(entry)
