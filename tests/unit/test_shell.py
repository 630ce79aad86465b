"""The controller's shell without a switch library: order of messages, of saves, whose connection it is, and WSGI."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lbctl.ground.effects import Save
from lbctl.http.message import Response
from lbctl.openflow.messages import Barrier, Message
from lbctl.openflow.outbound import EntryCodec
from lbctl.store import FileStore, State
from ryu_apps.shell import sender, web, wire
from ryu_apps.shell.faults import TOLD_AGAIN, Faults
from ryu_apps.shell.saving import Saver
from ryu_apps.shell.sender import Sender
from ryu_apps.shell.switchboard import Switchboard
from ryu_apps.shell.web import NOT_LOADED, Application, read
from tests.unit.real_threads import RealThreads

CODEC = EntryCodec(5)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def encode(message: Message, codec: EntryCodec) -> bytes:
    assert isinstance(message, Barrier)
    return b"%d" % message.token


class Connection:
    """Takes everything while `room` is set."""

    def __init__(self) -> None:
        self.room = threading.Event()
        self.room.set()
        self.got: list[bytes] = []
        self.flushed = 0
        """How many of them have left."""
        self.closed = False

    @property
    def busy(self) -> bool:
        return not self.room.is_set()

    def add(self, buf: bytes) -> None:
        self.got.append(buf)

    def flush(self) -> None:
        self.flushed = len(self.got)

    def wait_idle(self) -> None:
        self.room.wait()

    def close(self) -> None:
        self.closed = True


# Messages out.


def test_messages_leave_in_order_also_those_that_had_to_wait() -> None:
    connection = Connection()
    sending = Sender(connection, encode, CODEC, RealThreads())
    assert sending.send(Barrier(1)) and connection.got == [b"1"], "at once, while the socket takes it"
    assert connection.flushed == 0, "what goes to the same switch leaves together"
    sending.flush()
    assert connection.flushed == 1
    connection.room.clear()
    assert sending.send(Barrier(2)) and sending.send(Barrier(3))
    assert connection.got == [b"1"]
    connection.room.set()
    wait_until(lambda: connection.flushed == 3)
    assert connection.got == [b"1", b"2", b"3"]


def test_a_switch_that_is_too_far_behind_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MAX_QUEUED", 2)
    connection = Connection()
    connection.room.clear()
    sending = Sender(connection, encode, CODEC, RealThreads())
    assert [sending.send(Barrier(number)) for number in range(3)] == [True, True, False]
    assert connection.closed


def test_a_connection_is_its_lb_s_until_it_is_lost() -> None:
    board = Switchboard(encode, CODEC, RealThreads())
    first, second, stranger = Connection(), Connection(), Connection()
    board.connected("lb-a", first)
    board.connected("lb-b", second)
    assert board.names == {first: "lb-a", second: "lb-b"} and board.senders.keys() == {"lb-a", "lb-b"}
    assert board.lost(stranger) is None and board.lost(first) == "lb-a" and board.lost(first) is None
    assert board.senders.keys() == {"lb-b"}


def test_connections_of_lbs_that_are_gone_are_closed() -> None:
    board = Switchboard(encode, CODEC, RealThreads())
    first, second = Connection(), Connection()
    board.connected("lb-a", first)
    board.connected("lb-b", second)
    board.keep({"lb-a"})
    assert (first.closed, second.closed) == (False, True)
    assert board.names == {first: "lb-a"} and board.senders.keys() == {"lb-a"}


@pytest.mark.parametrize("token", [0, 1, 0xFFFFFF])
def test_a_token_comes_back_from_its_xid(token: int) -> None:
    assert wire.token_of(wire.XID_MARK | token) == token
    assert wire.token_of(0x4D000000 | token) is None and wire.token_of(token) is None


# The state file.


def test_states_are_saved_one_after_the_other_and_confirmed(tmp_path: Path) -> None:
    done: list[tuple[int, str | None]] = []
    store = FileStore(tmp_path / "state.json")
    saver = Saver(store, lambda token, error: done.append((token, error)), RealThreads())
    for token in (1, None, 3):
        saver.save(Save(partial(State, drained=frozenset({f"lb-{token}"})), token))
    wait_until(lambda: saver.saved == saver.last == 3 and len(done) == 2)
    assert done == [(1, None), (3, None)] and store.load().drained == {"lb-3"}


def test_what_comes_while_a_state_is_written_is_written_as_one(tmp_path: Path) -> None:
    """Each save may take long, and hundreds of failovers wait for theirs at the same time."""
    done: list[int] = []
    written: list[str] = []
    go_on = threading.Event()

    class SlowStore(FileStore):
        def save(self, state: State) -> None:
            written.append(state.fence_code)
            assert go_on.wait(60.0)

    saver = Saver(SlowStore(tmp_path / "state.json"), lambda token, error: done.append(token), RealThreads())
    saver.save(Save(partial(State, fence_code="10.0.0.1"), 1))
    wait_until(lambda: written == ["10.0.0.1"])
    for token in range(2, 500):
        saver.save(Save(partial(State, fence_code=f"10.0.0.{token}"), token))
    assert done == []
    go_on.set()
    wait_until(lambda: len(done) == 499)
    assert written == ["10.0.0.1", "10.0.0.499"] and done == list(range(1, 500)) and saver.saved == saver.last == 499


def test_a_state_that_cannot_be_saved_is_told_why(tmp_path: Path) -> None:
    done: list[tuple[int, str | None]] = []
    saver = Saver(FileStore(tmp_path / "nowhere" / "state.json"), lambda *told: done.append(told), RealThreads())
    saver.save(Save(State, 7))
    wait_until(lambda: len(done) == 1)
    assert done[0][0] == 7 and done[0][1] and saver.saved == 1


# WSGI.


def environ(path: str = "/v1/health", method: str = "GET", body: bytes = b"", **more: str) -> dict[str, object]:
    return {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": io.BytesIO(body),
            "wsgi.url_scheme": "http", "HTTP_HOST": "127.0.0.1:8080", **more}


def test_without_the_other_app_each_request_says_which_one_is_missing() -> None:
    told: list[tuple[str, dict[str, str]]] = []
    application = Application(lambda: None, None, ())
    (body,) = application(environ(), lambda status, headers: told.append((status, dict(headers))))
    assert told[0][0] == "503 Service Unavailable" and NOT_LOADED.encode() in body
    assert told[0][1]["Content-Length"] == str(len(body))


def test_a_request_is_read_from_bytes_in_latin_1() -> None:
    path = "/é".encode().decode("latin-1")
    request = read(environ(path, "POST", b"{}", HTTP_X_Y="z", CONTENT_TYPE="a/b", QUERY_STRING="q=1&q="))
    assert (request.method, request.path, request.body) == ("POST", "/é", b"{}")
    assert request.headers == {"x-y": "z", "content-type": "a/b", "host": "127.0.0.1:8080"}
    assert request.query == {"q": ["1", ""]}


def test_a_location_is_a_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(web, "dispatch", lambda *_: Response(202, {"Location": "/v1/moves/1"}, b"{}"))
    application = Application(object, None, ())
    assert list(application(environ(), lambda status, headers: told.append((status, dict(headers))))) == [b"{}"]
    assert told == [("202 Accepted", {"Content-Length": "2", "Location": "http://127.0.0.1:8080/v1/moves/1"})]


# Faults.


def broken(_what: str = "") -> None:
    raise LookupError("nobody has foreseen this")


def test_a_fault_is_counted_and_the_rest_goes_on() -> None:
    counters: Counter[str] = Counter()
    time_now = [0.0]
    faults = Faults(counters, lambda: time_now[0])
    with capture_logs() as logged:
        for _ in range(5):
            assert not faults.contain(broken, "again")
        time_now[0] = TOLD_AGAIN + 1
        assert not faults.contain(broken)
    assert counters == {"internal_errors": 6}
    assert [line["event"] for line in logged] == ["internal error, what led to it is dropped"] * 2
    done: list[int] = []
    assert faults.contain(done.append, 7) and done == [7]
