"""Traffic in namespaces: servers that say who they are, connections that notice what happens to them, raw frames."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bed.frames import Frame, read
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.processes import end

HERE = Path(__file__).resolve().parent
READY_TIMEOUT = limit(10.0)
END_TIMEOUT = limit(40.0)
"""Longer than load.py's own patience with a connection that stalls."""
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, PACKET_OUTGOING = 263, 1, 1, 4
ETH_P_ALL = 3


class TrafficError(RuntimeError):
    """A server or a load did not start, or died; the message holds what it said."""


class Script:
    """One of this package's scripts, running in a namespace; with `wait` it has said "ready" when this returns.

    `log` gets what it writes to standard error. Raises TrafficError.
    """

    def __init__(self, space: Namespace, log: Path, script: str, *args: object, wait: bool = True) -> None:
        self.name = f"{script} in {space.name}"
        self.log = log
        self._begun_with = (space, log, script, *args)
        with log.open("w") as errors:
            command = (sys.executable, HERE / script, *args)
            self.process = space.popen(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait up to `timeout` seconds until it says "ready". Raises TrafficError."""
        if self._line(timeout) != "ready":
            self.kill()
            raise TrafficError(
                f"{self.name} did not start: {self.log.read_text()[-2000:].strip() or 'it said nothing'}"
            )

    def again(self) -> Script:
        """The same once more, when this one has ended."""
        return Script(*self._begun_with)

    def finish(self) -> str:
        """SIGTERM, and what it prints then. Raises TrafficError if it died before or does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            output, _ = self.process.communicate(timeout=END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TrafficError(f"{self.name} did not end within {END_TIMEOUT:g} s of SIGTERM") from None
        if self.process.returncode != 0:
            raise TrafficError(f"{self.name} failed: {self.log.read_text()[-2000:].strip()}")
        return output

    def kill(self) -> None:
        """kill -9."""
        end(self.process.pid, grace=0)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def _line(self, timeout: float) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], timeout)
        return self.process.stdout.readline().strip() if readable else ""


@dataclass(frozen=True)
class LongConnection:
    """What a connection that stays open saw; times in seconds. `error`: None, "reset", "refused", "timeout",
    "closed"..."""

    sent: int
    received: int
    longest_gap: float
    worst_round_trip: float
    retransmissions: int
    server: str | None
    local: tuple[str, int] | None
    error: str | None


@dataclass(frozen=True)
class LoadResult:
    """What a load saw. `failures`: an error (as above) for each failed request; `servers`: name -> requests answered;
    `slow`: requests that took more than half a second."""

    long: tuple[LongConnection, ...]
    succeeded: int
    failures: tuple[str, ...]
    servers: dict[str, int]
    longest_request: float
    slow: int = 0

    @property
    def broken(self) -> list[LongConnection]:
        """The long connections that ended with an error."""
        return [connection for connection in self.long if connection.error is not None]

    @property
    def longest_gap(self) -> float:
        """The longest time between two answers on any long connection, in seconds."""
        return max((connection.longest_gap for connection in self.long), default=0.0)


class Load(Script):
    """`lines` connections that stay open and `requests` workers that open one for each request, from one client.

    Each sends every `interval` seconds; `bind`: local addresses, taken in turn. However early it is stopped, it ends
    only when `at_least` requests have succeeded, or have had PATIENCE seconds more for that (see load.py).
    """

    def __init__(
        self,
        space: Namespace,
        log: Path,
        address: object,
        port: int = 80,
        *,
        lines: int = 0,
        requests: int = 0,
        interval: float = 0.02,
        bind: Sequence[str] = (),
        at_least: int = 0,
    ) -> None:
        options = ("--lines", lines, "--requests", requests, "--interval", interval, "--bind", ",".join(bind))
        options += ("--at-least", at_least if requests else 0)
        super().__init__(space, log, "load.py", address, port, *options)

    def stop(self) -> LoadResult:
        """End it, and what it saw. Raises TrafficError."""
        saw = json.loads(self.finish())
        long = tuple(
            LongConnection(**{**record, "local": tuple(record["local"]) if record["local"] else None})
            for record in saw["long"]
        )
        requests = saw["requests"]
        failures = tuple(requests["failures"])
        return LoadResult(
            long, requests["succeeded"], failures, requests["servers"], requests["longest"], requests["slow"]
        )


def request(
    space: Namespace,
    address: object,
    port: int = 80,
    path: str = "/",
    *,
    method: str = "GET",
    body: bytes = b"",
    timeout: float = limit(5.0),
) -> dict[str, Any]:
    """One HTTP request from inside `space`; the JSON that echo_server.py answered.

    Raises OSError or http.client.HTTPException as it comes.
    """
    connection = http.client.HTTPConnection(str(address), port, timeout=timeout)
    connection.sock = connect(space, address, port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, body=body or None, headers={"Connection": "close"})
        return json.loads(connection.getresponse().read())


def connect(
    space: Namespace, address: object, port: int = 80, *, bind: str = "", timeout: float = limit(5.0)
) -> socket.socket:
    """A TCP connection from inside `space`, kept by the caller. Raises OSError."""
    family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
    plain = space.call(lambda: socket.socket(family))
    try:
        plain.settimeout(timeout)
        if bind:
            plain.bind((bind, 0))
        plain.connect((str(address), port))
    except BaseException:
        plain.close()
        raise
    return plain


class RawPort:
    """Sends and receives whole frames on a device of a namespace, whatever their addresses. A context manager."""

    def __init__(self, space: Namespace, device: str) -> None:
        self.mac = space.mac(device)

        def open_socket() -> socket.socket:
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            raw.bind((device, 0))
            membership = struct.pack("IHH8s", socket.if_nametoindex(device), PACKET_MR_PROMISC, 0, b"")
            raw.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            return raw

        self._socket = space.call(open_socket)

    def send(self, *frames: bytes) -> None:
        """Send frames as they are."""
        for frame in frames:
            self._socket.send(frame)

    def frames(self, timeout: float) -> Iterator[Frame]:
        """Frames as they arrive (not those that this host sends), until `timeout` seconds have gone."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                raw, source = self._socket.recvfrom(65536)
            except TimeoutError:
                return
            if source[2] != PACKET_OUTGOING:
                yield read(raw)

    def receive(self, wanted: Callable[[Frame], bool], timeout: float = limit(2.0)) -> Frame | None:
        """The first frame that is `wanted`, None if none comes within `timeout` seconds."""
        return next((frame for frame in self.frames(timeout) if wanted(frame)), None)

    def collect(self, wanted: Callable[[Frame], bool], timeout: float) -> list[Frame]:
        """All wanted frames of the next `timeout` seconds."""
        return [frame for frame in self.frames(timeout) if wanted(frame)]

    def drain(self) -> None:
        """Forget what has arrived."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(65536)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> RawPort:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
