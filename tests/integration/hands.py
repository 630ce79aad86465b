"""TCP by hand for integration tests: a client of single segments, connections that talk, a bed that goes on between
tests."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import ACK, FIN, SYN, Frame
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.traffic import RawPort, connect

_ports = itertools.count(20_000)
"""Each hand-made connection has a client port of its own, so that tests on one bed do not meet."""


def server_space(bed: Bed, address: str) -> Namespace:
    return next(space for space in bed.servers if space.name == f"server-{address}")


@contextlib.contextmanager
def without(bed: Bed, server: str) -> Iterator[None]:
    """Nothing reaches that server meanwhile, and its own link stays up."""
    plug = bed.plugs[server_space(bed, server).name, "eth0"]
    bed.switch.ip("link", "set", plug.port, "nomaster")
    try:
        yield
    finally:
        bed.switch.ip("link", "set", plug.port, "master", plug.segment)


def external_mac(bed: Bed, lb: str) -> str:
    node = bed.lbs[lb]
    return node.space.mac(node.lb.external_port)


def internal_mac(bed: Bed, lb: str) -> str:
    node = bed.lbs[lb]
    return node.space.mac(node.lb.internal_port)


def counters(bed: Bed, lb: str = "lb-a") -> dict[str, Any]:
    """packet_ins, dropped (reason -> count), other (event -> count)."""
    return bed.rest("GET", f"/v1/load-balancers/{lb}").json["counters"]


def dropped(bed: Bed, reason: str, lb: str = "lb-a") -> int:
    return counters(bed, lb)["dropped"].get(reason, 0)


def metric(bed: Bed, name: str) -> float:
    """The value of the metric whose name and labels are exactly `name`; 0 if there is none."""
    for line in bed.rest("GET", "/metrics").text.splitlines():
        key, _, value = line.rpartition(" ")
        if key == name:
            return float(value)
    return 0.0


def entries_of(bed: Bed, client: tuple[str, int], lb: str = "lb-a") -> list[dict[str, Any]]:
    """The entries of that client address and port."""
    return [entry for entry in bed.entries(lb) if (entry["client"], entry["client_port"]) == tuple(client)]


def entry_flows_of(bed: Bed, client: tuple[str, int], lb: str = "lb-a") -> list[str]:
    """The flows of that client's entry in the switch itself; of full NAT, the one towards the server."""
    address, port = client
    lines = bed.lbs[lb].dump_flows().splitlines()
    return [line for line in lines if f"nw_src={address}" in line and f"tp_src={port}," in line
            or f"nw_dst={address}" in line and f"tp_dst={port} " in line]


@dataclass
class HandClient:
    """A TCP client of single segments, on `port`, at an address that no host has. `mac`: where its frames come from."""

    port: RawPort
    gateway: str
    external: tuple[str, int] = ("198.51.100.1", 80)
    address: str = "198.51.100.201"
    mac: str = ""
    number: int = field(default_factory=lambda: next(_ports))
    seq: int = 1000
    ack: int = 0

    def __post_init__(self) -> None:
        self.mac = self.mac or self.port.mac

    @property
    def local(self) -> tuple[str, int]:
        return self.address, self.number

    def frame(self, flags: int, payload: bytes = b"", **changes: Any) -> bytes:
        numbers = {"seq": self.seq, "ack": self.ack if flags & ACK else 0} | changes
        return frames.tcp((self.mac, self.gateway), self.local, self.external, flags, payload=payload, **numbers)

    def send(self, flags: int, payload: bytes = b"", **changes: Any) -> None:
        self.port.send(self.frame(flags, payload, **changes))

    def mine(self, frame: Frame) -> bool:
        return (str(frame.src), frame.src_port, str(frame.dst), frame.dst_port) == (*self.external, *self.local)

    def receive(self, flags: int | None = None, timeout: float = limit(3.0)) -> Frame | None:
        """The next segment for us (with exactly these flags)."""
        return self.port.receive(lambda frame: self.mine(frame) and flags in (None, frame.flags), timeout)

    def open(self) -> HandClient:
        """Handshake."""
        self.send(SYN)
        answer = self.receive(SYN | ACK)
        assert answer is not None and answer.ack == self.seq + 1, f"no SYN-ACK but {answer}"
        self.seq, self.ack = self.seq + 1, answer.seq + 1
        self.send(ACK)
        return self

    def say(self, line: bytes) -> bytes:
        """Sends a line; the payload that comes back."""
        self.send(ACK | frames.PSH, line + b"\n")
        self.seq += len(line) + 1
        answer = self.port.receive(lambda frame: self.mine(frame) and bool(frame.payload), limit(5.0))
        assert answer is not None, f"no answer to {line!r}"
        self.ack = answer.seq + len(answer.payload)
        self.send(ACK)
        return answer.payload

    def close(self) -> None:
        """FIN both ways, as a client that closes first does it."""
        self.send(FIN | ACK)
        self.seq += 1
        answer = self.port.receive(lambda frame: self.mine(frame) and bool(frame.flags & FIN))
        assert answer is not None, "the server does not close"
        self.ack = answer.seq + 1
        self.send(ACK)


@contextlib.contextmanager
def hand_client(bed: Bed, lb: str = "lb-a", **options: Any) -> Iterator[HandClient]:
    """A HandClient beside clients[0], that sends to LB `lb`."""
    with RawPort(bed.clients[0], "eth0") as port:
        yield HandClient(port, external_mac(bed, lb), **options)


@contextlib.contextmanager
def own_server(bed: Bed, address: str, port: int) -> Iterator[socket.socket]:
    """A listening socket in place of the echo server at `address`, which stays away until the bed is reset."""
    space = server_space(bed, address)
    script = bed.server_scripts[space.name]
    if script.running:
        script.kill()

    def listen() -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(16)
        listener.settimeout(limit(5))
        return listener

    with space.call(listen) as listener:
        yield listener


def pair(bed: Bed, listener: socket.socket, address: str, port: int = 80) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection through the LB."""
    near = connect(bed.clients[0], address, port)
    far, _ = listener.accept()
    far.settimeout(limit(5))
    return near, far


def who_answers(space: Namespace, address: str, port: int = 80) -> str:
    """The server of a new connection. Its client port was not used before: kernels use one again within milliseconds,
    and a port that is used again gets the server it had."""
    own = space.ip("-4", "-o", "addr", "show", "eth0").split()[3].partition("/")[0]

    def ask() -> bytes:
        with socket.create_connection((address, port), limit(5), (own, next(_ports))) as asking:
            asking.sendall(b"who?\n")
            return asking.recv(100)

    return space.call(ask).decode().split()[0]


def retransmissions(end: socket.socket) -> int:
    """tcpi_total_retrans of linux/tcp.h."""
    return _tcp_info(end, 100)


def lost(end: socket.socket) -> int:
    """Segments that were sent again and had not come: without those that the other end says it has twice (RFC 2883).

    On a busy machine an acknowledgement may come too late, and nothing is lost.
    """
    return retransmissions(end) - _tcp_info(end, 216)  # tcpi_dsack_dups


def _tcp_info(end: socket.socket, offset: int) -> int:
    return struct.unpack_from("=I", end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232), offset)[0]


class Listening:
    """What arrives at a port and is `wanted`, from now on: `heard`, and at what `times`. In a thread; a context
    manager."""

    def __init__(self, port: RawPort, wanted: Callable[[Frame], bool]) -> None:
        self.heard: list[Frame] = []
        self.times: list[float] = []
        self._port = port
        self._wanted = wanted
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stopped.is_set():
            for frame in self._port.frames(0.2):
                if self._wanted(frame):
                    self.heard.append(frame)
                    self.times.append(time.monotonic())

    @property
    def spacing(self) -> float:
        """Seconds from one to the next, on the average: so it does not count how long a busy machine delays each."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)

    def silent_for(self, seconds: float) -> bool:
        """Whether nothing has come for so long since the last one."""
        return bool(self.times) and time.monotonic() - self.times[-1] > seconds

    def __enter__(self) -> Listening:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def announced(bed: Bed, *listening: Listening) -> None:
    """Until each has heard the announcements of a move, five times with more than a second between them, and no
    more."""
    bed.wait_until(lambda: min(len(each.times) for each in listening) >= 5, 8, "announced five times on both sides")
    bed.wait_until(lambda: all(each.silent_for(2.5) for each in listening), 5, "announced no more")
    for each in listening:
        assert each.spacing > 0.9, each.times


def syns_sent_again(space: Namespace) -> int:
    """Segments that the kernel there has sent again. A client that is told "no" at once has not sent its SYN again."""
    return _tcp_counter(space, "RetransSegs")


def connections_refused(space: Namespace) -> int:
    """Attempts of the kernel there to open a TCP connection that were refused."""
    return _tcp_counter(space, "AttemptFails")


def _tcp_counter(space: Namespace, name: str) -> int:
    lines = space.call(lambda: Path("/proc/thread-self/net/snmp").read_text()).splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index(name)])


class Talk:
    """A connection that sends a line again and again, in a thread.

    patience: seconds without an answer after which it counts as broken, for a test that expects that. A test that
    expects it to go on waits for longer.
    """

    def __init__(
        self, space: Namespace, address: str, port: int = 80, *, patience: float = 1.5, pause: float = 0.02
    ) -> None:
        self.socket = connect(space, address, port, timeout=limit(patience))
        self.local = self.socket.getsockname()[:2]
        self._patience = patience
        self.answers = 0
        self.error: OSError | None = None
        self._pause = pause
        self._stopped = threading.Event()
        self._talk_once()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _talk_once(self) -> None:
        line = b"%d\n" % self.answers
        self.socket.sendall(line)
        answer = b""
        while not answer.endswith(b"\n"):
            part = self.socket.recv(4096)
            if not part:
                raise ConnectionError("closed by the server")
            answer += part
        if not answer.endswith(b" " + line):
            raise ConnectionError(f"wrong answer {answer!r}")
        self.answers += 1

    def _run(self) -> None:
        try:
            while not self._stopped.wait(self._pause):
                self._talk_once()
        except OSError as error:
            self.error = error

    def goes_on(self, answers: int = 5, timeout: float = limit(5.0)) -> bool:
        """Whether that many answers more come; False as soon as it has failed."""
        target, deadline = self.answers + answers, time.monotonic() + timeout
        while self.answers < target and self.error is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.error is None and self.answers >= target

    def breaks(self, timeout: float = limit(5.0)) -> bool:
        """Whether it fails within that time, or gets no answer for as long as its patience is."""
        seen, since, deadline = self.answers, time.monotonic(), time.monotonic() + timeout
        while self.error is None and (now := time.monotonic()) < deadline:
            if self.answers != seen:
                seen, since = self.answers, now
            elif now - since > self._patience + self._pause:
                return True
            time.sleep(0.01)
        return self.error is not None

    @property
    def lost(self) -> int:
        """Segments that the client had to send again because they had not come."""
        if lost(self.socket):
            self.goes_on(1)  # what says that it came twice may be on its way
        return lost(self.socket)

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(0.2)
        if self._thread.is_alive():  # it waits for an answer that does not come
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(limit(5))
        self.socket.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def eventually(bed: Bed, condition: Callable[[], Any], what: str, timeout: float = 8.0) -> Any:
    return bed.wait_until(condition, timeout, what)
