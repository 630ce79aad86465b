"""Established connections, and what becomes of them: `python established.py ADDRESS PORT COUNT FILE`, in a client's
namespace.

Stands alone. It opens COUNT connections and prints "ready"; from then on a line goes out every `--interval` seconds,
over the connections in turn: while lines are lost there is still a connection that TCP has not made wait. FILE gets
the time of each answer (8-byte floats in machine order; seconds of the monotonic clock, which all processes share).
On SIGTERM a line goes out over every connection, and it prints one JSON object: how many are `alive` (they answered),
`reset`, `closed`, `hung` (no answer within `--patience` seconds).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import select
import signal
import socket
import time
from array import array

AT_ONCE = 64
"""Connections that are being opened, and lines that are sent together at the end."""
OPENING = 120.0


class Established:
    """The connections by file descriptor. `pending`: those that have not answered their last line yet."""

    def __init__(self, address: str, port: int) -> None:
        self.target = (address, port)
        self.sockets: dict[int, socket.socket] = {}
        self.pending: set[int] = set()
        self.lost = {"reset": 0, "closed": 0}
        self.answers = array("d")
        self.poll = select.epoll()

    def open(self, count: int) -> None:
        """Open them all. Raises OSError."""
        deadline = time.monotonic() + OPENING
        opening: set[int] = set()
        while len(self.sockets) < count or opening:
            while len(opening) < AT_ONCE and len(self.sockets) < count:
                opening.add(self.begin())
            for handle, _ in self.poll.poll(1.0):
                if error := self.sockets[handle].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, f"connection {len(self.sockets)} of {count}: {os.strerror(error)}")
                opening.discard(handle)
                self.poll.modify(handle, select.EPOLLIN)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(opening)} connections were not open after {OPENING:g} s")

    def begin(self) -> int:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(self.target)
        self.sockets[sock.fileno()] = sock
        self.poll.register(sock, select.EPOLLOUT)
        return sock.fileno()

    def send(self, handle: int) -> None:
        """A line over a connection that owes no answer."""
        self.pending.add(handle)
        try:
            self.sockets[handle].send(b"line\n")
        except OSError:
            self.give_up(handle, "reset")

    def receive(self, timeout: float) -> None:
        """Take what has come, for up to `timeout` seconds if it is nothing."""
        for handle, _ in self.poll.poll(timeout):
            try:
                answer = self.sockets[handle].recv(4096)
            except OSError:
                self.give_up(handle, "reset")
                continue
            if not answer:
                self.give_up(handle, "closed")
            elif answer.endswith(b"\n") and handle in self.pending:
                self.pending.discard(handle)
                self.answers.append(time.monotonic())

    def give_up(self, handle: int, why: str) -> None:
        self.lost[why] += 1
        self.pending.discard(handle)
        self.poll.unregister(handle)
        self.sockets.pop(handle).close()

    def talk(self, interval: float, stopped: list[int]) -> None:
        """A line every `interval` seconds, until `stopped` is not empty."""
        due = time.monotonic()
        while not stopped:
            for handle in list(self.sockets):
                if handle not in self.sockets or handle in self.pending:
                    continue
                while (left := due - time.monotonic()) > 0 and not stopped:
                    self.receive(left)
                if stopped:
                    return
                if handle in self.sockets:
                    self.send(handle)
                due = max(due + interval, time.monotonic())
            self.receive(max(0.0, min(interval, due - time.monotonic())))

    def check(self, patience: float) -> dict[str, int]:
        """A last line over every connection; what became of them."""
        deadline = time.monotonic() + patience
        waiting = [handle for handle in self.sockets if handle not in self.pending]
        while (waiting or self.pending) and time.monotonic() < deadline:
            for handle in waiting[:AT_ONCE]:
                if handle in self.sockets:
                    self.send(handle)
            del waiting[:AT_ONCE]
            self.receive(0.01 if waiting else 0.1)
        return {"alive": len(self.sockets) - len(self.pending), **self.lost, "hung": len(self.pending)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("file")
    parser.add_argument("--interval", type=float, default=0.001)
    parser.add_argument("--patience", type=float, default=15.0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    established = Established(options.address, options.port)
    established.open(options.count)
    print("ready", flush=True)
    gc.disable()
    established.talk(options.interval, stopped)
    outcome = established.check(options.patience)
    with open(options.file, "wb") as file:
        established.answers.tofile(file)
    print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
