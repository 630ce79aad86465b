"""OpenFlow over TLS (ctl_cert, ctl_privkey, ca_certs): who is greeted; and nobody waits for a silent one."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.processes import run
from tests.integration.test_rest_server import CHECKOUT, ask, controller, free_port, wait_for
from topologies import programs

HELLO = struct.pack("!BBHI", 5, 0, 8, 1)
HELLO_TYPE, ECHO_REQUEST, FEATURES_REQUEST = 0, 2, 5


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key in one file, for both sides."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert, both = directory / "key", directory / "cert", directory / "both.pem"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=lbctl", "-keyout", str(key), "-out", str(cert)])
    both.write_text(key.read_text() + cert.read_text())
    return both


@pytest.fixture(params=[False, True], ids=["any-switch", "known-switches"])
def ports(request: pytest.FixtureRequest, certificate: Path, tmp_path: Path) -> Iterator[tuple[int, int, bool]]:
    """OpenFlow port and REST port of a controller; does it want to see the switch's certificate?"""
    openflow, rest, log = free_port(), free_port(), tmp_path / "log"
    ca_certs = f"ca_certs = {certificate}\n" if request.param else ""
    (tmp_path / "c.conf").write_text(
        f"[DEFAULT]\nofp_listen_host = 127.0.0.1\nofp_ssl_listen_port = {openflow}\nwsapi_port = {rest}\n"
        f"ctl_privkey = {certificate}\nctl_cert = {certificate}\n{ca_certs}"
        f"[lbctl]\nsite = {CHECKOUT}/examples/site.yaml\nstate_file = {tmp_path}/state.json\n"
    )
    with log.open("w") as stream:
        process = programs.popen(controller(tmp_path / "c.conf"), cwd=CHECKOUT, stdout=stream, stderr=stream)
    try:
        wait_for(rest, process, log)
        wait_for(openflow, process, log)
        yield openflow, rest, request.param
    finally:
        process.terminate()
        process.wait(10)


def greeting(port: int, certificate: Path | None) -> set[int]:
    """The types of what a switch is told first that says hello; none if it is not let in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate)
    got = b""
    try:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10)) as connection:
            connection.sendall(HELLO)
            while len(got) < 24 and (data := connection.recv(100)):
                got += data
    except (ssl.SSLError, ConnectionError):
        pass
    return set(got[1::8])


def test_a_switch_with_a_certificate_is_greeted(ports: tuple[int, int, bool], certificate: Path) -> None:
    assert greeting(ports[0], certificate) == {HELLO_TYPE, ECHO_REQUEST, FEATURES_REQUEST}


def test_one_without_is_greeted_if_nobody_asks_for_it(ports: tuple[int, int, bool]) -> None:
    expected = set() if ports[2] else {HELLO_TYPE, ECHO_REQUEST, FEATURES_REQUEST}
    assert greeting(ports[0], None) == expected


def test_one_that_says_nothing_keeps_nobody_waiting(ports: tuple[int, int, bool], certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(certificate)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", ports[0]), 10)):
        time.sleep(0.1)
        assert ask((ports[1], CHECKOUT, None), "GET /v1/health HTTP/1.1\r\n")[0] == 200
        assert greeting(ports[0], certificate)
