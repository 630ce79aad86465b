"""The copy itself (seed figure 13, copy 54): takes batches, and gives rows back. Pure; lbctl.keeper.process.journal
makes it last.

A full copy is put aside part by part, and replaces what there was only with its last part. So what is given back of a
server is always what its entries were at one batch of one session, never a mixture.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from lbctl.entries.access_table import GONE
from lbctl.keeper.batches import Answer, Batch, BatchKind, Reply
from lbctl.keeper.rows import RowKind, Section, Stream, identity_size, row_size, version_of

ENDED_SESSIONS = 16
"""So many of a server are remembered, for their batches that are still under way when the next one has begun."""
SHARED_LIMIT = 10_000

Rows = dict[bytes, bytes]
"""Identity of a row -> what may change of it."""


@dataclass
class StreamCopy:
    """The rows of one stream. ports: what the DESTINATION rows' external ports follow from."""

    ports: bytes = b""
    rows: dict[RowKind, Rows] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of rows."""
        return sum(map(len, self.rows.values()))


class Session:
    """What one session has said of its server so far: up to that sequence number, which came at that time."""

    def __init__(self, server: bytes, number: int) -> None:
        self.server = server
        self.number = number
        self.sequence = 0
        self.taken_at = 0.0
        self.streams: dict[Stream, StreamCopy] = {}
        self._same: dict[bytes, bytes] = {}
        """One object for all rows that have the same state and next hop."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return sum(stream.size for stream in self.streams.values())

    def take(self, batch: Batch, now: float) -> None:
        """Applies a batch, whatever its number, which it then has."""
        self.sequence, self.taken_at = batch.sequence, now
        for section in batch.sections:
            stream = self.streams.setdefault(section.stream, StreamCopy())
            stream.ports = section.ports or stream.ports
            self._take(stream.rows.setdefault(section.kind, {}), section)
            if not stream.size:
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
        held = self.size
        for section in batch.sections:
            rows = self.streams[section.stream].rows.get(section.kind, {}) if section.stream in self.streams else {}
            for identity, changing in _split(section):
                held += (identity not in rows) if not changing[0] & GONE else -(identity in rows)
        return held

    def contradicts(self, batch: Batch) -> bool:
        """Do the batch's ports differ from those that rows here rely on?"""
        return any(section.kind is RowKind.DESTINATION and stream.ports != section.ports
                   and bool(stream.rows.get(section.kind))
                   for section in batch.sections if (stream := self.streams.get(section.stream)))

    def batch(self, kind: BatchKind, external: bytes | None = None) -> Batch:
        """Everything (of that external IP) as one batch."""
        return Batch(kind, self.server, self.number, self.sequence, [
            Section(rows_kind, stream, found.ports if rows_kind is RowKind.DESTINATION else b"", b"".join(
                [part for row in rows.items() for part in row]))
            for stream, found in self.streams.items() if external in (None, stream.external)
            for rows_kind, rows in found.rows.items() if rows])


class ServerCopy:
    """The copy of one server's entries. current: what is given back; coming: a full copy whose last part has not
    come."""

    def __init__(self) -> None:
        self.current: Session | None = None
        self.coming: Session | None = None
        self._ended: deque[int] = deque(maxlen=ENDED_SESSIONS)

    def judge(self, batch: Batch) -> Reply | None:
        """None: it is the next one."""
        if batch.session in self._ended:
            return Reply(Answer.RESYNC, 0, "another session has replaced this one")
        session = self.session(batch.session)
        if session is None:
            begins = batch.kind is not BatchKind.INCREMENT and batch.sequence == 1
            return None if begins else Reply(Answer.RESYNC, 0, "this session's full copy is not here")
        if batch.sequence <= session.sequence:
            return Reply(Answer.ACKNOWLEDGED, session.sequence, "had it already")
        if batch.sequence != session.sequence + 1:
            return Reply(Answer.RESYNC, session.sequence,
                         f"batch {session.sequence + 1} has not come before {batch.sequence}")
        if (batch.kind is BatchKind.INCREMENT) != (session is self.current):
            return Reply(Answer.RESYNC, session.sequence, "an increment in a full copy, or the other way round")
        if session.contradicts(batch):
            return Reply(Answer.RESYNC, session.sequence,
                         "other external ports follow from the servers' ports than before")
        return None

    def take(self, batch: Batch, now: float) -> None:
        """Applies the next batch."""
        session = self.session(batch.session)
        if session is None:
            self._end(self.coming)
            session = self.coming = Session(batch.server, batch.session)
        session.take(batch, now)
        if batch.kind is BatchKind.LAST_PART:
            self._end(self.current)
            self.current, self.coming = session, None
        elif session is self.current:  # its sender has not begun another one, so what is coming was left over
            self._end(self.coming)
            self.coming = None

    @property
    def held(self) -> int:
        """Rows that it has, or will have when what is coming is complete."""
        return max(session.size if session else 0 for session in (self.current, self.coming))

    def session(self, number: int) -> Session | None:
        return next((session for session in (self.current, self.coming) if session and session.number == number), None)

    def _end(self, session: Session | None) -> None:
        if session:
            self._ended.append(session.number)


class Copy:
    """The copies for these server addresses (packed), of at most so many rows together; full copies that are coming may
    have as many again."""

    def __init__(self, servers: Iterable[bytes], max_rows: int = 1_000_000) -> None:
        self.servers = {server: ServerCopy() for server in servers}
        self.max_rows = max_rows
        self.counters: Counter[str] = Counter()

    def judge(self, batch: Batch) -> Reply | None:
        """What to reply to a batch that must not be applied, counted; None: apply it (`take`), and acknowledge."""
        reply = self._judge(batch)
        if reply is not None:
            self.counters["repeated" if reply.answer is Answer.ACKNOWLEDGED else reply.answer.value] += 1
            if reply.answer is Answer.REFUSED:
                self.counters["rows_refused"] += batch.rows
        return reply

    def _judge(self, batch: Batch) -> Reply | None:
        server = self.servers.get(batch.server)
        if server is None:
            return Reply(Answer.REFUSED, 0,
                         f"this keeper is not for server {ip_address(batch.server)}; start it with --server")
        return server.judge(batch) or self._over_limit(server, batch)

    def _over_limit(self, server: ServerCopy, batch: Batch) -> Reply | None:
        session = server.session(batch.session) or Session(batch.server, batch.session)
        others = sum(each.held for each in self.servers.values() if each is not server)
        if others + session.size + batch.rows <= self.max_rows or others + session.would_have(batch) <= self.max_rows:
            return None
        return Reply(Answer.REFUSED, session.sequence,
                     f"the copy would have more than {self.max_rows} rows; start the keeper with a larger --max-rows")

    def take(self, batch: Batch, now: float) -> Reply:
        """Applies a batch that `judge` has let pass. now: seconds since the epoch."""
        self.servers[batch.server].take(batch, now)
        self.counters["acknowledged"] += 1
        self.counters["rows_received"] += batch.rows
        self.counters["full_copies"] += batch.kind is BatchKind.LAST_PART
        return Reply(Answer.ACKNOWLEDGED, batch.sequence)

    def snapshot(self) -> list[tuple[Batch, float]]:
        """Everything, for `restore`."""
        return [(session.batch(kind), session.taken_at) for server in self.servers.values()
                for kind, session in ((BatchKind.LAST_PART, server.current), (BatchKind.PART, server.coming))
                if session]

    def restore(self, batch: Batch, taken_at: float) -> None:
        """Begins with what `snapshot` gave: a full copy (LAST_PART), or what has come of one (PART). Not of foreign
        servers."""
        if server := self.servers.get(batch.server):
            session = Session(batch.server, batch.session)
            session.take(batch, taken_at)
            if batch.kind is BatchKind.LAST_PART:
                server.current = session
            else:
                server.coming = session

    @property
    def rows(self) -> int:
        """Of all that is given back."""
        return sum(server.current.size for server in self.servers.values() if server.current)

    def streams(self) -> dict[Stream, int]:
        """Number of rows of each stream, in order of addresses."""
        return dict(sorted((stream, found.size) for server in self.servers.values() if server.current
                           for stream, found in server.current.streams.items()))


def _split(section: Section) -> Iterator[tuple[bytes, bytes]]:
    """Identity of each row, and what may change of it."""
    version = version_of(section.stream)
    identity, size = identity_size(section.kind, version), row_size(section.kind, version)
    return struct.Struct(f"{identity}s{size - identity}s").iter_unpack(section.rows)
