"""What a switch holds, read back after it (or the controller) has come anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lbctl.openflow.cookies import MARK, MASK_KIND, MASK_MARK, Kind, kind_of, owner_in
from lbctl.openflow.inbound import EntryStats, EntryStatsDecoder, decode_flow_stats, decode_neighbours
from lbctl.openflow.messages import Message, ReadFlows
from lbctl.openflow.tables import TABLES, name_of
from lbctl.values.keys import BUCKETS
from lbctl.values.side import EXTERNAL


@dataclass(slots=True)
class Found:
    """An entry as its flows tell it; `next_hop` is empty without the outward flow."""

    reply: bytes
    next_hop: bytes
    inner_hop: bytes
    packets: int
    bytes: int
    duration: int
    directions: int
    """The sides (Side.flag) whose flows are there."""


@dataclass(slots=True)
class ReadBack:
    """Collects the answers to the requests that `requests` asks for."""

    decoder: EntryStatsDecoder
    cookies: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(table, cookie) of each flow of ours that is not an entry."""
    strange: int = 0
    """Flows that carry an entry's cookie but are not as we make them: left alone, and told."""
    neighbours: dict[bytes, bytes] = field(default_factory=dict)
    """Packed server address -> MAC, as the switch delivers to them now."""
    entries: dict[bytes, Found] = field(default_factory=dict)
    waiting: dict[int, bool] = field(default_factory=dict)
    """Token of each request under way: is it for entries?"""
    arp_token: int = 0
    """Of the request for table arp, which comes first: see `answered_for`."""

    def requests(self, new_token) -> list[Message]:
        """One request for each table, and one for each direction of the access table."""
        messages: list[Message] = []
        for table in sorted(TABLES.values(), key=lambda table: table.name != "arp"):
            if table.name in ("access_in", "access_out"):
                kinds = (Kind.PIPELINE, Kind.ENTRY_IN if table.name == "access_in" else Kind.ENTRY_OUT)
                asked = [(MARK << 56 | kind << 48, MASK_KIND, kind != Kind.PIPELINE) for kind in kinds]
            else:
                asked = [(MARK << 56, MASK_MARK, False)]
            for cookie, mask, is_entries in asked:
                token = new_token()
                self.waiting[token] = is_entries
                self.arp_token = self.arp_token or token
                messages.append(ReadFlows(table.name, cookie, mask, token))
        return messages

    def answer(self, token: int, body: bytes, more: bool) -> bool:
        """One part of an answer. True once everything asked for is here."""
        if token not in self.waiting:
            return False
        if self.waiting[token]:
            entries, others = self.decoder.decode(body)
            self.strange += len(others)
            for stats in entries:
                self._add(stats)
        else:
            self.neighbours.update(decode_neighbours(body))
            self.cookies.update((name_of(flow.table), flow.cookie) for flow in decode_flow_stats(body))
        if not more:
            del self.waiting[token]
        return not self.waiting

    def answered_for(self) -> list[int]:
        """Once table arp has been read: the cookies of its flows that answer for external IPs."""
        return [cookie for table, cookie in self.cookies if table == "arp" and kind_of(cookie) == Kind.ARP and owner_in(cookie)]

    def _add(self, stats: EntryStats) -> None:
        direction = stats.side.flag
        next_hop, inner_hop = (b"", stats.hop) if stats.side is EXTERNAL else (stats.hop, b"")
        found = self.entries.get(stats.key)
        if found is None:
            self.entries[stats.key] = Found(stats.reply, next_hop, inner_hop, stats.packets, stats.bytes, stats.duration, direction)
        elif found.reply == stats.reply:
            found.directions |= direction
            found.next_hop = found.next_hop or next_hop
            found.inner_hop = found.inner_hop or inner_hop
            found.duration = max(found.duration, stats.duration)
            found.packets += stats.packets
            found.bytes += stats.bytes


def bucket_cookies(kind: Kind, owner: int) -> list[int]:
    """The cookies of an external IP's entries in one direction, one for each bucket."""
    return [MARK << 56 | kind << 48 | bucket << 32 | owner for bucket in range(BUCKETS)]
