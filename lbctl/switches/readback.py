"""What a switch holds, read back after it (or the controller) has come anew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from lbctl.openflow.cookies import MARK, MASK_KIND, MASK_MARK, Kind, kind_of, owner_in
from lbctl.openflow.inbound import (
    EntryStats,
    EntryStatsDecoder,
    WayBack,
    decode_flow_stats,
    decode_neighbours,
    decode_way_back,
)
from lbctl.openflow.tables import TABLES, number
from lbctl.values.side import EXTERNAL

ENTRIES_ONLY = Kind.ENTRY_IN & Kind.ENTRY_OUT
"""A bit that, in the access tables, only entries' kinds have: a question costs a walk through all of them."""
assert not (Kind.PIPELINE | Kind.SLICE) & ENTRIES_ONLY
ACCESS_TABLES = ("access_in", "access_out")
RULES = MARK << 56, MASK_MARK | ENTRIES_ONLY << 48
"""Cookie and mask of the access tables' flows that are no entries."""


class Question(NamedTuple):
    """Which flows of a table? of_entries: those of entries."""

    table: str
    cookie: int
    mask: int
    of_entries: bool = False


@dataclass(slots=True)
class FoundEntry:
    """An entry as its flows tell it; `next_hop` is empty without the outward flow."""

    reply: bytes
    next_hop: bytes
    inner_hop: bytes
    packets: int
    bytes: int
    duration: int
    sides: int
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
    way_back: WayBack = field(default_factory=lambda: WayBack({}, {}))
    """Where the switch answers clients of sliced services to."""
    entries: dict[bytes, FoundEntry] = field(default_factory=dict)
    open: set[Question] = field(default_factory=set)
    """What has not been answered whole."""

    def questions(self) -> list[Question]:
        """One for each table, and one for each direction of the access table. Table arp comes first: see
        `answered_for`."""
        found: list[Question] = []
        for table in sorted(TABLES.values(), key=lambda table: table.name != "arp"):
            if table.name in ACCESS_TABLES:
                kind = Kind.ENTRY_IN if table.name == "access_in" else Kind.ENTRY_OUT
                found += [Question(table.name, *RULES),
                          Question(table.name, MARK << 56 | kind << 48, MASK_KIND, of_entries=True)]
            else:
                found.append(Question(table.name, MARK << 56, MASK_MARK))
        self.open = set(found)
        return found

    def answer(self, question: Question, body: bytes, more: bool) -> None:
        """One part of the answer to a question; what it says of another table than the one asked about is not heard."""
        if question.of_entries:
            entries, others = self.decoder.decode(body)
            self.strange += len(others)
            for stats in entries:
                self._add(stats)
        else:
            self.neighbours.update(decode_neighbours(body))
            if question.table == "way_back":
                for known, found in zip(self.way_back, decode_way_back(body), strict=True):
                    known.update(found)
            table = number(question.table)
            flows = (flow for flow in decode_flow_stats(body) if flow.table == table)
            self.cookies.update((question.table, flow.cookie) for flow in flows)
        if not more:
            self.open.discard(question)

    @property
    def complete(self) -> bool:
        """Is everything here that was asked for?"""
        return not self.open

    def answered_for(self) -> list[int]:
        """Once table arp has been read: the cookies of its flows that answer for external IPs."""
        return [
            cookie
            for table, cookie in self.cookies
            if table == "arp" and kind_of(cookie) == Kind.ARP and owner_in(cookie)
        ]

    def _add(self, stats: EntryStats) -> None:
        direction = stats.side.flag
        next_hop, inner_hop = (b"", stats.hop) if stats.side is EXTERNAL else (stats.hop, b"")
        found = self.entries.get(stats.key)
        if found is None:
            self.entries[stats.key] = FoundEntry(
                stats.reply, next_hop, inner_hop, stats.packets, stats.bytes, stats.duration, direction
            )
        elif found.reply == stats.reply:
            found.sides |= direction
            found.next_hop = found.next_hop or next_hop
            found.inner_hop = found.inner_hop or inner_hop
            found.duration = max(found.duration, stats.duration)
            found.packets += stats.packets
            found.bytes += stats.bytes
