"""The sender's side of the copy of one server's entries on its keeper: which batch goes out next.

The control function tells it each entry that has been added, changed or removed, on its hot path: that costs one place
in a dict. A loop of its own asks for the batch that is due, sends it (lbctl.copies.client), and tells what came of it.
So a keeper that is slow or dead costs no time, and no more memory than `changes` entries.

Nothing goes out before `begin`: a session's full copy replaces what the keeper has, which a control function that
has just started may still need. Not for several threads; green threads are fine, since nothing here waits.
"""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from lbctl.entries.access_table import GONE, Entry
from lbctl.keeper.batches import Answer, Batch, BatchKind, Reply
from lbctl.keeper.rows import DerivedPorts, Stream, sections

LOOKED_AT_ONCE = 10_000
"""Entries, for a part of a full copy: some 3 ms."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds."""

    interval: float = 1.0
    """Between two batches of changes, unless `rows` changes are waiting."""
    rows: int = 2000
    """At most in a batch."""
    max_delay: float = 5.0
    """A copy that lacks changes for longer is behind. A keeper that there is nothing for hears from us this often."""
    changes: int = 50_000
    """That many changes are remembered; with more, the full copy is sent anew."""
    retry: tuple[float, float] = (0.2, 10.0)
    """Before a batch that failed is sent again: at first, doubled each time, at most."""
    calm: float = 30.0
    """A session that has lasted this long was no failure: the next one begins at once."""


class _OtherPorts(Exception):
    """Other external ports follow from the servers' ports than the session has said."""


@dataclass(slots=True)
class _Session:
    """What one session has sent. Times are the caller's clock in seconds."""

    number: int
    began: float
    left: Iterator[Entry | None] | None
    """Of the full copy; None once its last part is built. See Publisher."""
    covers: float
    """All changes up to then are in what is built."""
    sequence: int = 0
    """Of the last batch that is built."""
    built_at: float = 0.0
    synced: bool = False
    """The keeper has its full copy."""
    ports: dict[Stream, DerivedPorts] = field(default_factory=dict)
    """As they were said of each stream."""


class Publisher:
    """server: packed. entries: all its entries that the keeper shall have, whenever a full copy begins, and None for
    others that are looked at; some may change before it is their turn. ports: the external ports that follow from a
    stream's server ports (`rows.derived_ports`). new_session: another number each time."""

    def __init__(self, server: bytes, entries: Callable[[], Iterable[Entry | None]],
                 ports: Callable[[Stream], DerivedPorts], pace: Pace | None = None,
                 new_session: Callable[[], int] = lambda: secrets.randbits(64)) -> None:
        self.pace = pace or Pace()
        self.counters: Counter[str] = Counter()
        self.last_failure = ""
        """What the keeper, or the way to it, said last when a batch was not taken; empty since one was."""
        self.looked_at = 0
        """Entries, for the full copy, when it was last asked what is due."""
        self._server, self._entries, self._ports, self._new_session = server, entries, ports, new_session
        self._changes: dict[bytes, Entry] = {}
        self._limit = 0
        """Of changes that are remembered: 0 while the full copy is still to begin, which will have them."""
        self._begun = False
        self._session: _Session | None = None
        self._complete = 0.0
        """Up to then the keeper's copy was last known to lack nothing."""
        self._batch: Batch | None = None
        self._under_way = False
        self._failures = self._resyncs = 0
        self._not_before = 0.0
        """Nothing is sent until then: see Pace.retry."""

    def begin(self, now: float) -> None:
        """The access tables are known: the keeper's copy may be replaced by them. Does nothing the second time."""
        if not self._begun:
            self._begun, self._complete = True, now

    def changed(self, entry: Entry) -> None:
        """An entry has been added, has another state or next hop, or has been removed (GONE). Costs less than 1 us."""
        if len(self._changes) < self._limit:
            self._changes[entry.key + entry.reply] = entry
        elif self._limit:
            self.counters["overflows"] += 1
            self._lose("more changes waited than are remembered")

    @property
    def synced(self) -> bool:
        """The keeper has a full copy of this control function's, and all increments but those that lag() tells of."""
        return self._session is not None and self._session.synced

    @property
    def waiting(self) -> int:
        """Changes that are in no batch yet."""
        return len(self._changes)

    @property
    def session(self) -> int:
        """Its number; 0 between two sessions."""
        return self._session.number if self._session else 0

    def lag(self, now: float) -> float:
        """Seconds that the copy is behind: how long ago it was last known to lack nothing; 0 if it lacks nothing.

        It may be too long by the time between two calls of due().
        """
        if not self._begun or self.synced and not self._changes and self._batch is None:
            return 0.0
        return max(0.0, now - self._complete)

    def behind(self, now: float) -> bool:
        """The copy lacks changes for longer than it may."""
        return self.lag(now) > self.pace.max_delay

    def due(self, now: float) -> Batch | None:
        """The batch to send now, if any. It is under way until `answered` or `failed` is called."""
        self.looked_at = 0
        if self._under_way or not self._begun or now < self._not_before:
            return None
        if self._batch is None:
            self._batch = self._next(now)
            if self._batch is None:
                return None
            self.counters["rows_sent"] += self._batch.rows
        self._under_way = True
        self.counters["batches_sent"] += 1
        return self._batch

    def answered(self, reply: Reply, now: float) -> None:
        """What the keeper replied to the batch under way."""
        batch, self._batch, self._under_way = self._batch, None, False
        if batch is None:
            return
        if reply.answer is Answer.ACKNOWLEDGED:
            if self._session and batch.session == self._session.number:
                self._acknowledged(self._session, batch, now)
        else:
            self.counters[reply.answer.value] += 1
            self._lose(reply.detail)
            self._resyncs += 1
            if reply.answer is Answer.REFUSED or self._resyncs > 1:
                self._not_before = now + self._back_off(self._resyncs)

    def failed(self, detail: str, now: float) -> None:
        """The batch under way may or may not have come through: it will be sent again, as it was."""
        self._under_way = False
        if self._batch and self._batch.session != self.session:
            self._batch = None
        self.last_failure = detail
        self.counters["failures"] += 1
        self._failures += 1
        self._not_before = now + self._back_off(self._failures)

    def _acknowledged(self, session: _Session, batch: Batch, now: float) -> None:
        self._failures, self.last_failure = 0, ""
        if batch.kind is BatchKind.PART:
            return
        if not session.synced:
            session.synced = True
            self.counters["full_copies"] += 1
        self._complete = max(self._complete, session.covers)
        if not self._changes:
            self._complete = now
        if now - session.began > self.pace.calm:
            self._resyncs = 0

    def _next(self, now: float) -> Batch | None:
        session = self._session = self._session or self._new(now)
        try:
            if session.left is not None:
                batch = self._part(session, session.left)
            elif self._wanted(session, now):
                batch = self._increment(session, now)
            else:
                batch = None
        except _OtherPorts:  # what the keeper has does not say so
            self._lose("other external ports follow from the servers' ports")
            return None
        if batch:
            session.built_at, session.sequence = now, batch.sequence
        return batch

    def _new(self, now: float) -> _Session:
        self._limit = self.pace.changes
        return _Session(self._new_session(), began=now, left=iter(self._entries()), covers=now)

    def _part(self, session: _Session, left: Iterator[Entry | None]) -> Batch | None:
        """None: there may be others, but not among those that may be looked at in one go."""
        chunk: list[Entry] = []
        while self.looked_at < LOOKED_AT_ONCE and len(chunk) < self.pace.rows:
            try:
                entry = next(left)
            except StopIteration:
                session.left = None
                break
            self.looked_at += 1
            if entry and not entry.flags & GONE:
                chunk.append(entry)
        if session.left is not None:
            return self._pack(session, BatchKind.PART, chunk) if chunk else None
        return self._pack(session, BatchKind.LAST_PART, chunk)

    def _wanted(self, session: _Session, now: float) -> bool:
        """Is an increment due?"""
        if self._changes:
            return len(self._changes) >= self.pace.rows or now >= session.built_at + self.pace.interval
        if session.synced:
            self._complete = now
        return now >= session.built_at + self.pace.max_delay

    def _increment(self, session: _Session, now: float) -> Batch:
        taken = self._changes
        if len(taken) > self.pace.rows:
            taken = {identity: taken[identity] for identity in itertools.islice(taken, self.pace.rows)}
            for identity in taken:
                del self._changes[identity]
        else:
            self._changes, session.covers = {}, now
        return self._pack(session, BatchKind.INCREMENT, taken.values())

    def _pack(self, session: _Session, kind: BatchKind, entries: Iterable[Entry]) -> Batch:
        """The session's next batch. Raises _OtherPorts."""

        def ports(stream: Stream) -> DerivedPorts:
            now = self._ports(stream)
            if session.ports.setdefault(stream, now) != now:
                raise _OtherPorts
            return now

        return Batch(kind, self._server, session.number, session.sequence + 1, sections(entries, ports))

    def _lose(self, why: str) -> None:
        """The session is over; what comes next is another one's full copy."""
        self.last_failure = why
        self._changes.clear()
        self._limit, self._session = 0, None
        if not self._under_way:
            self._batch = None

    def _back_off(self, times: int) -> float:
        first, most = self.pace.retry
        return min(most, first * 2.0 ** min(times - 1, 20))
