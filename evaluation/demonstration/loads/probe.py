"""The probe: a request every millisecond on one TCP connection, whatever becomes of the ones before.

    python -m evaluation.demonstration.loads.probe ADDRESS PORT

Its result: the round trip of every answer, how many segments TCP sent again on either side, and how many of all were
lost: what TCP sent again may only have been late. When its connection breaks, it makes another one.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import time

from evaluation.lab_traffic.inside import HEALTHY, STALL, Breaks, TcpInfo, finish, prefer, ready, tcp_info

REQUEST = struct.Struct("=QQ")
"""Number, and when it was sent in ns."""
ANSWER = struct.Struct("=QQIII")
"""The request, and the server's TcpInfo."""
INTERVAL = 1_000_000
"""Nanoseconds."""
LATE = 20
"""How often the two sides' accounts are compared until nothing is under way any more."""


class Probe:
    """The measurements; one connection at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.breaks = Breaks()
        self.opened = 0
        self.arrivals: list[tuple[int, int]] = []
        """(when an answer came, its round trip), both in ns."""
        self.sent = 0
        self.sent_again = 0
        self.lost = 0

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            try:
                if self._connection():
                    return
            except (OSError, EOFError) as error:
                self.breaks.add(error)
                if _input_ended(0.1):
                    return

    def _connection(self) -> bool:
        with socket.create_connection(self.address, timeout=STALL) as sock:
            self.opened += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            connection = Connection(sock)
            if self.opened == 1:
                ready()
            try:
                ended = self._exchange(connection)
                self.lost += connection.lost()
                return ended
            finally:
                self.sent_again += tcp_info(sock).retransmitted + connection.server.retransmitted

    def _exchange(self, connection: Connection) -> bool:
        """True when standard input ended. Raises OSError or EOFError when the connection broke."""
        due = last_answer = time.monotonic_ns()
        while True:
            now = time.monotonic_ns()
            if now >= due:
                connection.request(now)
                self.sent += 1
                # A sender that was kept from the processor catches up with its schedule, but not in a burst.
                due = max(due + INTERVAL, now - INTERVAL)
            wait = max(0, due - time.monotonic_ns()) / 1e9
            readable, _, _ = select.select([connection.sock, sys.stdin], [], [], wait)
            if connection.sock in readable:
                answers = connection.answers()
                self.arrivals += answers
                last_answer = answers[-1][0] if answers else last_answer
            if sys.stdin in readable:
                return True
            if time.monotonic_ns() - last_answer > STALL * 1e9:
                raise TimeoutError


class Connection:
    """Requests and their answers on one connection, which does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.server = HEALTHY
        self._number = 0
        self._answered = 0
        self._rest = b""
        self._unsent = b""

    def request(self, now: int) -> None:
        self._unsent += REQUEST.pack(self._number, now)
        self._number += 1
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self.sock.send(self._unsent) :]

    def answers(self) -> list[tuple[int, int]]:
        data = self.sock.recv(65536)
        now = time.monotonic_ns()
        if not data:
            raise EOFError
        data = self._rest + data
        complete = len(data) - len(data) % ANSWER.size
        self._rest = data[complete:]
        answers = list(ANSWER.iter_unpack(data[:complete]))
        if answers:
            self.server = TcpInfo(*answers[-1][2:])
            self._answered = answers[-1][0] + 1
        return [(now, now - sent) for _, sent, *_ in answers]

    def lost(self) -> int:
        """Segments with data that one side sent and the other never got. Raises TimeoutError when answers stay away."""
        for _ in range(LATE):
            self._settle()
            self.request(time.monotonic_ns())
            self._settle()
            client = tcp_info(self.sock)
            # The server wrote its account before it sent the answer that brought it.
            lost = max(0, client.sent - self.server.received) + max(0, self.server.sent + 1 - client.received)
            if not lost:
                break
            time.sleep(0.05)  # something sent again may still be on its way
        return lost

    def _settle(self) -> None:
        """Until all requests are answered."""
        while self._answered < self._number:
            self._send()
            if not select.select([self.sock], [], [], STALL)[0]:
                raise TimeoutError
            self.answers()


def _input_ended(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def main() -> None:
    """Measure, then print the result."""
    real_time = prefer()
    probe = Probe((sys.argv[1], int(sys.argv[2])))
    probe.run()
    finish(
        {
            "opened": probe.opened,
            "breaks": probe.breaks.list,
            "sent": probe.sent,
            "retransmitted": probe.sent_again,
            "lost": probe.lost,
            "real_time": real_time,
            "arrivals": [(when / 1e9, trip / 1e9) for when, trip in probe.arrivals],
        }
    )


if __name__ == "__main__":
    main()
