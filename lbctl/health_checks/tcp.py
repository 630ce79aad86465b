"""A check by TCP: can a connection be opened, and is an HTTP request answered with the right status? (RFC 9293, RFC
9112)

A client of one connection that never closes it in order: it ends each by a RST, which leaves nothing behind at the
server. What does not belong to the connection, or came twice, or in another order, changes no verdict.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lbctl.frames.packets import ACK, FIN, PSH, RST, SYN, Packet
from lbctl.health_checks.verdict import Segment, Verdict

LONGEST_LINE = 1024
"""Bytes within which the status line must end."""
MOST_PIECES = 16
"""Segments out of order that are kept."""
WINDOW = 0xFFFF
_NUMBERS = 1 << 32
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-5][0-9]{2})[ \r\n]")


class HttpQuestion:
    """What is asked, and which status codes are right (first and last of each range)."""

    def __init__(self, path: str, host: str, status: tuple[tuple[int, int], ...]) -> None:
        self.request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lbctl\r\nConnection: close\r\n\r\n".encode()
        self._status = status

    def verdict(self, heard: bytes, closed: bool) -> Verdict | None:
        """heard: all that has come in order. closed: nothing more will. None: wait for more."""
        line, end, _ = heard.partition(b"\n")
        if end:
            match = _STATUS_LINE.match(line + end)
            if match is None:
                return Verdict(False, "status", "the answer is not HTTP")
            status = int(match[1])
            return Verdict(any(first <= status <= last for first, last in self._status), "status", f"status {status}")
        if closed:
            return Verdict(False, "closed", "closed without an HTTP status")
        return Verdict(False, "status", "the answer is not HTTP") if len(heard) >= LONGEST_LINE else None


class Exchange(NamedTuple):
    """The server has accepted, and is asked. start: the sequence number of its first byte."""

    start: int
    question: HttpQuestion


class TcpCheck:
    """isn: where our sequence numbers start. question: None if it is enough that the server accepts a connection."""

    def __init__(self, isn: int, timeout: float, question: HttpQuestion | None = None) -> None:
        self._isn = isn
        self._timeout = timeout
        self._question = question
        self._next = isn + 1
        """Of our sequence numbers; not reduced yet."""
        self._accepted: Exchange | None = None
        self._heard = bytearray()
        self._pieces: dict[int, bytes] = {}
        """What came too early: by its place in what the server says."""
        self._end: int | None = None
        """How much it says, once it has closed."""

    def begin(self) -> list[Segment]:
        return [Segment(SYN, self._isn)]

    def again(self) -> list[Segment]:
        return self._asked(self._accepted) if self._accepted else self.begin()

    def expired(self) -> tuple[list[Segment], Verdict]:
        what = "no HTTP status" if self._accepted else "no answer"
        return self._reset(), Verdict(False, "timeout", f"{what} within {self._timeout:g} s")

    def received(self, packet: Packet, payload: bytes) -> tuple[list[Segment], Verdict | None]:
        return self._open(packet, self._accepted, payload) if self._accepted else self._opening(packet)

    def _opening(self, packet: Packet) -> tuple[list[Segment], Verdict | None]:
        """RFC 9293 3.10.7.3."""
        flags = packet.tcp_flags
        if not flags & ACK:
            return [], None
        if packet.ack != self._next % _NUMBERS:
            # What the server still has of an earlier connection with these ports is no answer; our RST ends it.
            return ([] if flags & RST else [Segment(RST, packet.ack)]), None
        if flags & RST:
            return [], Verdict(False, "refused", "connection refused")
        if not flags & SYN:
            return [], None
        if self._question is None:
            return self._reset(), Verdict(True, "passed", "accepts connections")
        self._accepted = Exchange((packet.seq + 1) % _NUMBERS, self._question)
        self._next += len(self._question.request)
        return self._asked(self._accepted), None

    def _open(self, packet: Packet, accepted: Exchange, payload: bytes) -> tuple[list[Segment], Verdict | None]:
        flags, place = packet.tcp_flags, _signed(packet.seq - accepted.start)
        if flags & RST:
            right = 0 <= place - len(self._heard) < WINDOW
            return [], Verdict(False, "reset", "connection reset") if right else None
        if not flags & ACK or not self._isn < self._isn + _signed(packet.ack - self._isn) <= self._next:
            return [], None
        if flags & SYN:
            # It has not heard that we accept.
            return (self._asked(accepted) if place == -1 else []), None
        if flags & FIN and place + len(payload) >= len(self._heard):
            self._end = place + len(payload)
        self._keep(place, payload)
        closed = self._end is not None and len(self._heard) >= self._end
        verdict = accepted.question.verdict(bytes(self._heard), closed)
        if verdict:
            return self._reset(), verdict
        return ([Segment(ACK, self._next % _NUMBERS, self._acknowledged(accepted))] if payload else []), None

    def _keep(self, place: int, payload: bytes) -> None:
        """Puts what has come to what has come before."""
        if payload and place <= LONGEST_LINE and (len(self._pieces) < MOST_PIECES or place <= len(self._heard)):
            if len(payload) > len(self._pieces.get(place, b"")):
                self._pieces[place] = payload
        found = True
        while found:
            found = False
            for start in [start for start in self._pieces if start <= len(self._heard)]:
                piece = self._pieces.pop(start)
                more = piece[len(self._heard) - start:]
                self._heard += more
                found = found or bool(more)

    def _asked(self, accepted: Exchange) -> list[Segment]:
        """Our question, which accepts the server's SYN as well."""
        return [Segment(ACK | PSH, (self._isn + 1) % _NUMBERS, self._acknowledged(accepted), accepted.question.request)]

    def _acknowledged(self, accepted: Exchange) -> int:
        return (accepted.start + len(self._heard)) % _NUMBERS

    def _reset(self) -> list[Segment]:
        return [Segment(RST, self._next % _NUMBERS)]


def _signed(difference: int) -> int:
    """Of two sequence numbers: between -2**31 and 2**31."""
    return (difference + (_NUMBERS >> 1)) % _NUMBERS - (_NUMBERS >> 1)
