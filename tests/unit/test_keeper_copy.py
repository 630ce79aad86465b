"""What a copy takes, and what it refuses; and the file that it is kept in."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lbctl.entries.access_table import GONE
from lbctl.keeper.batches import Answer, Batch, BatchKind, encode
from lbctl.keeper.process import journal
from lbctl.keeper.process.copy import ENDED_SESSIONS, Copy
from lbctl.keeper.process.journal import JournalError, KeptCopy
from lbctl.keeper.rows import sections
from tests.unit.keeper_entries import EXTERNAL, FULL, OTHER_SERVER, SERVER, entry, ports, rows, rows_of

PART, LAST, INCREMENT = BatchKind


def batch(kind: BatchKind, sequence: int, *items, session: int = 1, server: bytes = SERVER, derivable=ports) -> Batch:
    return Batch(kind, server, session, sequence, sections(items, derivable))


def put(copy: Copy, item: Batch) -> Answer:
    reply = copy.judge(item)
    return (reply or copy.take(item, 0.0)).answer


def held(copy: Copy, server: bytes = SERVER) -> set:
    return rows_of(copy.servers[server].current.batch(LAST).sections)


@pytest.fixture
def copy() -> Copy:
    """With one entry, up to batch 1 of session 1."""
    copy = Copy([SERVER, OTHER_SERVER], max_rows=4)
    assert put(copy, batch(LAST, 1, entry(number=1))) is Answer.ACKNOWLEDGED
    return copy


def test_increments_change_it(copy) -> None:
    ended = entry(number=1)
    ended.flags |= GONE
    assert put(copy, batch(INCREMENT, 2, entry(number=2), ended)) is Answer.ACKNOWLEDGED
    assert held(copy) == rows([entry(number=2)])


@pytest.mark.parametrize("item, detail", [
    (batch(INCREMENT, 3, entry(number=2)), "batch 2 has not come before 3"),
    (batch(INCREMENT, 1, session=2), "full copy is not here"),
    (batch(INCREMENT, 2, session=2), "full copy is not here"),
    (batch(PART, 2, session=2), "full copy is not here"),
    (batch(PART, 2), "an increment in a full copy"),
    (batch(INCREMENT, 2, entry(number=2), derivable=lambda stream: {**ports(stream), b"\x06\0\x01": b"\0\x01"}),
     "other external ports"),
], ids=["gap", "unknown", "unknown, later", "in the middle", "not an increment", "ports"])
def test_what_does_not_follow_asks_for_a_resync(copy, item, detail) -> None:
    reply = copy.judge(item)
    assert reply.answer is Answer.RESYNC and detail in reply.detail
    assert copy.counters["resync"] == 1 and held(copy) == rows([entry(number=1)])


def test_a_repeated_batch_is_acknowledged_and_does_nothing(copy) -> None:
    put(copy, batch(INCREMENT, 2, entry(number=2)))
    reply = copy.judge(batch(INCREMENT, 2, entry(number=3)))
    assert (reply.answer, reply.sequence) == (Answer.ACKNOWLEDGED, 2)
    assert held(copy) == rows([entry(number=1), entry(number=2)]) and copy.counters["repeated"] == 1


def test_a_full_copy_replaces_it_with_its_last_part_only(copy) -> None:
    put(copy, batch(PART, 1, entry(number=2), session=2))
    assert held(copy) == rows([entry(number=1)])
    assert put(copy, batch(LAST, 3, session=2)) is Answer.RESYNC
    put(copy, batch(LAST, 2, entry("full", 3), session=2))
    assert held(copy) == rows([entry(number=2), entry("full", 3)])
    assert rows_of(copy.servers[SERVER].current.batch(LAST, EXTERNAL).sections) == rows([entry(number=2)])
    assert rows_of(copy.servers[SERVER].current.batch(LAST, FULL).sections) == rows([entry("full", 3)])


def test_a_late_batch_of_an_ended_session_does_not_bring_it_back(copy) -> None:
    put(copy, batch(LAST, 1, session=2))
    reply = copy.judge(batch(LAST, 1, entry(number=1)))
    assert reply.answer is Answer.RESYNC and "replaced" in reply.detail
    for session in range(3, 4 + ENDED_SESSIONS):
        put(copy, batch(LAST, 1, session=session))
    assert copy.judge(batch(LAST, 1, session=5)).answer is Answer.RESYNC


def test_an_increment_shows_that_what_was_coming_is_left_over(copy) -> None:
    put(copy, batch(PART, 1, entry(number=2), session=9))
    put(copy, batch(INCREMENT, 2))
    assert copy.servers[SERVER].coming is None
    assert put(copy, batch(LAST, 2, session=9)) is Answer.RESYNC


def test_a_foreign_server_is_refused(copy) -> None:
    foreign = bytes([10, 0, 0, 99])
    reply = copy.judge(batch(LAST, 1, server=foreign))
    assert reply.answer is Answer.REFUSED and "10.0.0.99" in reply.detail and "--server" in reply.detail


def test_servers_have_sessions_of_their_own(copy) -> None:
    assert put(copy, batch(LAST, 1, entry(number=1, server=OTHER_SERVER), server=OTHER_SERVER)) is Answer.ACKNOWLEDGED
    assert put(copy, batch(INCREMENT, 2, entry(number=2))) is Answer.ACKNOWLEDGED
    assert copy.rows == 3 and list(copy.streams().values()) == [2, 1]


def test_the_rows_of_all_servers_together_are_bounded(copy) -> None:
    put(copy, batch(LAST, 1, *(entry(number=number, server=OTHER_SERVER) for number in (1, 2)), server=OTHER_SERVER))
    assert put(copy, batch(INCREMENT, 2, entry(number=2))) is Answer.ACKNOWLEDGED
    # they are there already
    assert put(copy, batch(INCREMENT, 3, entry(number=1), entry(number=2))) is Answer.ACKNOWLEDGED
    reply = copy.judge(batch(INCREMENT, 4, entry(number=3)))
    assert reply.answer is Answer.REFUSED and "more than 4 rows" in reply.detail and copy.counters["rows_refused"] == 1
    ended = entry(number=1)
    ended.flags = GONE
    assert put(copy, batch(INCREMENT, 4, entry(number=3), ended)) is Answer.ACKNOWLEDGED
    assert put(copy, batch(PART, 1, entry(number=5), entry(number=6), session=2)) is Answer.ACKNOWLEDGED
    assert put(copy, batch(PART, 2, entry(number=7), session=2)) is Answer.REFUSED
    assert copy.rows == 4 and held(copy) == rows([entry(number=2), entry(number=3)])


# The file.


def kept(directory: Path, servers=(SERVER, OTHER_SERVER)) -> tuple[KeptCopy, list[str]]:
    said: list[str] = []
    return KeptCopy(Copy(servers), directory, said.append), said


def put_kept(keeper: KeptCopy, *items: Batch) -> None:
    for item in items:
        assert keeper.put(item, encode(item)).answer is Answer.ACKNOWLEDGED


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path) -> None:
    keeper, _ = kept(tmp_path)
    put_kept(keeper, batch(LAST, 1, entry(number=1)), batch(INCREMENT, 2, entry("full", 2)),
             batch(PART, 1, entry(number=3), session=2))
    taken_at = keeper.copy.servers[SERVER].current.taken_at
    keeper.close()
    for _ in range(2):  # from the batches, then from the snapshot
        keeper, said = kept(tmp_path)
        server = keeper.copy.servers[SERVER]
        assert held(keeper.copy) == rows([entry(number=1), entry("full", 2)]) and server.current.sequence == 2
        assert server.current.taken_at == taken_at > 0
        assert rows_of(server.coming.batch(PART).sections) == rows([entry(number=3)]) and server.coming.sequence == 1
        assert not said and not keeper.copy.counters
        keeper.close()
    keeper, _ = kept(tmp_path)
    put_kept(keeper, batch(LAST, 2, session=2))
    assert held(keeper.copy) == rows([entry(number=3)])


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-30] + b"\0" * 30,
                                    lambda content: content[:-1] + b"!", lambda content: content + b"\2\0\0\0\x09"],
                         ids=["cut", "zeros", "one byte", "more"])
def test_a_damaged_end_is_left_out_and_said(tmp_path, damage) -> None:
    keeper, _ = kept(tmp_path)
    put_kept(keeper, batch(LAST, 1, entry(number=1)), batch(INCREMENT, 2, entry(number=2)))
    keeper.close()
    file = tmp_path / journal.NAME
    file.write_bytes(damage(file.read_bytes()))
    keeper, (said,) = kept(tmp_path)
    assert "damaged" in said and str(file) in said
    assert held(keeper.copy) in (rows([entry(number=1)]), rows([entry(number=1), entry(number=2)]))
    again = batch(INCREMENT, keeper.copy.servers[SERVER].current.sequence + 1, entry(number=5))
    put_kept(keeper, again)
    keeper.close()
    keeper, said = kept(tmp_path)
    assert entry(number=5).key in {row.key for row in held(keeper.copy)} and not said


def test_it_does_not_grow_for_ever(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_SIZE", 1000)
    keeper, _ = kept(tmp_path)
    put_kept(keeper, batch(LAST, 1, entry(number=1)))
    for sequence in range(2, 500):
        put_kept(keeper, batch(INCREMENT, sequence, entry(number=sequence % 3 + 2)))
        assert keeper.size == (tmp_path / journal.NAME).stat().st_size < 2000
    assert len(held(keeper.copy)) == 4
    assert sorted(file.name for file in tmp_path.iterdir()) == [journal.NAME, journal.LOCK_NAME]


def test_a_batch_that_cannot_be_written_is_not_taken(tmp_path, monkeypatch) -> None:
    keeper, _ = kept(tmp_path)
    put_kept(keeper, batch(LAST, 1, entry(number=1)))
    write, left = os.write, [10]

    def full(file: int, data) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(file, data[:left[0]])
        left[0] -= written
        return written

    second = batch(INCREMENT, 2, entry(number=2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            keeper.put(second, encode(second))
    assert held(keeper.copy) == rows([entry(number=1)])
    put_kept(keeper, second)  # behind what is whole, not behind what was begun
    keeper.close()
    keeper, said = kept(tmp_path)
    assert held(keeper.copy) == rows([entry(number=1), entry(number=2)]) and not said


def test_a_snapshot_that_cannot_be_written_is_said_and_tried_again_later(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(journal, "COMPACT_FACTOR", 0)
    monkeypatch.setattr(journal, "COMPACT_SIZE", 0)  # each batch makes one due
    keeper, said = kept(tmp_path)
    put_kept(keeper, batch(LAST, 1, entry(number=1)))

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        put_kept(keeper, batch(INCREMENT, 2, entry(number=2)))
    assert "No space" in said[0]
    put_kept(keeper, batch(INCREMENT, 3, entry(number=3)))
    keeper.close()
    assert len(held(kept(tmp_path)[0].copy)) == 3


def test_two_keepers_do_not_share_a_directory(tmp_path) -> None:
    keeper, _ = kept(tmp_path)
    with pytest.raises(JournalError, match="another keeper"):
        kept(tmp_path)
    keeper.close()
    kept(tmp_path)[0].close()


def test_a_file_of_something_else_is_not_overwritten(tmp_path) -> None:
    (tmp_path / journal.NAME).write_text("poems")
    with pytest.raises(JournalError, match="no keeper's journal"):
        kept(tmp_path)
    assert (tmp_path / journal.NAME).read_text() == "poems"


def test_a_directory_that_cannot_be_used_is_said(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="--directory"):
        kept(tmp_path / "file" / "below")


def test_servers_that_it_is_not_for_any_more_are_forgotten(tmp_path) -> None:
    keeper, _ = kept(tmp_path)
    put_kept(keeper, batch(LAST, 1, entry(number=1)),
             batch(LAST, 1, entry(number=1, server=OTHER_SERVER), server=OTHER_SERVER))
    keeper.close()
    for _ in range(2):
        keeper, _ = kept(tmp_path, [OTHER_SERVER])
        assert keeper.copy.rows == 1
        keeper.close()
