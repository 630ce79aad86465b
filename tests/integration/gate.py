"""A gate between a switch and the controller: holds back the switch's confirmations, so that a move can be stopped
anywhere."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct
import threading
import time
from collections import deque

from tests.bed.bed import CONTROLLER_ADDRESS, BalancerNode, Bed
from tests.bed.patience import limit
from tests.integration.moving import wait_reached

PORT = 6654
BARRIER_REPLY, BUNDLE_CONTROL = 21, 33
CONFIRMATIONS = (BARRIER_REPLY, BUNDLE_CONTROL)
HEADER = 8
QUIET = 0.25
"""Seconds without a confirmation after which none is expected."""


class Gate:
    """Carries the OpenFlow connection of one LB. Open at first; a context manager.

    While it is shut, barrier and bundle replies wait in it and everything else goes through; `step()` lets one out.
    """

    def __init__(self, node: BalancerNode) -> None:
        self._node = node
        self._shut = False
        self._cut = False
        self._kept: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = node.space.call(socket.socket)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("", PORT))
        self._listener.listen(8)
        self._ended = False
        self._last = time.monotonic()
        self._targets = itertools.cycle(range(1, 250))
        threading.Thread(target=self._accept, daemon=True).start()

    def reconnect(self) -> None:
        """Have the switch connect through here, and now: by itself it might wait up to 8 s after its controller was
        away."""
        self._node.ovs.set_controller(self._node.bridge, f"tcp:127.0.0.{next(self._targets)}:{PORT}")

    def shut(self) -> None:
        """From now on confirmations wait here. Lets those through that belong to the past, such as an LB's
        forgetting."""
        while time.monotonic() - self._last < QUIET:
            time.sleep(0.01)
        self._shut = True

    def open(self) -> None:
        """Let out what waits, and hold nothing any more."""
        with self._lock:
            self._shut = False
            while self._kept:
                self._to_controller(self._kept.popleft())

    def step(self, timeout: float = limit(5.0)) -> None:
        """Let one confirmation out, as soon as there is one."""
        self.wait(timeout)
        with self._lock:
            self._to_controller(self._kept.popleft())

    def wait(self, timeout: float = limit(5.0)) -> None:
        """Until a confirmation waits here."""
        deadline = time.monotonic() + timeout
        while not self._kept:
            assert time.monotonic() < deadline, f"no confirmation from {self._node.lb.name} within {timeout:g} s"
            time.sleep(0.005)

    def cut(self) -> None:
        """The management network is down: the connection ends, and no other is made until mend()."""
        self._cut = True
        self._close_pairs()

    def mend(self) -> None:
        self._cut = False
        self.reconnect()

    def close(self) -> None:
        self._ended = True
        self._listener.close()
        self._close_pairs()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._ended:
            readable = []
            with contextlib.suppress(OSError, ValueError):
                readable, _, _ = select.select([self._listener], [], [], 0.1)
            if readable:
                with contextlib.suppress(OSError):
                    switch, _ = self._listener.accept()
                    self._carry(switch)

    def _carry(self, switch: socket.socket) -> None:
        controller = self._node.space.call(socket.socket)
        try:
            if self._cut:
                raise OSError
            controller.connect((CONTROLLER_ADDRESS, 6653))
        except OSError:
            switch.close()
            controller.close()
            return
        for end in (switch, controller):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._kept.clear()
        pair = (switch, controller)
        self._pairs.append(pair)
        for direction in (self._downwards, self._upwards):
            threading.Thread(target=direction, args=pair, daemon=True).start()

    def _downwards(self, switch: socket.socket, controller: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := controller.recv(65536):
                switch.sendall(data)
        self._end(switch, controller)

    def _upwards(self, switch: socket.socket, controller: socket.socket) -> None:
        with contextlib.suppress(OSError), switch.makefile("rb") as stream:
            while len(head := stream.read(HEADER)) == HEADER:
                _, kind, length, _ = struct.unpack("!BBHI", head)
                message = head + stream.read(length - HEADER)
                with self._lock:
                    if kind in CONFIRMATIONS:
                        self._last = time.monotonic()
                    if self._shut and kind in CONFIRMATIONS and not _of_bundle_open(kind, message):
                        self._kept.append(message)
                    else:
                        controller.sendall(message)
        self._end(switch, controller)

    def _to_controller(self, message: bytes) -> None:
        with contextlib.suppress(OSError, IndexError):
            self._pairs[-1][1].sendall(message)

    def _close_pairs(self) -> None:
        for pair in self._pairs:
            self._end(*pair)
        self._pairs.clear()

    @staticmethod
    def _end(*sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _of_bundle_open(kind: int, message: bytes) -> bool:
    """A bundle's opening and closing are answered too; only its commit reply (type 5) confirms anything."""
    return kind == BUNDLE_CONTROL and message[12:14] != b"\x00\x05"


@contextlib.contextmanager
def gates(bed: Bed):
    """A gate for each LB (name -> Gate), and the controller started behind them."""
    with contextlib.ExitStack() as stack:
        found = {name: stack.enter_context(Gate(node)) for name, node in bed.lbs.items()}
        bed.controller.start()
        connect_again(bed, found)
        wait_reached(bed)
        yield found


def restart(bed: Bed, found: dict[str, Gate]) -> None:
    """kill -9 the controller and start it again; returns when all is ready."""
    bed.controller.kill()
    start_again(bed, found)


def start_again(bed: Bed, found: dict[str, Gate]) -> None:
    """The controller, after it was killed; returns when all is ready."""
    bed.controller.start()
    connect_again(bed, found)


def connect_again(bed: Bed, found: dict[str, Gate]) -> None:
    """Only now that the controller listens: a switch that is refused tries again after a second at the earliest."""
    for each in found.values():
        each.reconnect()
    bed.wait_ready()
