"""When the sender sends what, and what it says about the copy."""

from __future__ import annotations

import itertools
import time

import pytest

from lbctl.copies.publisher import Pace, Publisher
from lbctl.entries.access_table import FIN_IN, AccessTable
from lbctl.keeper.batches import Answer, BatchKind, Reply
from tests.unit.keeper_entries import DERIVED, SERVER, entry, ports, rows, rows_of

TAKEN = Reply(Answer.ACKNOWLEDGED)
PACE = Pace(interval=1.0, rows=4, max_delay=5.0, changes=8, retry=(0.25, 1.0), calm=30.0)


class Scene:
    def __init__(self, entries: int = 0, begin: bool = True) -> None:
        self.table = AccessTable()
        self.numbers = itertools.count(1)
        self.mapping = dict(DERIVED)
        self.add(entries)
        sessions = itertools.count(1)
        self.publisher = Publisher(SERVER, self.table.snapshot, lambda stream: self.mapping, PACE,
                                   lambda: next(sessions))
        self.table.watcher = self.publisher.changed
        if begin:
            self.publisher.begin(0.0)

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self.table.add(entry(number=next(self.numbers)))

    def exchange(self, now: float):
        batch = self.publisher.due(now)
        if batch:
            self.publisher.answered(TAKEN._replace(sequence=batch.sequence), now)
        return batch

    def settle(self, now: float = 0.0) -> Publisher:
        while self.exchange(now):
            pass
        return self.publisher


def test_nothing_is_sent_before_the_table_is_known() -> None:
    scene = Scene(3, begin=False)
    scene.add()
    assert scene.publisher.due(100.0) is None and scene.publisher.lag(100.0) == 0
    scene.publisher.begin(100.0)
    assert scene.publisher.lag(101.0) == 1 and not scene.publisher.synced
    assert scene.publisher.due(101.0).rows == 4


def test_a_full_copy_comes_first_in_parts() -> None:
    scene = Scene(9)
    batches = [scene.exchange(0.0) for _ in range(3)]
    assert [(batch.kind, batch.sequence, batch.rows, batch.session) for batch in batches] == [
        (BatchKind.PART, 1, 4, 1), (BatchKind.PART, 2, 4, 1), (BatchKind.LAST_PART, 3, 1, 1)]
    assert set().union(*(rows_of(batch.sections) for batch in batches)) == rows(scene.table.entries())
    assert scene.publisher.synced and scene.exchange(0.1) is None


def test_an_empty_table_is_said_too() -> None:
    assert (Scene().publisher.due(0.0).kind, Scene().publisher.due(0.0).rows) == (BatchKind.LAST_PART, 0)


def test_what_ends_while_the_full_copy_goes_out_is_not_in_it() -> None:
    scene = Scene(6)
    first = scene.exchange(0.0)
    for item in scene.table.snapshot():
        scene.table.remove(item)
    assert (first.rows, scene.exchange(0.0).rows) == (4, 0)
    assert scene.exchange(1.0).rows == 4  # those that are gone; the other two are as well
    assert scene.exchange(1.0) is None and scene.exchange(2.0).rows == 2


def test_changes_wait_for_the_interval_or_for_enough_of_them() -> None:
    scene = Scene(1)
    scene.settle(0.0)
    scene.add()
    assert scene.publisher.due(0.9) is None
    batch = scene.exchange(1.0)
    assert (batch.kind, batch.sequence, batch.rows) == (BatchKind.INCREMENT, 2, 1)
    scene.add(6)
    assert scene.exchange(1.1).rows == 4  # enough; the other two wait
    assert scene.exchange(2.0) is None and scene.exchange(2.1).rows == 2


def test_an_entry_that_changes_often_is_sent_once_as_it_is_now() -> None:
    scene = Scene(1)
    scene.settle(0.0)
    (item,) = scene.table.snapshot()
    for flags in (FIN_IN, 0, FIN_IN):
        item.flags = flags
        scene.table.changed(item)
    assert rows_of(scene.exchange(1.0).sections) == rows([item])


def test_an_entry_and_its_successor_with_the_same_ports_are_both_sent() -> None:
    """They differ in the server's port, so they are two rows: one that is gone, and one that is there."""
    scene = Scene()
    scene.settle(0.0)
    first, second = entry("explicit"), entry("explicit")
    second.reply = entry("derived").reply
    scene.table.add(first)
    scene.settle(1.0)
    scene.table.remove(first)
    scene.table.add(second)
    batch = scene.exchange(2.0)
    assert batch.rows == 2 and rows_of(batch.sections) == rows([second])


def test_one_batch_is_under_way_at_a_time_and_is_sent_again_as_it_was() -> None:
    scene = Scene(1)
    batch = scene.publisher.due(0.0)
    assert scene.publisher.due(0.0) is None
    scene.publisher.failed("no answer", 0.5)
    assert scene.publisher.last_failure == "no answer" and scene.publisher.due(0.6) is None
    assert scene.publisher.due(0.75) is batch


def test_back_off_is_bounded_and_ends_with_an_answer() -> None:
    scene = Scene(1)
    now, waits = 0.0, []
    for _ in range(6):
        now = next(time for number in itertools.count() if scene.publisher.due(time := now + number / 16))
        waits.append(now)
        scene.publisher.failed("no answer", now)
    assert [b - a for a, b in itertools.pairwise(waits)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert scene.exchange(now + 1.0) and scene.publisher.last_failure == ""


@pytest.mark.parametrize("answer", [Answer.RESYNC, Answer.REFUSED])
def test_another_session_begins_with_a_full_copy(answer) -> None:
    scene = Scene(1)
    scene.settle(0.0)
    scene.add()
    scene.publisher.due(1.0)
    scene.publisher.answered(Reply(answer, 1, "why"), 1.0)
    assert not scene.publisher.synced and scene.publisher.last_failure == "why"
    assert scene.publisher.counters[answer.value] == 1
    batch = scene.publisher.due(1.0) or scene.publisher.due(1.3)
    assert (batch.kind, batch.session, batch.sequence, batch.rows) == (BatchKind.LAST_PART, 2, 1, 2)


def test_sessions_that_keep_ending_come_more_and_more_seldom() -> None:
    """Two control functions with one keeper would else copy their tables all the time."""
    scene = Scene(1)
    now, begun = 0.0, []
    for _ in range(5):
        now = next(time for number in itertools.count() if scene.publisher.due(time := now + number / 16))
        begun.append(now)
        scene.publisher.answered(Reply(Answer.RESYNC, 0, "another session has replaced this one"), now)
    assert [b - a for a, b in itertools.pairwise(begun)] == [0.0, 0.5, 1.0, 1.0]
    scene.settle(now + 1.0)
    scene.add()
    scene.exchange(now + 40.0)  # it has lasted
    scene.add()
    scene.publisher.due(now + 41.0)
    scene.publisher.answered(Reply(Answer.RESYNC, 0, "lost"), now + 41.0)
    assert scene.publisher.due(now + 41.0).sequence == 1


def test_too_many_changes_end_the_session() -> None:
    scene = Scene(1)
    scene.settle(0.0)
    scene.publisher.due(5.0)  # a keeper that does not answer
    scene.add(20)
    assert scene.publisher.counters["overflows"] == 1 and not scene.publisher.synced
    assert scene.publisher.waiting == 0
    scene.publisher.failed("no answer", 6.0)
    batch = scene.publisher.due(7.0)
    assert (batch.session, batch.sequence, batch.kind) == (2, 1, BatchKind.PART)
    scene.publisher.answered(TAKEN, 7.0)
    scene.settle(7.0)
    assert scene.publisher.synced


def test_an_answer_to_a_session_that_has_ended_meanwhile_says_nothing() -> None:
    scene = Scene(1)
    scene.publisher.due(0.0)
    scene.add(20)
    scene.publisher.answered(TAKEN, 0.1)
    assert not scene.publisher.synced
    assert scene.publisher.due(0.1).session == 2


def test_other_ports_begin_another_session() -> None:
    scene = Scene(1)
    scene.settle(0.0)
    scene.mapping = {}
    scene.add()
    assert scene.publisher.due(1.0) is None
    batch = scene.publisher.due(1.0)
    assert (batch.session, batch.sequence, batch.rows) == (2, 1, 2)


def test_a_quiet_keeper_hears_from_us() -> None:
    scene = Scene(1)
    scene.settle(0.0)
    assert scene.exchange(4.9) is None
    batch = scene.exchange(5.0)
    assert (batch.kind, batch.rows, batch.sequence) == (BatchKind.INCREMENT, 0, 2)


def test_lag_is_the_time_since_nothing_was_missing() -> None:
    scene = Scene(1)
    publisher = scene.settle(0.0)
    assert publisher.due(3.0) is None and publisher.lag(4.0) == 0  # nothing waits
    scene.add()
    assert publisher.lag(3.4) == pytest.approx(0.4)  # since it was last seen that nothing waits
    batch = publisher.due(3.5)
    assert batch and publisher.lag(6.0) == 3.0 and not publisher.behind(6.0)
    assert publisher.lag(8.5) == 5.5 and publisher.behind(8.5)
    publisher.failed("no answer", 8.5)
    scene.add()
    publisher.due(9.0)
    publisher.answered(TAKEN, 9.0)
    assert publisher.lag(9.0) == 5.5  # the copy is as of 3.5, when that batch was made
    scene.settle(10.0)
    assert publisher.lag(11.0) == 0


def test_a_dead_keeper_costs_little() -> None:
    """The hot path and the memory; the time is printed, not judged."""
    publisher = Publisher(SERVER, list, ports)
    publisher.begin(0.0)
    publisher.answered(TAKEN, 0.0) if publisher.due(0.0) else None
    items = [entry(number=number) for number in range(60_000)]
    start = time.perf_counter()
    for item in items:
        publisher.changed(item)
    print(f"{(time.perf_counter() - start) / len(items) * 1e6:.2f} us for each change")
    assert publisher.counters["overflows"] == 1 and publisher.waiting == 0
