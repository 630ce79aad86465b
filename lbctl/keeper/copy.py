"""The copy itself (seed figure 13, copy 54): takes batches, and gives rows back. Pure; lbctl.keeper.journal makes it last.

A full copy is put aside part by part, and replaces what there was only with its last part. So what is given back is always
what the table was at one batch of one session, never a mixture.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from lbctl.access_table import GONE
from lbctl.keeper.batches import Answer, Batch, BatchKind, Reply
from lbctl.keeper.rows import Kind, Section, Stream, identity_size, row_size, version_of

ENDED_SESSIONS = 16
"""So many are remembered, for their batches that are still under way when the next one has begun."""

SHARED_LIMIT = 10_000

Rows = dict[bytes, bytes]
"""Identity of a row -> what may change of it."""


@dataclass
class StreamCopy:
    """The rows of one stream. ports: what the DESTINATION rows' external ports follow from."""

    ports: bytes = b""
    rows: dict[Kind, Rows] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


class Session:
    """What one session has said so far: up to that sequence number."""

    def __init__(self, number: int, sequence: int = 0) -> None:
        self.number = number
        self.sequence = sequence
        self.streams: dict[Stream, StreamCopy] = {}
        self._same: dict[bytes, bytes] = {}
        """One object for all rows that have the same state and next hop: half of the memory."""

    def __len__(self) -> int:
        return sum(map(len, self.streams.values()))

    def take(self, batch: Batch) -> None:
        """Applies a batch, whatever its number, which it then has."""
        self.sequence = batch.sequence
        for section in batch.sections:
            stream = self.streams.setdefault(section.stream, StreamCopy())
            stream.ports = section.ports or stream.ports
            self._take(stream.rows.setdefault(section.kind, {}), section)
            if not len(stream):
                del self.streams[section.stream]

    def _take(self, rows: Rows, section: Section) -> None:
        if len(self._same) > SHARED_LIMIT:
            self._same.clear()
        same = self._same.setdefault
        for identity, changing in _split(section):
            if changing[0] & GONE:
                rows.pop(identity, None)
            else:
                rows[identity] = same(changing, changing)

    def would_have(self, batch: Batch) -> int:
        """Its number of rows with the batch applied."""
        held = len(self)
        for section in batch.sections:
            rows = self.streams[section.stream].rows.get(section.kind, {}) if section.stream in self.streams else {}
            for identity, changing in _split(section):
                held += (identity not in rows) if not changing[0] & GONE else -(identity in rows)
        return held

    def contradicts(self, batch: Batch) -> bool:
        """Do the batch's ports differ from those that rows here rely on?"""
        return any(section.kind is Kind.DESTINATION and stream.ports != section.ports and bool(stream.rows.get(section.kind))
                   for section in batch.sections if (stream := self.streams.get(section.stream)))

    def sections(self, streams: Iterable[Stream] | None = None) -> Iterator[Section]:
        """The rows of these streams (None: of all)."""
        for stream in self.streams if streams is None else streams:
            found = self.streams.get(stream, StreamCopy())
            for kind, rows in found.rows.items():
                if rows:
                    yield Section(kind, stream, found.ports if kind is Kind.DESTINATION else b"",
                                  b"".join([part for row in rows.items() for part in row]))


class Copy:
    """The copy for these server addresses (packed), of at most so many rows, and as many while a full copy is being received."""

    def __init__(self, servers: Iterable[bytes], max_rows: int = 1_000_000) -> None:
        self.servers = frozenset(servers)
        self.max_rows = max_rows
        self.current: Session | None = None
        """What it gives back."""
        self.coming: Session | None = None
        """A full copy whose last part has not come."""
        self.counters: Counter[str] = Counter()
        self._ended: deque[int] = deque(maxlen=ENDED_SESSIONS)

    def judge(self, batch: Batch) -> Reply | None:
        """What to reply to a batch that must not be applied, counted; None: apply it (`take`), and acknowledge."""
        reply = self._judge(batch)
        if reply is not None:
            self.counters["repeated" if reply.answer is Answer.ACKNOWLEDGED else reply.answer.value] += 1
            if reply.answer is Answer.REFUSED:
                self.counters["rows_refused"] += batch.rows
        return reply

    def _judge(self, batch: Batch) -> Reply | None:
        foreign = [section.stream.server for section in batch.sections if section.stream.server not in self.servers]
        if foreign:
            return Reply(Answer.REFUSED, 0, f"this keeper does not keep entries of server {ip_address(foreign[0])}")
        if batch.session in self._ended:
            return Reply(Answer.RESYNC, 0, "another session has replaced this one")
        session = self._session(batch.session)
        if session is None:
            if batch.kind is BatchKind.INCREMENT or batch.sequence != 1:
                return Reply(Answer.RESYNC, 0, "this session's full copy is not here")
        elif batch.sequence <= session.sequence:
            return Reply(Answer.ACKNOWLEDGED, session.sequence, "had it already")
        elif batch.sequence != session.sequence + 1:
            return Reply(Answer.RESYNC, session.sequence, f"batch {session.sequence + 1} has not come before {batch.sequence}")
        elif (batch.kind is BatchKind.INCREMENT) != (session is self.current):
            return Reply(Answer.RESYNC, session.sequence, "an increment in a full copy, or the other way round")
        elif session.contradicts(batch):
            return Reply(Answer.RESYNC, session.sequence, "other external ports follow from the servers' ports than before")
        return self._over_limit(session, batch)

    def _over_limit(self, session: Session | None, batch: Batch) -> Reply | None:
        session_now = session or Session(batch.session)
        if len(session_now) + batch.rows <= self.max_rows or session_now.would_have(batch) <= self.max_rows:
            return None
        return Reply(Answer.REFUSED, session_now.sequence,
                     f"the copy would have more than {self.max_rows} rows; start the keeper with a larger --max-rows")

    def take(self, batch: Batch) -> Reply:
        """Applies a batch that `judge` has let pass."""
        session = self._session(batch.session)
        if session is None:
            if self.coming:
                self._ended.append(self.coming.number)
            session = self.coming = Session(batch.session)
        session.take(batch)
        if batch.kind is BatchKind.LAST_PART:
            if self.current:
                self._ended.append(self.current.number)
            self.current, self.coming = session, None
            self.counters["full_copies"] += 1
        self.counters["acknowledged"] += 1
        self.counters["rows_received"] += batch.rows
        return Reply(Answer.ACKNOWLEDGED, batch.sequence)

    def restore(self, batch: Batch) -> None:
        """Begins with what `snapshot` gave: a full copy (LAST_PART), or what has come of one (PART); of its own servers."""
        session = Session(batch.session)
        session.take(batch._replace(sections=[section for section in batch.sections if section.stream.server in self.servers]))
        if batch.kind is BatchKind.LAST_PART:
            self.current = session
        else:
            self.coming = session

    def snapshot(self) -> list[Batch]:
        """Everything, for `restore`."""
        found = ((BatchKind.LAST_PART, self.current), (BatchKind.PART, self.coming))
        return [Batch(kind, session.number, session.sequence, list(session.sections())) for kind, session in found if session]

    def streams(self) -> dict[Stream, int]:
        """Number of rows of each stream."""
        return {stream: len(found) for stream, found in self.current.streams.items()} if self.current else {}

    def rows(self, external: bytes, servers: Iterable[bytes] | None = None) -> Batch | None:
        """What it has of that external IP (packed) for these servers (None: for all). None: nothing was ever received."""
        if self.current is None:
            return None
        wanted = [Stream(server, external) for server in (self.servers if servers is None else servers)]
        return Batch(BatchKind.LAST_PART, self.current.number, self.current.sequence, list(self.current.sections(wanted)))

    def _session(self, number: int) -> Session | None:
        return next((session for session in (self.current, self.coming) if session and session.number == number), None)


def _split(section: Section) -> Iterator[tuple[bytes, bytes]]:
    """Identity of each row, and what may change of it."""
    version = version_of(section.stream)
    identity, size, rows = identity_size(section.kind, version), row_size(section.kind, version), section.rows
    return struct.Struct(f"{identity}s{size - identity}s").iter_unpack(rows)

