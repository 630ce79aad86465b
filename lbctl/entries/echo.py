"""ICMP echo of inside hosts through a NAT gateway (RFC 5508 section 3): its identifiers take the place of ports.

Open vSwitch cannot match an identifier, so the controller translates each echo and its reply itself, at whichever LB
they come to. The table is therefore no part of an access table: a move has nothing to copy, and a restart of the
controller loses the replies that are on their way at that moment.
"""

from __future__ import annotations

import random

from lbctl.entries.access_table import Entry
from lbctl.values.keys import inverse_key, pack_key, unpack_key
from lbctl.values.side import EXTERNAL, Side

LIMIT = 16_384
"""Echoes of one NAT gateway that are remembered."""
ATTEMPTS = 16
"""Identifiers tried until one is free, so that the work for a packet is bounded."""


class Echoes:
    """The echoes of one NAT gateway, as entries in the order of their last use; the identifier is both ports of a
    key."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Entry] = {}
        self._by_reply: dict[bytes, Entry] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, side: Side, key: bytes) -> Entry | None:
        """The entry whose replies (from outside) or requests (from an inside host) carry this key."""
        return (self._by_key if side is EXTERNAL else self._by_reply).get(key)

    def request(self, key: bytes, external: bytes, next_hop: bytes, inner_hop: bytes, now: float,
                idle: float) -> Entry | None:
        """The entry for an inside host's request of that key, sent out as `external`; None: no identifier or no room.

        The identifier stays as it is if no other host uses it to the same address. idle: seconds after which an entry
        may go.
        """
        entry = self._by_reply.get(key)
        if entry is None:
            self._forget_idle(now - idle)
            free = self._free_key(key, external)
            if free is None or len(self) >= LIMIT:
                return None
            entry = Entry(free, key, next_hop, now)
        entry.next_hop, entry.inner_hop = next_hop, inner_hop
        self.used(entry, now)
        return entry

    def used(self, entry: Entry, now: float) -> None:
        """A packet of that entry has come."""
        entry.last_seen = now
        self._by_key.pop(entry.key, None)
        self._by_key[entry.key] = self._by_reply[entry.reply] = entry

    def _free_key(self, key: bytes, external: bytes) -> bytes | None:
        protocol, _, identifier, outside, _ = unpack_key(key)
        for _ in range(ATTEMPTS):
            found = inverse_key(pack_key(protocol, external, identifier, outside, identifier))
            if found not in self._by_key:
                return found
            identifier = random.randrange(0x10000)
        return None

    def _forget_idle(self, before: float) -> None:
        while self._by_key:
            entry = next(iter(self._by_key.values()))
            if entry.last_seen > before:
                return
            del self._by_key[entry.key], self._by_reply[entry.reply]
