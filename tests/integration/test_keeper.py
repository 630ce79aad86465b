"""The keeper as a process: killed, restarted, with TLS, at its bounds; and the kernel's sockets of real connections.

    control 10.0.0.1, fd00::1 ------ server 10.0.0.11, fd00::11
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest

from lbctl.copies.client import KeeperClient, KeeperError, tls_context
from lbctl.copies.publisher import Publisher
from lbctl.entries.access_table import FIN_IN, FIN_OUT, NO_HOP, Entry
from lbctl.keeper.batches import Answer, BatchKind
from lbctl.keeper.rows import Row
from lbctl.site.model import ExternalIp, Server, Service
from lbctl.values.addresses import Address
from lbctl.values.keys import pack_key, reply_key
from tests.bed.namespaces import Namespace, Namespaces
from tests.bed.processes import end, run

SERVER, SERVER_6, EXTERNAL, EXTERNAL_6 = map(ip_address, ("10.0.0.11", "fd00::11", "198.51.100.1", "2001:db8:1::1"))
CONTROL = "10.0.0.1"
HOP = bytes.fromhex("02000000c0fe")
PORT, WEB = 6654, 8080
TOKEN = "a-token-of-this-test"
LIMIT = 10.0
"""Seconds that anything here may take at most."""

T = TypeVar("T")


def wait_until(true: Callable[[], T]) -> T:
    deadline = time.monotonic() + LIMIT
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
    return found


class Site:
    """Both namespaces; and the keeper's process, if one was started."""

    def __init__(self, spaces: Namespaces) -> None:
        self.control, self.server = spaces.add("control"), spaces.add("server")
        for space in (self.control, self.server):
            space.enable_ipv6()
        spaces.veth(self.control, "eth0", self.server, "eth0")
        for space, number in ((self.control, 1), (self.server, 11)):
            space.ip_batch([f"address add 10.0.0.{number}/24 dev eth0",
                            f"address add fd00::{number}/64 dev eth0 nodad"])
        self.directory = spaces.directory
        self.token_file = self.directory / "token"
        self.token_file.write_text(TOKEN)
        self.token_file.chmod(0o600)
        self.process: subprocess.Popen[str] | None = None

    def run_keeper(self, *options: object, space: Namespace | None = None) -> subprocess.Popen[str]:
        command = (sys.executable, "-c", "from lbctl.cli.main import app; app(prog_name='lbctl')", "keeper", *options)
        return (space or self.server).popen(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE,
                                            cwd=Path(__file__).parents[2])

    def start(self, *options: object, directory: str = "copy") -> None:
        """A keeper for both server addresses, that listens."""
        self.process = self.run_keeper("--server", SERVER, "--server", SERVER_6, "--directory",
                                       self.directory / directory,
                                       "--token-file", self.token_file, *options)
        wait_until(self._listens)

    def _listens(self) -> bool:
        assert self.process and self.process.poll() is None, self.process.communicate()
        with self.control.call(lambda: socket.socket()) as probe:
            return probe.connect_ex((str(SERVER), PORT)) == 0

    def stop(self, grace: float = 5.0) -> str:
        """Ends the keeper (grace 0: kill -9); what it said."""
        if self.process is None:
            return ""
        process, self.process = self.process, None
        end(process.pid, grace=grace)
        return process.communicate(timeout=LIMIT)[1]

    def client(self, token: str | None = TOKEN, scheme: str = "http", tls=None) -> KeeperClient:
        return KeeperClient(f"{scheme}://{SERVER}:{PORT}", token, LIMIT, tls)

    def call(self, function: Callable[[], T]) -> T:
        """In the control function's namespace."""
        return self.control.call(function)


@pytest.fixture(scope="module")
def built() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.fail("integration tests make network namespaces: run ./test.sh as root")
    with Namespaces() as spaces:
        yield Site(spaces)


@pytest.fixture
def site(built: Site) -> Iterator[Site]:
    yield built
    built.stop(grace=0)
    run(["rm", "-rf", str(built.directory / "copy")])


def external_ip(address: Address, *servers: Server) -> ExternalIp:
    return ExternalIp(address, "lb-a", None, services=(Service("tcp", 80, servers=servers),))


def many(count: int, first: int = 0) -> list[Entry]:
    found = []
    for number in range(first, first + count):
        client = (0xCB007100 + number // 60_000).to_bytes(4)
        key = pack_key(6, client, 1024 + number % 60_000, EXTERNAL.packed, 80)
        found.append(Entry(key, reply_key(key, SERVER.packed, WEB), HOP, 0.0))
    return found


def publisher_of(entries: list[Entry]) -> Publisher:
    ports = {b"\x06" + WEB.to_bytes(2): (80).to_bytes(2)}
    publisher = Publisher(SERVER.packed, lambda: entries, lambda stream: ports)
    publisher.begin(0.0)
    return publisher


def send_all(client: KeeperClient, publisher: Publisher, now: float = 0.0) -> list[Answer]:
    """What was replied to each batch that was due."""
    answers = []
    while batch := publisher.due(now):
        reply = client.send(batch)
        answers.append(reply.answer)
        publisher.answered(reply, now)
    return answers


def keys(rows: list[Row]) -> set[tuple[bytes, bytes, bytes]]:
    return {(row.key, row.reply, row.next_hop) for row in rows}


def keys_of(entries: list[Entry]) -> set[tuple[bytes, bytes, bytes]]:
    return {(entry.key, entry.reply, entry.next_hop) for entry in entries}


@pytest.mark.quick
def test_what_it_acknowledged_survives_kill_9(site: Site) -> None:
    entries = many(5000)
    publisher, client = publisher_of(entries), site.client()
    site.start()
    assert set(site.call(lambda: send_all(client, publisher))) == {Answer.ACKNOWLEDGED}
    more = many(10, first=5000)
    for entry in more:
        publisher.changed(entry)
    assert site.call(lambda: send_all(client, publisher, 1.0)) == [Answer.ACKNOWLEDGED]
    site.stop(grace=0)
    with pytest.raises(KeeperError, match="there is no keeper"):
        site.call(lambda: client.fetch(EXTERNAL, SERVER))
    site.start()
    fetched = site.call(lambda: client.fetch(EXTERNAL, SERVER))
    assert keys(fetched.rows) == keys_of(entries + more)
    assert fetched.session == publisher.session and fetched.age < LIMIT
    last = many(1, first=6000)[0]
    publisher.changed(last)
    assert site.call(lambda: send_all(client, publisher, 2.0)) == [Answer.ACKNOWLEDGED]  # the session goes on
    assert keys(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == keys_of([*entries, *more, last])


def test_a_keeper_that_has_lost_its_directory_asks_for_everything(site: Site) -> None:
    """The twin: without the directory, nothing survives; the sender is told, and begins anew."""
    entries = many(10)
    publisher, client = publisher_of(entries), site.client()
    site.start()
    site.call(lambda: send_all(client, publisher))
    site.stop(grace=0)
    run(["rm", "-rf", str(site.directory / "copy")])
    site.start()
    with pytest.raises(KeeperError, match="full copy"):
        site.call(lambda: client.fetch(EXTERNAL, SERVER))
    publisher.changed(entries[0])
    assert site.call(lambda: send_all(client, publisher, 1.0)) == [Answer.RESYNC, Answer.ACKNOWLEDGED]
    assert keys(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == keys_of(entries)


def test_killed_again_and_again_while_entries_come(site: Site) -> None:
    """Whatever was acknowledged is there, each time."""
    entries: list[Entry] = []
    publisher, client = publisher_of(entries), site.client()
    for turn in range(5):
        site.start()
        for step in range(20):
            entry = many(1, first=100 * turn + step)[0]
            entries.append(entry)
            publisher.changed(entry)
            now = turn * 100.0 + step + 1
            assert Answer.ACKNOWLEDGED in site.call(lambda now=now: send_all(client, publisher, now))
        site.stop(grace=0)
        site.start()
        assert keys(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == keys_of(entries)
        site.stop(grace=0)


def test_who_has_no_token_gets_nothing(site: Site) -> None:
    site.start()
    for token in (None, "wrong"):
        with pytest.raises(KeeperError, match="token"):
            site.call(lambda token=token: site.client(token).fetch(EXTERNAL, SERVER))
    log = site.stop()
    assert "401" in log and TOKEN not in log and "Traceback" not in log


def test_without_a_token_it_listens_on_loopback_only(site: Site) -> None:
    for options, status in ((("--listen", f"{SERVER}:{PORT}"), 1), ((), 1)):
        process = site.run_keeper("--server", SERVER, "--directory", site.directory / "copy", *options)
        said = process.communicate(timeout=LIMIT)[1]
        assert process.returncode == status and "--token-file" in said and said.count("\n") == 1
    process = site.run_keeper("--server", SERVER, "--directory", site.directory / "copy", "--listen",
                              f"127.0.0.1:{PORT}")
    assert "listening on 127.0.0.1" in process.stderr.readline()
    end(process.pid)
    process.communicate(timeout=LIMIT)


@pytest.mark.parametrize("options, status, says", [
    (("--server", "www"), 2, "no IP address"), ((), 2, "--server"),
    (("--server", SERVER, "--listen", "here"), 2, "ADDRESS:PORT"),
    (("--server", SERVER, "--listen", "203.0.113.7:6654", "--no-token"), 1, "cannot listen"),
    (("--server", SERVER, "--token-file", "/nonexistent"), 1, "cannot be read"),
    (("--server", SERVER, "--token-file", "/dev/null"), 1, "openssl rand"),
    (("--server", SERVER, "--no-token", "--tls-key", "/dev/null"), 2, "--tls-cert"),
    (("--server", SERVER, "--no-token", "--tls-cert", "/dev/null"), 1, "cannot be used"),
    (("--server", SERVER, "--no-token", "--max-rows", "0"), 2, "max-rows"),
], ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None)
def test_wrong_use_is_said_in_words(site: Site, options: tuple, status: int, says: str) -> None:
    process = site.run_keeper("--directory", site.directory / "copy", *options)
    said = process.communicate(timeout=LIMIT)[1]
    assert process.returncode == status and says in said and "Traceback" not in said


def certificate(directory: Path, address: Address) -> tuple[Path, Path]:
    """Self-signed, for that address; certificate and key."""
    cert, key = directory / f"{address}.pem", directory / f"{address}.key"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
         str(key),
         "-out", str(cert), "-days", "2", "-subj", "/CN=keeper", "-addext", f"subjectAltName=IP:{address}"])
    return cert, key


def test_tls(site: Site) -> None:
    cert, key = certificate(site.directory, SERVER)
    site.start("--tls-cert", cert, "--tls-key", key)
    entries = many(3000)
    publisher, client = publisher_of(entries), site.client(scheme="https", tls=tls_context(cert))
    assert set(site.call(lambda: send_all(client, publisher))) == {Answer.ACKNOWLEDGED}
    assert keys(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == keys_of(entries)
    with pytest.raises(KeeperError, match="certificate .* is not trusted"):
        site.call(lambda: site.client(scheme="https").fetch(EXTERNAL, SERVER))
    with pytest.raises(KeeperError):
        site.call(lambda: site.client().fetch(EXTERNAL, SERVER))
    log = site.stop()
    assert "no TLS connection" in log and "Traceback" not in log


def test_a_certificate_of_somebody_else(site: Site) -> None:
    cert, key = certificate(site.directory, ip_address("10.0.0.12"))
    site.start("--tls-cert", cert, "--tls-key", key)
    with pytest.raises(KeeperError, match="not trusted.*10.0.0.11"):
        site.call(lambda: site.client(scheme="https", tls=tls_context(cert)).fetch(EXTERNAL, SERVER))


GREEN = """
import eventlet; eventlet.monkey_patch()
import sys, time
from ipaddress import ip_address
from pathlib import Path
from lbctl.copies.client import KeeperClient, KeeperError, tls_context
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic()); eventlet.sleep(0.01)
eventlet.spawn(tick)
url, cert, silent = sys.argv[1:]
client = KeeperClient(url, "{token}", 5.0, tls_context(Path(cert)))
for _ in range(3):
    print(len(client.fetch(ip_address("198.51.100.1"), ip_address("10.0.0.11")).rows))
before = len(ticks)
try:
    KeeperClient(silent, None, 0.5).fetch(ip_address("198.51.100.1"), ip_address("10.0.0.11"))
except KeeperError as error:
    print(error)
print("others went on" if len(ticks) - before > 10 else "everything stood still")
"""


def test_the_client_in_a_green_thread_lets_others_go_on(site: Site) -> None:
    """As in Ryu's process: also by TLS, and while a keeper does not answer."""
    cert, key = certificate(site.directory, SERVER)
    site.start("--tls-cert", cert, "--tls-key", key)
    publisher = publisher_of(many(2000))
    site.call(lambda: send_all(site.client(scheme="https", tls=tls_context(cert)), publisher))
    with site.server.call(lambda: socket.create_server((str(SERVER), 9))):
        said = run([*site.control.prefix, sys.executable, "-c", GREEN.format(token=TOKEN), f"https://{SERVER}:{PORT}",
                    str(cert),
                    f"http://{SERVER}:9"], env={"PYTHONPATH": str(Path(__file__).parents[2])})
    assert said.splitlines() == ["2000", "2000", "2000",
                                 f"the keeper at http://{SERVER}:9 does not answer within 0.5 s", "others went on"]


def test_a_server_that_it_is_not_for(site: Site) -> None:
    site.start()
    stranger = ip_address("10.0.0.12")
    with pytest.raises(KeeperError, match="not for server 10.0.0.12, but for: 10.0.0.11, fd00::11"):
        site.call(lambda: site.client().fetch(EXTERNAL, stranger))
    with pytest.raises(KeeperError, match="not for server 10.0.0.12"):
        site.call(lambda: site.client().fetch_sockets(external_ip(EXTERNAL, Server(stranger, WEB)), stranger))
    publisher = Publisher(stranger.packed, list, lambda stream: {})
    publisher.begin(0.0)
    assert site.call(lambda: send_all(site.client(), publisher)) == [Answer.REFUSED]
    assert "10.0.0.12" in publisher.last_failure


def memory(pid: int) -> float:
    """MB that a process has in memory."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def test_its_memory_is_bounded(site: Site) -> None:
    """It refuses more rows than it may have, says so, and goes on with what it has."""
    site.start("--max-rows", 20_000)
    empty = memory(site.process.pid)
    publisher, client = publisher_of(many(60_000)), site.client()
    answers = site.call(lambda: send_all(client, publisher))
    assert answers == [*[Answer.ACKNOWLEDGED] * 10, Answer.REFUSED] and "--max-rows" in publisher.last_failure
    for _ in range(5):
        site.call(lambda: send_all(client, publisher, 1000.0))
    print(f"{empty:.0f} MB empty, {memory(site.process.pid):.0f} MB after 20 000 rows had been coming twice")
    assert memory(site.process.pid) < empty + 40
    fits = publisher_of(many(20_000))
    assert set(site.call(lambda: send_all(client, fits))) == {Answer.ACKNOWLEDGED}
    assert len(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == 20_000
    assert (site.directory / "copy" / "copy.journal").stat().st_size < 20 * 2**20


def test_it_ends_when_it_is_told_to(site: Site) -> None:
    site.start()
    client = site.client()
    site.call(lambda: send_all(client, publisher_of(many(1))))  # its connection stays open
    process = site.process
    process.terminate()
    assert process.wait(LIMIT) == 0
    assert site.stop().rstrip().endswith("ended")


# The kernel's sockets.

OPEN, CLIENT_CLOSED, SERVER_CLOSED = 0, FIN_IN, FIN_OUT


class Connections:
    """Connections from the control namespace to ports of the server; `peers`: what the server must have of each."""

    def __init__(self, site: Site, stack: ExitStack) -> None:
        self.site, self._stack = site, stack
        self.peers: dict[tuple[bytes, int], int] = {}

    def listener(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return self._stack.enter_context(self.site.server.call(lambda: socket.create_server(
            (address, port), family=family, backlog=512, dualstack_ipv6=address == "::")))

    def connect(self, listener: socket.socket, address: Address, flags: int | None = OPEN) -> None:
        """flags: who closes, None: both."""
        place = str(address), listener.getsockname()[1]
        connected = self.site.control.call(lambda: socket.create_connection(place, timeout=LIMIT))
        client = self._stack.enter_context(connected)
        accepted = self._stack.enter_context(listener.accept()[0])
        if flags in (CLIENT_CLOSED, None):
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(1) == b""
        if flags in (SERVER_CLOSED, None):
            accepted.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        if flags is not None:
            self.peers[ip_address(client.getsockname()[0]).packed, client.getsockname()[1]] = flags


def found(rows: list[Row], address: Address, external: Address) -> dict[tuple[bytes, int], int]:
    """Client's place -> flags, of rows that are right otherwise."""
    size = len(address.packed)
    for row in rows:
        assert row.next_hop == NO_HOP and row.key[0] == 6 and row.inner_hop == b""
        assert row.key[3 + size:] == external.packed + (80).to_bytes(2)
        assert row.reply == reply_key(row.key, address.packed, WEB)
    assert len({row.key for row in rows}) == len(rows)
    return {(row.key[1:1 + size], int.from_bytes(row.key[1 + size:3 + size])): row.flags for row in rows}


@pytest.mark.parametrize("listens_on", [str(SERVER), "0.0.0.0", "::"])
def test_connections_over_ipv4(site: Site, listens_on: str) -> None:
    """Also of a server that listens for both IP versions: its sockets are of IPv6, their addresses IPv4-mapped."""
    site.start()
    with ExitStack() as stack:
        connections = Connections(site, stack)
        web, other = connections.listener(listens_on, WEB), connections.listener(listens_on, WEB + 1)
        for flags in (OPEN, OPEN, CLIENT_CLOSED, SERVER_CLOSED, None):
            connections.connect(web, SERVER, flags)
        wanted = dict(connections.peers)
        connections.connect(other, SERVER)
        if listens_on == "::":
            connections.connect(web, SERVER_6)
        rows = site.call(lambda: site.client().fetch_sockets(external_ip(EXTERNAL, Server(SERVER, WEB)), SERVER))
        assert found(rows, SERVER, EXTERNAL) == wanted


def test_connections_over_ipv6(site: Site) -> None:
    site.start()
    with ExitStack() as stack:
        connections = Connections(site, stack)
        web = connections.listener("::", WEB)
        for flags in (OPEN, CLIENT_CLOSED, SERVER_CLOSED):
            connections.connect(web, SERVER_6, flags)
        wanted = dict(connections.peers)
        connections.connect(web, SERVER)
        rows = site.call(lambda: site.client().fetch_sockets(external_ip(EXTERNAL_6, Server(SERVER_6, WEB)), SERVER_6))
        assert found(rows, SERVER_6, EXTERNAL_6) == wanted


def test_a_connection_that_is_being_opened_is_there(site: Site) -> None:
    """SYN_RECV: the client's ACK does not come, since the server's answers go to a MAC that nobody has."""
    site.start()
    with ExitStack() as stack:
        connections = Connections(site, stack)
        connections.listener(str(SERVER), WEB)
        site.server.ip("neighbour", "replace", "10.0.0.99", "lladdr", "02:00:00:00:00:99", "dev", "eth0")
        site.control.ip("address", "add", "10.0.0.99/24", "dev", "eth0")
        stack.callback(site.server.ip, "neighbour", "del", "10.0.0.99", "dev", "eth0")
        stack.callback(site.control.ip, "address", "del", "10.0.0.99/24", "dev", "eth0")
        client = stack.enter_context(site.control.call(lambda: socket.socket()))
        client.setblocking(False)
        client.bind(("10.0.0.99", 0))
        assert client.connect_ex((str(SERVER), WEB)) != 0
        wanted = {(ip_address("10.0.0.99").packed, client.getsockname()[1]): OPEN}
        asked = external_ip(EXTERNAL, Server(SERVER, WEB))
        wait_until(lambda: found(site.call(lambda: site.client().fetch_sockets(asked, SERVER)),
                                 SERVER, EXTERNAL) == wanted)


def test_with_full_nat_the_kernel_is_not_asked(site: Site) -> None:
    with pytest.raises(KeeperError, match="only with destination NAT"):
        site.client().fetch_sockets(ExternalIp(EXTERNAL, "lb-a", None, "full",
                                               external_ip(EXTERNAL, Server(SERVER, WEB)).services), SERVER)


CLIENTS = """
import resource, socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
sockets = [socket.create_connection((host, port)) for _ in range(count)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_what_it_takes(site: Site) -> None:
    """Printed, not judged: docs/keeper.md has the figures of a quiet machine. That nothing is missing among so many is
    judged."""
    site.start()
    client, entries = site.client(), many(20_000)
    publisher = publisher_of(entries)
    sent = timed(lambda: site.call(lambda: send_all(client, publisher)))
    fetched = min(timed(lambda: site.call(lambda: client.fetch(EXTERNAL, SERVER))) for _ in range(3))
    assert keys(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == keys_of(entries)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(20_000, hard - 1000)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        web = Connections(site, stack).listener(str(SERVER), WEB)
        clients = site.control.popen(sys.executable, "-c", CLIENTS, SERVER, WEB, count, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE)
        stack.callback(clients.communicate, timeout=LIMIT)
        accepted = [stack.enter_context(web.accept()[0]) for _ in range(count)]
        assert clients.stdout and clients.stdout.readline() == "ready\n"
        asked = external_ip(EXTERNAL, Server(SERVER, WEB))
        told = min(timed(lambda: site.call(lambda: client.fetch_sockets(asked, SERVER))) for _ in range(3))
        places = {(ip_address(host).packed, port): OPEN for host, port in (each.getpeername() for each in accepted)}
        assert found(site.call(lambda: client.fetch_sockets(asked, SERVER)), SERVER, EXTERNAL) == places
    print(f"20 000 entries: full copy {sent * 1e3:.0f} ms, fetched {fetched * 1e3:.0f} ms; "
          f"{count} sockets: {told * 1e3:.0f} ms; keeper {memory(site.process.pid):.0f} MB")


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_parts_of_a_full_copy_survive_too(site: Site) -> None:
    """Killed in the middle of a full copy: the old one is still given back, and the new one goes on."""
    old, new = many(10), many(5000, first=100)
    client = site.client()
    site.start()
    site.call(lambda: send_all(client, publisher_of(old)))
    publisher = publisher_of(new)
    batch = publisher.due(0.0)
    assert batch.kind is BatchKind.PART
    publisher.answered(site.call(lambda: client.send(batch)), 0.0)
    site.stop(grace=0)
    site.start()
    assert keys(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == keys_of(old)
    assert set(site.call(lambda: send_all(client, publisher))) == {Answer.ACKNOWLEDGED}
    assert keys(site.call(lambda: client.fetch(EXTERNAL, SERVER)).rows) == keys_of(new)
