"""The REST API on its web server: what a well-behaved client never sends, raw. No switch is needed."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.patience import limit
from tests.bed.switch_library import manager
from topologies import programs

CHECKOUT = Path(__file__).resolve().parents[2]
MOVE = "POST /v1/external-ips/198.51.100.1/move HTTP/1.1\r\nContent-Type: application/json\r\n"


def controller(configuration: Path) -> list[str]:
    """What starts a controller, in the checkout."""
    return [*manager(), "--config-file", str(configuration), "ryu_apps/load_balancer.py", "ryu_apps/rest.py"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", params=[None, "secret"], ids=["open", "token"])
def server(request, tmp_path_factory) -> Iterator[tuple[int, Path, str | None]]:
    """Port, log and token of a controller on 127.0.0.1 that has no switch."""
    directory, port = tmp_path_factory.mktemp("rest"), free_port()
    token = "token_file = token\n" if request.param else ""
    (directory / "token").write_text(f"{request.param}\n")
    (directory / "site.yaml").write_text((CHECKOUT / "examples/site.yaml").read_text())
    (directory / "c.conf").write_text(f"[DEFAULT]\nofp_listen_host = 127.0.0.1\nofp_tcp_listen_port = {free_port()}\n"
                                      f"wsapi_port = {port}\n[lbctl]\nsite = site.yaml\n{token}")
    log = directory / "log"
    with log.open("w") as stream:
        process = programs.popen(controller(directory / "c.conf"), cwd=CHECKOUT, stdout=stream, stderr=stream)
    try:
        wait_for(port, process, log)
        yield port, log, request.param
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def ask(
    server: tuple[int, Path, str | None], head: str, body: bytes = b"", token: bool = True
) -> tuple[int, str, bytes]:
    """Status, headers and body of the answer to one raw request."""
    port, _, secret = server
    extra = f"Authorization: Bearer {secret}\r\n" if secret and token else ""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{head}Host: localhost\r\nConnection: close\r\n{extra}\r\n".encode("latin-1") + body)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    top, _, content = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), top.decode("latin-1"), content


RAW = [
    # (sentence, head, body, status)
    ("bytes that are no UTF-8 in the path", "GET /%ff%fe HTTP/1.1\r\n", b"", 404),
    ("line breaks in the path", "GET /v1/load-balancers/a%0d%0ab HTTP/1.1\r\n", b"", 404),
    ("the root", "GET / HTTP/1.1\r\n", b"", 404),
    ("wrong method", "PUT /v1/health HTTP/1.1\r\n", b"", 405),
    ("no method that there is", "BREW /v1/moves HTTP/1.1\r\n", b"", 405),
    ("body too long", MOVE + "Content-Length: 200000\r\n", b"x" * 200_000, 413),
    ("body too long, in chunks", MOVE + "Transfer-Encoding: chunked\r\n",
     b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n", 413),
    ("broken chunks", MOVE + "Transfer-Encoding: chunked\r\n", b"4\r\n{\"to\r\nzz\r\n", 400),
    ("impossible length", MOVE + "Content-Length: abc\r\n", b"{}", 400),
    ("no body", MOVE, b"", 400),
    ("no such target", MOVE + "Content-Length: 13\r\n", b'{"to":"lb-x"}', 422),
    ("no switch", MOVE + "Content-Length: 13\r\n", b'{"to":"lb-b"}', 409),
    ("bytes that are no UTF-8 in the query", "GET /v1/health?%ff=%fe HTTP/1.1\r\n", b"", 422),
]


@pytest.mark.parametrize(("head", "body", "status"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
def test_bad_requests_get_problem_details_and_no_traceback(server, head, body, status):
    got, headers, content = ask(server, head, body)
    assert got == status, content
    assert b"Traceback" not in content
    if content:  # the server itself answers an impossible length, with nothing
        assert "application/problem+json" in headers and json.loads(content)["status"] == status


def test_it_listens_on_this_machine_only_unless_told_otherwise(server):
    listening = programs.run(["ss", "-Htln", f"sport = :{server[0]}"], capture_output=True, check=True).stdout
    assert f"127.0.0.1:{server[0]}" in listening and "0.0.0.0:*" in listening and listening.count("LISTEN") == 1


def test_without_the_token_there_is_nothing(server):
    status, headers, _ = ask(server, "GET /v1/health HTTP/1.1\r\n", token=False)
    assert status == (401 if server[2] else 200)
    assert ("www-authenticate: bearer" in headers.lower()) == bool(server[2])


@pytest.mark.quick
def test_head_tells_the_length(server):
    _, headers, content = ask(server, "HEAD /v1/health HTTP/1.1\r\n")
    assert content == b"" and "Content-Length: 0" not in headers


def test_a_body_that_never_comes_hurts_nobody_else(server):
    with socket.create_connection(("127.0.0.1", server[0])) as slow:
        slow.sendall(f"{MOVE}Content-Length: 100\r\n\r\n".encode())
        started = time.monotonic()
        assert ask(server, "GET /v1/health HTTP/1.1\r\n")[0] == 200
        assert time.monotonic() - started < 2
    assert ask(server, "GET /v1/health HTTP/1.1\r\n")[0] == 200


@pytest.mark.parametrize("content", [None, "", "two words\n", "sécret"])
def test_a_token_file_that_cannot_be_used_stops_the_controller(tmp_path, content):
    if content is not None:
        (tmp_path / "token").write_text(content)
    (tmp_path / "c.conf").write_text(f"[DEFAULT]\nofp_listen_host = 127.0.0.1\nofp_tcp_listen_port = {free_port()}\n"
                                     f"wsapi_port = {free_port()}\n[lbctl]\nsite = {CHECKOUT}/examples/site.yaml\n"
                                     f"state_file = {tmp_path}/state.json\ntoken_file = token\n")
    done = programs.run(controller(tmp_path / "c.conf"), cwd=CHECKOUT, capture_output=True, timeout=30)
    assert done.returncode != 0
    assert f"lbctl: token_file {tmp_path}/token" in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_stops_the_controller_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (tmp_path / "c.conf").write_text(
            f"[DEFAULT]\nofp_listen_host = 127.0.0.1\nofp_tcp_listen_port = {free_port()}\nwsapi_port = {port}\n"
            f"[lbctl]\nsite = {CHECKOUT}/examples/site.yaml\nstate_file = {tmp_path}/state.json\n"
        )
        done = programs.run(controller(tmp_path / "c.conf"), cwd=CHECKOUT, capture_output=True, timeout=30)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert f"lbctl: the REST API cannot listen on 127.0.0.1 port {port}" in done.stderr


@pytest.mark.parametrize(("option", "wanted"), [("", True), ("token_file = none\n", False)])
def test_where_others_can_call_a_token_is_wanted(tmp_path, option, wanted):
    """In a network namespace of its own: it listens on all addresses."""
    (tmp_path / "c.conf").write_text(f"[DEFAULT]\nofp_listen_host = 0.0.0.0\nwsapi_host = 0.0.0.0\n"
                                     f"[lbctl]\nsite = {CHECKOUT}/examples/site.yaml\n{option}")
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = programs.popen(["unshare", "--net", *controller(tmp_path / "c.conf")], cwd=CHECKOUT, stdout=stream,
                                 stderr=stream)
    try:
        deadline = time.monotonic() + limit(20)
        while "wsgi starting up" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(10)
    assert (tmp_path / "lbctl-token").exists() is wanted
    assert ("REST calls must carry a token" in log.read_text()) is wanted
