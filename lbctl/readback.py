"""What a switch holds, read back after it (or the controller) has come anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lbctl.messages import Message, ReadFlows
from lbctl.openflow.inbound import EntryStats, EntryStatsDecoder, decode_flow_stats, decode_neighbours
from lbctl.pipeline.cookies import BUCKETS, MARK, MASK_KIND, MASK_MARK, Kind
from lbctl.pipeline.tables import TABLES, name_of


@dataclass(slots=True)
class Found:
    """An entry as its flows tell it; `next_hop` is None without the outward flow."""

    reply: bytes
    next_hop: bytes | None
    packets: int
    duration: int
    directions: int
    """1: inward flow there, 2: outward flow there, 3: both"""


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

    def requests(self, new_token) -> list[Message]:
        """One request for each table, and one for each direction of the access table."""
        messages: list[Message] = []
        for table in TABLES.values():
            if table.name in ("access_in", "access_out"):
                kinds = (Kind.PIPELINE, Kind.ENTRY_IN if table.name == "access_in" else Kind.ENTRY_OUT)
                asked = [(MARK << 56 | kind << 48, MASK_KIND, kind != Kind.PIPELINE) for kind in kinds]
            else:
                asked = [(MARK << 56, MASK_MARK, False)]
            for cookie, mask, is_entries in asked:
                token = new_token()
                self.waiting[token] = is_entries
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

    def _add(self, stats: EntryStats) -> None:
        direction = 1 if stats.next_hop is None else 2
        found = self.entries.get(stats.key)
        if found is None:
            self.entries[stats.key] = Found(stats.reply, stats.next_hop, stats.packets, stats.duration, direction)
        elif found.reply == stats.reply:
            found.directions |= direction
            found.next_hop = found.next_hop or stats.next_hop
            found.duration = max(found.duration, stats.duration)
            if direction == 1:
                found.packets = stats.packets


def bucket_cookies(kind: Kind, external_ip: int) -> list[int]:
    """The cookies of an external IP's entries in one direction, one for each bucket."""
    return [MARK << 56 | kind << 48 | bucket << 32 | external_ip for bucket in range(BUCKETS)]
