"""The keeper's HTTP server and the control function's client, over loopback."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbctl.copies.client import KeeperClient, KeeperError, socket_ports
from lbctl.entries.access_table import NO_HOP, RESET
from lbctl.keeper.batches import CONTENT_TYPE, Answer, Batch, BatchKind, encode
from lbctl.keeper.process import server as server_module
from lbctl.keeper.process import sockets
from lbctl.keeper.process.copy import Copy
from lbctl.keeper.process.journal import KeptCopy
from lbctl.keeper.process.resources import BODY_LIMIT, SHOWN
from lbctl.keeper.process.server import KeeperServer
from lbctl.keeper.process.sockets import SocketsError
from lbctl.keeper.rows import sections
from lbctl.site.model import ExternalIp, Server, Service
from tests.unit.keeper_entries import EXTERNAL, FULL, SERVER, entry, ports, rows

TOKEN = "correct-horse"
IP_1, IP_2, SERVER_1 = ip_address(EXTERNAL), ip_address(FULL), ip_address(SERVER)
LIMIT = 5.0
"""Seconds; a call that takes longer hangs."""


class Running:
    def __init__(self, directory: Path) -> None:
        self.kept = KeptCopy(Copy([SERVER], max_rows=SHOWN + 10), directory, lambda text: None)
        self.server = KeeperServer(("127.0.0.1", 0), self.kept, TOKEN)
        self.place = self.server.server_address[:2]
        self.url = "http://{}:{}".format(*self.place)
        self.client = KeeperClient(self.url, TOKEN, LIMIT)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def give(self, *items, sequence: int = 1, kind: BatchKind = BatchKind.LAST_PART, server: bytes = SERVER):
        return self.client.send(Batch(kind, server, 7, sequence, sections(items, ports)))

    def ask(self, text: str) -> tuple[int, dict[str, str], bytes]:
        """Sends a request as it is, until the server closes the connection; status, headers, body."""
        with socket.create_connection(self.place, timeout=LIMIT) as raw:
            raw.sendall(text.replace("\n", "\r\n").encode())
            raw.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body

    def get(self, target: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask("\n".join([f"GET {target} HTTP/1.1", f"Authorization: Bearer {TOKEN}", *headers, "\n"]))

    def close(self) -> None:
        self.client.close()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
        self.kept.close()


@pytest.fixture
def keeper(tmp_path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    running.close()


def test_what_was_sent_comes_back(keeper) -> None:
    first, second, closed = entry(number=1), entry("explicit", 2), entry("full", 3)
    closed.flags = RESET
    assert keeper.give(first, second, closed).answer is Answer.ACKNOWLEDGED
    fetched = keeper.client.fetch(IP_1, SERVER_1)
    assert set(fetched.rows) == rows([first, second])
    assert (fetched.session, fetched.sequence) == (7, 1) and 0 <= fetched.age < LIMIT
    assert set(keeper.client.fetch(IP_2, SERVER_1).rows) == rows([closed])
    assert keeper.client.fetch(ip_address("198.51.100.77"), SERVER_1).rows == []
    # one was enough, and there is that of this question
    assert b"lbctl_keeper_connections 2\n" in keeper.get("/metrics")[2]


def test_replies_are_what_the_copy_says(keeper) -> None:
    assert keeper.give(sequence=2, kind=BatchKind.INCREMENT).answer is Answer.RESYNC
    keeper.give(entry())
    reply = keeper.give(server=bytes([10, 0, 0, 99]))
    assert reply.answer is Answer.REFUSED and "10.0.0.99" in reply.detail


@pytest.mark.parametrize("token, says", [(None, "wants a token"), ("wrong", "token is wrong"), ("", "wants a token")])
def test_the_token_is_asked_for_everything(keeper, token, says) -> None:
    client = KeeperClient(keeper.url, token, LIMIT)
    keeper.give(entry())
    for call in (lambda: client.fetch(IP_1, SERVER_1), lambda: client.send(Batch(BatchKind.INCREMENT, SERVER, 7, 2))):
        with pytest.raises(KeeperError, match=says):
            call()
    for target in ("/metrics", "/v1/health", "/v1/sockets", "/nothing"):
        status, headers, _ = keeper.ask(f"GET {target} HTTP/1.1\n\n")
        assert status == 401 and headers["www-authenticate"].startswith("bearer")
    with pytest.raises(KeeperError, match=says):  # it hears so also when it has much to say
        client.send(Batch(BatchKind.PART, SERVER, 8, 1,
                          sections([entry(number=number) for number in range(20_000)], ports)))
    assert keeper.kept.copy.servers[SERVER].current.sequence == 1


@pytest.mark.parametrize("request_text, status, says", [
    ("GET /nothing HTTP/1.1", 404, "/nothing"),
    ("PUT /v1/copies HTTP/1.1", 405, "GET, POST"),
    ("POST /v1/copies HTTP/1.1\nContent-Length: 0", 415, CONTENT_TYPE),
    (f"POST /v1/copies HTTP/1.1\nContent-Type: {CONTENT_TYPE}\nContent-Length: 0", 400, "no batch"),
    (f"POST /v1/copies HTTP/1.1\nContent-Length: {BODY_LIMIT + 1}", 413, str(BODY_LIMIT)),
    ("POST /v1/copies HTTP/1.1\nContent-Length: 1e3", 400, "Content-Length"),
    ("POST /v1/copies HTTP/1.1\nContent-Length: 10", 400, "shorter"),
    ("POST /v1/copies HTTP/1.1\nTransfer-Encoding: chunked", 411, "Content-Length"),
    ("GET /v1/copies/198.51.100.1 HTTP/1.1", 422, "server"),
    ("GET /v1/copies/www?server=10.0.0.11 HTTP/1.1", 422, "'www'"),
    ("GET /v1/copies/198.51.100.1?server=10.0.0.99 HTTP/1.1", 403, "10.0.0.11"),
    ("GET /v1/copies/198.51.100.1?server=10.0.0.11 HTTP/1.1", 404, "full copy"),
    ("GET /v1/sockets?server=10.0.0.99&external_ip=198.51.100.1&port=1:2 HTTP/1.1", 403, "10.0.0.99"),
    ("GET /v1/sockets?server=10.0.0.11&external_ip=198.51.100.1&port=80 HTTP/1.1", 422, "SERVER_PORT:EXTERNAL_PORT"),
    ("GET /v1/sockets?server=10.0.0.11&external_ip=198.51.100.1&port=80:70000 HTTP/1.1", 422,
     "SERVER_PORT:EXTERNAL_PORT"),
    ("GET /v1/sockets?server=10.0.0.11&external_ip=2001:db8::1&port=80:80 HTTP/1.1", 422, "IP versions"),
    ("GET http://[ HTTP/1.1", 400, "path"),
], ids=lambda value: value[:40] if isinstance(value, str) else None)
def test_errors_are_problem_details(keeper, request_text, status, says) -> None:
    got, headers, body = keeper.ask(f"{request_text}\nAuthorization: Bearer {TOKEN}\n\n")
    content = json.loads(body)
    assert (got, content["status"], headers["content-type"]) == (status, status, "application/problem+json")
    assert says in content["detail"] and "Traceback" not in body.decode()


@pytest.mark.parametrize("text", ["GARBAGE\n\n", "GET / HTTP/9\n\n", "GET /" + "a" * 70_000 + " HTTP/1.1\n\n",
                                  "GET / HTTP/1.1\n" + "a: b\n" * 200 + "\n", "BREW /v1/copies HTTP/1.1\n\n"],
                         ids=["garbage", "version", "long", "headers", "method"])
def test_what_is_no_request_gets_a_problem_too(keeper, text) -> None:
    with socket.create_connection(keeper.place, timeout=LIMIT) as raw:
        raw.sendall(text.replace("\n", "\r\n").encode())
        answer = b""
        while b"}" not in answer and (more := raw.recv(65536)):
            answer += more
    assert b"application/problem+json" in answer and b"<html" not in answer.lower()


def test_people_get_json(keeper) -> None:
    keeper.give(entry(number=1), *(entry("full", number) for number in range(SHOWN + 2)))
    content = json.loads(keeper.get("/v1/copies/198.51.100.1?server=10.0.0.11", "Accept: */*")[2])
    assert content["complete"] and content["entries"] == [{
        "protocol": "tcp", "client": "203.0.113.9", "client_port": 1, "external_ip": "198.51.100.1",
        "external_port": 80,
        "server": "10.0.0.11", "server_port": 8080, "internal_ip": None, "internal_port": None,
        "next_hop": "02:00:00:00:c0:fe",
        "inner_hop": None, "state": "open"}]
    content = json.loads(keeper.get("/v1/copies/198.51.100.2?server=10.0.0.11")[2])
    assert (content["complete"], content["rows"], len(content["entries"])) == (False, SHOWN + 2, SHOWN)
    assert content["entries"][5]["internal_ip"] == "10.0.0.100"


def test_the_streams_health_and_metrics(keeper) -> None:
    assert json.loads(keeper.get("/v1/copies")[2])["servers"] == [
        {"server": "10.0.0.11", "session": None, "sequence": None, "rows": 0, "age_seconds": None, "rows_coming": None}]
    keeper.give(entry(number=1), entry("full", 2))
    content = json.loads(keeper.get("/v1/copies")[2])
    assert content["streams"] == [{"server": "10.0.0.11", "external_ip": f"198.51.100.{number}", "rows": 1}
                                  for number in (1, 2)]
    [server] = content["servers"]
    assert (content["rows"], server["session"], server["sequence"]) == (2, "0000000000000007", 1)
    assert json.loads(keeper.get("/v1/health")[2]) == {"status": "ok", "rows": 2}
    _, headers, body = keeper.get("/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'lbctl_keeper_rows{server="10.0.0.11",external_ip="198.51.100.1"} 1\n' in body
    assert b'lbctl_keeper_batches_total{answer="acknowledged"} 1\n' in body


def test_the_metrics_are_what_prometheus_reads(keeper) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    keeper.give(entry())
    names = {family.name for family in parser.text_string_to_metric_families(keeper.get("/metrics")[2].decode())}
    assert {"lbctl_keeper_rows", "lbctl_keeper_age_seconds", "lbctl_keeper_batches",
            "lbctl_keeper_journal_bytes"} <= names


def test_head_has_no_body(keeper) -> None:
    status, headers, body = keeper.ask(f"HEAD /v1/health HTTP/1.1\nAuthorization: Bearer {TOKEN}\n\n")
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 0


def test_a_full_disk_is_said_and_the_batch_not_taken(keeper, monkeypatch) -> None:
    keeper.give(entry())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeper.kept, "_append", full)
    with pytest.raises(KeeperError, match="No space left"):
        keeper.give(sequence=2, kind=BatchKind.INCREMENT)
    assert keeper.kept.copy.servers[SERVER].current.sequence == 1


def test_a_bug_is_answered_with_500(keeper, monkeypatch) -> None:
    monkeypatch.setattr(keeper.server.resources, "answer", lambda request: 1 / 0)
    status, _, body = keeper.get("/v1/health")
    assert status == 500 and b"ZeroDivision" not in body


def wait_until(true, seconds: float = LIMIT) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def closed(raw: socket.socket) -> bool:
    """The other side has ended the connection."""
    try:
        return raw.recv(1) == b""
    except ConnectionError:
        return True


def test_a_request_that_takes_too_long_is_ended(keeper, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.2)
    with (socket.create_connection(keeper.place, timeout=LIMIT) as slow,
          socket.create_connection(keeper.place, timeout=LIMIT) as idle):
        slow.sendall(b"GET /v1/he")
        assert closed(slow)
        wait_until(lambda: keeper.server.connections == 1)
        idle.sendall(f"GET /v1/health HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert idle.recv(8) == b"HTTP/1.1"


def test_an_idle_connection_is_ended_in_the_end(keeper, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "IDLE_SECONDS", 0.2)
    with socket.create_connection(keeper.place, timeout=LIMIT) as idle:
        assert closed(idle)
    keeper.give(entry())  # a client notices, and connects anew
    wait_until(lambda: not keeper.server.connections)
    assert len(keeper.client.fetch(IP_1, SERVER_1).rows) == 1


def test_who_connects_when_all_are_taken_gets_the_place_of_one_that_is_idle(keeper, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 2)
    with socket.create_connection(keeper.place, timeout=LIMIT) as first:
        wait_until(lambda: keeper.server.idle == 1)
        with socket.create_connection(keeper.place, timeout=LIMIT) as second:
            wait_until(lambda: keeper.server.idle == 2)
            keeper.give(entry())
            assert closed(first)
            second.sendall(f"GET /v1/health HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            assert second.recv(8) == b"HTTP/1.1"


def test_who_connects_when_all_are_busy_is_refused(keeper, monkeypatch) -> None:
    monkeypatch.setattr(server_module, "CONNECTIONS", 1)
    with socket.create_connection(keeper.place, timeout=LIMIT) as busy:
        wait_until(lambda: keeper.server.idle == 1)
        busy.sendall(b"GET ")
        wait_until(lambda: (keeper.server.connections, keeper.server.idle) == (1, 0))
        with pytest.raises(KeeperError):
            keeper.give(entry())


def test_odd_things_of_one_kind_are_logged_once(keeper, caplog, monkeypatch) -> None:
    for number in range(5):
        keeper.get(f"/nothing-{number}")
    assert [record.message for record in caplog.records if "nothing" in record.message][1:] == []
    monkeypatch.setattr(server_module, "NOTE_SECONDS", 0.0)
    keeper.get("/again")
    assert "4 more of this kind" in caplog.records[-1].message


# The client.


@pytest.mark.parametrize("url",
                         ["10.0.0.11:6654", "ftp://10.0.0.11", "http://", "http://10.0.0.11:6654/v1", "http://h?a=b"])
def test_what_is_no_url_is_refused(url) -> None:
    with pytest.raises(ValueError, match="no address of a keeper"):
        KeeperClient(url)


def test_nobody_there() -> None:
    with pytest.raises(KeeperError, match="there is no keeper at http://127.0.0.1:1 .*refused.*lbctl keeper"):
        KeeperClient("http://127.0.0.1:1", timeout=LIMIT).fetch(IP_1, SERVER_1)


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers every connection with what the list holds, in turn (the last one for ever)."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                with accepted:
                    accepted.recv(65536)
                    accepted.sendall(answers.pop(0) if len(answers) > 1 else answers[0])

        thread = threading.Thread(target=serve)
        thread.start()
        yield "http://{}:{}".format(*listener.getsockname()), answers
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def answer(body: bytes, status: str = "200 OK", content_type: str = CONTENT_TYPE) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


UNKNOWN_PROTOCOL = encode(Batch(BatchKind.LAST_PART, SERVER, 1, 1, sections([entry("full")], ports))).replace(
    b"\x06" + entry("full").key[1:5], b"\x84" + entry("full").key[1:5])


@pytest.mark.parametrize("given, says", [
    (answer(b"<html>"), "cannot be read"), (answer(b"<html>", "502 Bad Gateway"), "is no keeper"),
    (b"SSH-2.0\r\n", "there is no keeper"),
    (answer(b"{}", "404 Not Found"), "is no keeper"), (answer(UNKNOWN_PROTOCOL), "unknown protocols"),
    (answer(b"x" * 9)[:-3], "cannot be read"), (b"", "there is no keeper")],
    ids=["html", "gateway", "ssh", "json", "protocol", "short", "nothing"])
def test_a_stranger_that_answers_is_told_from_a_keeper(stranger, given, says) -> None:
    url, answers = stranger
    answers.append(given)
    with pytest.raises(KeeperError, match=says):
        KeeperClient(url, timeout=LIMIT).fetch(IP_1, SERVER_1)


@pytest.mark.parametrize("body", [b"[]", b"{}", b"\xff",
                                  b'{"answer": "perhaps", "sequence": 1}', b'{"answer": "resync", "sequence": null}'],
                         ids=["list", "empty", "bytes", "answer", "sequence"])
def test_a_stranger_that_takes_a_batch_is_told_from_a_keeper(stranger, body) -> None:
    url, answers = stranger
    answers.append(answer(body))
    with pytest.raises(KeeperError, match="is no keeper"):
        KeeperClient(url, timeout=LIMIT).send(Batch(BatchKind.INCREMENT, SERVER, 1, 1))


def test_a_keeper_that_does_not_answer_is_waited_for_so_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = KeeperClient("http://{}:{}".format(*listener.getsockname()), timeout=0.1)
        with pytest.raises(KeeperError, match="does not answer within 0.1 s"):
            client.fetch(IP_1, SERVER_1)


def test_fetching_does_not_wait_for_sending(keeper) -> None:
    """Two calls at once have a connection each."""
    keeper.give(entry())
    with keeper.server.resources.lock:
        sending = threading.Thread(target=keeper.give, args=[entry()],
                                   kwargs={"sequence": 2, "kind": BatchKind.INCREMENT})
        sending.start()
        wait_until(lambda: keeper.server.idle < keeper.server.connections)
        assert json.loads(keeper.get("/v1/nothing")[2])["status"] == 404
    sending.join()
    assert keeper.kept.copy.servers[SERVER].current.sequence == 2


def external_ip(**changes) -> ExternalIp:
    servers = (Server(SERVER_1, 8080), Server(ip_address("10.0.0.12"), 8080))
    services = (Service("tcp", 80, servers=servers), Service("udp", 53, servers=(Server(SERVER_1, 53),)))
    return replace(ExternalIp(IP_1, "lb-a", ip_address("10.0.0.1"), services=services), **changes)


def test_which_sockets_tell_connections() -> None:
    assert socket_ports(external_ip(), SERVER_1) == {8080: 80}
    assert socket_ports(external_ip(), ip_address("10.0.0.13")) == {}
    with pytest.raises(KeeperError, match="only with destination NAT"):
        socket_ports(external_ip(nat="full"), SERVER_1)
    with pytest.raises(KeeperError, match="only with destination NAT"):
        socket_ports(external_ip(kind="nat-gateway", services=()), SERVER_1)
    double = (*external_ip().services, Service("tcp", 81, servers=(Server(SERVER_1, 8080),)))
    with pytest.raises(KeeperError, match="port 8080 of 10.0.0.11"):
        socket_ports(external_ip(services=double), SERVER_1)


def test_the_kernels_own_connections_are_rows(tmp_path) -> None:
    """On loopback, of this process."""
    kept = KeptCopy(Copy([bytes([127, 0, 0, 1])]), tmp_path, lambda text: None)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        port = listener.getsockname()[1]
        accepted, _ = listener.accept()
        server = KeeperServer(("127.0.0.1", 0), kept, None)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            own = external_ip(services=(Service("tcp", 80, servers=(Server(ip_address("127.0.0.1"), port),)),))
            keeper = KeeperClient("http://{}:{}".format(*server.server_address[:2]), None, LIMIT)
            (row,) = keeper.fetch_sockets(own, ip_address("127.0.0.1"))
            assert keeper.count_sockets(own, ip_address("127.0.0.1")) == {port: 1}
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            kept.close()
            accepted.close()
        peer_port = client.getsockname()[1].to_bytes(2)
    assert row.key == b"\x06" + bytes([127, 0, 0, 1]) + peer_port + EXTERNAL + (80).to_bytes(2)
    assert row.reply == b"\x06" + bytes([127, 0, 0, 1]) + port.to_bytes(2) + bytes([127, 0, 0, 1]) + peer_port
    assert (row.next_hop, row.flags) == (NO_HOP, 0)


def test_another_machines_sockets_are_not_told(keeper) -> None:
    """No sockets here does not mean no connections."""
    for ask in (keeper.client.fetch_sockets, keeper.client.count_sockets):
        with pytest.raises(KeeperError, match="10.0.0.11 is no address of the keeper's machine"):
            ask(external_ip(), SERVER_1)


def test_a_kernel_that_does_not_tell_is_said(monkeypatch) -> None:
    monkeypatch.setattr(sockets, "NETLINK_SOCK_DIAG", 31)
    with pytest.raises(SocketsError, match="inet_diag"):
        sockets.connections(bytes([127, 0, 0, 1]), EXTERNAL, {8080: 80})
