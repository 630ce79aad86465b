"""The sender and the keeper, joined by a network that loses, repeats, delays and reorders, each restarted at any point.

What must hold at any moment: the copy of a server is exactly what the batches up to its (session, sequence) stand for;
when it came up to a batch behind which nothing waited, that was the table. And once the network is quiet, the copy is
the table.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lbctl.copies.publisher import Pace, Publisher
from lbctl.entries.access_table import ENDING, GONE, AccessTable
from lbctl.keeper.batches import Answer, Batch, BatchKind, Reply, decode, encode
from lbctl.keeper.process import journal
from lbctl.keeper.process.copy import Copy, Session
from lbctl.keeper.process.journal import KeptCopy
from lbctl.keeper.rows import DerivedPorts, Row, Section, Stream, identity_size, row_size, version_of
from tests.unit.exploring import exploring
from tests.unit.keeper_entries import DERIVED, OTHER_SERVER, SERVER, entry, rows, rows_of

SERVERS = (SERVER, OTHER_SERVER)
KINDS = ("derived", "explicit", "udp", "full", "outbound")
PACE = Pace(interval=1.0, rows=3, max_delay=5.0, changes=8, retry=(0.2, 1.0), calm=3.0)
PLACES = st.tuples(st.sampled_from(KINDS), st.integers(1, 4))
MAX_ROWS = 30
Identity = tuple[bytes, bytes]
Known = dict[Identity, Row]


def known(sections: list[Section]) -> Known:
    return {(row.key, row.reply): row for row in rows_of(sections)}


class Sender:
    """The control function's part for one server: a table, a publisher, and at most one call that waits for its
    reply."""

    def __init__(self, server: bytes) -> None:
        self.server = server
        self.table = AccessTable()
        self.ports: DerivedPorts = DERIVED
        self.sessions = 0
        self.waits_for: int | None = None
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """The control function starts; it has read its table back from the switches."""
        self.waits_for = None
        self.publisher = Publisher(self.server, self.table.snapshot, self._ports, PACE, self._session)
        self.table.watcher = self.publisher.changed
        self.publisher.begin(now)

    def _session(self) -> int:
        self.sessions += 1
        return self.sessions

    def _ports(self, stream: Stream) -> DerivedPorts:
        return self.ports

    def find(self, place: tuple[str, int]):
        return self.table.by_key(entry(*place, server=self.server).key)

    def rows(self) -> set[Row]:
        return rows(self.table.entries())


class Network(RuleBasedStateMachine):
    """Requests stay for ever, and may be delivered any number of times, in any order; replies come to who still
    waits."""

    @initialize(max_rows=st.sampled_from([MAX_ROWS, MAX_ROWS, 6]), places=st.lists(PLACES, max_size=14))
    def start(self, max_rows: int, places: list[tuple[str, int]]) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.now, self.max_rows = 100.0, max_rows
        self.senders = [Sender(server) for server in SERVERS]
        self.requests: list[tuple[Sender, bytes]] = []
        self.stands_for: dict[tuple[bytes, int, int], Known] = {}
        self.drained: dict[tuple[bytes, int, int], set[Row]] = {}
        self.acknowledged: dict[tuple[bytes, int], int] = {}
        self.journal_limit, journal.COMPACT_SIZE = journal.COMPACT_SIZE, 500
        self.keeper = self._open()
        for which, place in enumerate(places):
            self.open(which % 2, place)

    def _open(self) -> KeptCopy:
        return KeptCopy(Copy(SERVERS, self.max_rows), self.directory, lambda text: None)

    def teardown(self) -> None:
        if hasattr(self, "keeper"):
            self.keeper.close()
            journal.COMPACT_SIZE = self.journal_limit
            shutil.rmtree(self.directory)

    # The table.

    @rule(which=st.integers(0, 1), place=PLACES)
    def open(self, which: int, place: tuple[str, int]) -> None:
        sender = self.senders[which]
        if sender.find(place) is None and len(sender.table) < self.max_rows // 2:
            sender.table.add(entry(*place, server=sender.server))

    @rule(which=st.integers(0, 1), place=PLACES, flags=st.integers(0, ENDING))
    def change(self, which: int, place: tuple[str, int], flags: int) -> None:
        if item := self.senders[which].find(place):
            item.flags = flags
            self.senders[which].table.changed(item)

    @rule(which=st.integers(0, 1), place=PLACES)
    def end(self, which: int, place: tuple[str, int]) -> None:
        if item := self.senders[which].find(place):
            self.senders[which].table.remove(item)

    @rule(which=st.integers(0, 1), derivable=st.booleans())
    def other_site_file(self, which: int, derivable: bool) -> None:
        self.senders[which].ports = DERIVED if derivable else {}

    # What goes to and fro.

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.integers(0, 1), times=st.integers(1, 5),
          fate=st.sampled_from(["answered", "answered", "under way", "reply lost"]))
    def exchange(self, which: int, times: int, fate: str) -> None:
        """Some batches that are taken, and then perhaps one that is not, or whose reply does not come."""
        for left in reversed(range(times)):
            self.now += 0.3
            self._send(which)
            number = self.senders[which].waits_for
            if number is not None and (left or fate != "under way"):
                self._deliver(number, reply_comes=bool(left) or fate == "answered")

    def _send(self, which: int) -> None:
        sender = self.senders[which]
        batch = sender.publisher.due(self.now)
        if batch:
            self._note(sender, batch)
            sender.waits_for = len(self.requests)
            self.requests.append((sender, encode(batch)))

    def _note(self, sender: Sender, batch: Batch) -> None:
        """What the copy should be when it has this batch."""
        here, before = (batch.server, batch.session, batch.sequence), (batch.server, batch.session, batch.sequence - 1)
        assert (batch.sequence == 1) == (before not in self.stands_for)
        whole = dict(self.stands_for.get(before, {}))
        for section in batch.sections:
            for identity, row in _named(section):
                whole.pop(identity, None)
                if row:
                    whole[identity] = row
        if here in self.stands_for:
            assert self.stands_for[here] == whole  # sent again, as it was
        elif batch.kind is BatchKind.INCREMENT and not sender.publisher.waiting:
            self.drained[here] = sender.rows()
        self.stands_for[here] = whole

    @rule(place=st.integers(0, 10**6), newest=st.booleans())
    def deliver(self, place: int, newest: bool) -> None:
        if self.requests:
            self._deliver(len(self.requests) - 1 if newest else place % len(self.requests))

    def _deliver(self, number: int, reply_comes: bool = True) -> Reply:
        sender, body = self.requests[number]
        batch = decode(body)
        reply = self.keeper.put(batch, body)
        if reply.answer is Answer.ACKNOWLEDGED:
            session = batch.server, batch.session
            self.acknowledged[session] = max(self.acknowledged.get(session, 0), reply.sequence)
        if reply_comes and sender.waits_for == number:
            sender.waits_for = None
            sender.publisher.answered(reply, self.now)
        return reply

    @rule(place=st.integers(0, 10**6))
    def deliver_without_reply(self, place: int) -> None:
        if self.requests:
            self._deliver(place % len(self.requests), reply_comes=False)

    @rule(which=st.integers(0, 1))
    def time_out(self, which: int) -> None:
        sender = self.senders[which]
        if sender.waits_for is not None:
            sender.waits_for = None
            sender.publisher.failed("no answer", self.now)

    # Restarts.

    @rule(which=st.integers(0, 1))
    def restart_sender(self, which: int) -> None:
        self.senders[which].begin(self.now)

    @rule()
    def kill_keeper(self) -> None:
        before = {server: _state(copy.current) for server, copy in self.keeper.copy.servers.items()}
        coming = {server: _state(copy.coming) for server, copy in self.keeper.copy.servers.items()}
        self.keeper.close()
        self.keeper = self._open()
        assert before == {server: _state(copy.current) for server, copy in self.keeper.copy.servers.items()}
        assert coming == {server: _state(copy.coming) for server, copy in self.keeper.copy.servers.items()}

    @rule(share=st.floats(0, 1))
    def lose_power(self, share: float) -> None:
        """The end of the keeper's file is gone, or all of it."""
        self.keeper.close()
        file = self.directory / journal.NAME
        content = file.read_bytes()
        kept = int(len(content) * share)
        file.write_bytes(content[:kept] if kept >= len(journal.MAGIC) else journal.MAGIC)
        self.keeper = self._open()

    # What must hold.

    @invariant()
    def the_copy_is_what_its_sequence_stands_for(self) -> None:
        if not hasattr(self, "keeper"):
            return
        for server, copy in self.keeper.copy.servers.items():
            if copy.current:
                here = server, copy.current.number, copy.current.sequence
                held = known(copy.current.batch(BatchKind.LAST_PART).sections)
                assert held == self.stands_for[here]
                assert here not in self.drained or set(held.values()) == self.drained[here]
        assert self.keeper.copy.rows <= self.max_rows

    @invariant()
    def a_sender_remembers_no_more_than_it_may(self) -> None:
        for sender in getattr(self, "senders", ()):
            assert sender.publisher.waiting <= PACE.changes

    @rule(late=st.permutations(range(6)))
    def come_to_rest(self, late: list[int]) -> None:
        """Nothing is lost any more: old requests come, then what the senders send. The copy is the table."""
        for number in late:
            if number < len(self.requests):
                self._deliver(len(self.requests) - 1 - number, reply_comes=False)
        for sender in self.senders:
            self.time_out(self.senders.index(sender))
        for _ in range(40):
            self.now += 1.0
            for which, sender in enumerate(self.senders):
                self._send(which)
                if sender.waits_for is not None:
                    self._deliver(sender.waits_for)
        for sender in self.senders:
            current = self.keeper.copy.servers[sender.server].current
            publisher = sender.publisher
            assert publisher.synced and publisher.lag(self.now) <= PACE.interval and not publisher.last_failure
            assert current and current.number == sender.publisher.session
            assert set(known(current.batch(BatchKind.LAST_PART).sections).values()) == sender.rows()


def _named(section: Section) -> Iterator[tuple[Identity, Row | None]]:
    """Each row of a section; None for one that is gone."""
    version = version_of(section.stream)
    size, state_at = row_size(section.kind, version), identity_size(section.kind, version)
    for start in range(0, len(section.rows), size):
        row = bytearray(section.rows[start:start + size])
        gone = row[state_at] & GONE
        row[state_at] &= ~GONE
        ((identity, found),) = known([section._replace(rows=bytes(row))]).items()
        yield identity, None if gone else found


def _state(session: Session | None) -> tuple | None:
    return session and (session.number, session.sequence, session.taken_at,
                        known(session.batch(BatchKind.PART).sections))


Network.TestCase.settings = exploring("keeper-protocol", stateful_step_count=60)
TestTheCopyIsTheTableOrAResyncIsAskedFor = Network.TestCase
