"""A check by UDP: a datagram, and what it is answered with."""

from __future__ import annotations

from lbctl.frames.packets import Packet
from lbctl.health_checks.verdict import Verdict


class UdpCheck:
    """answer: what the server's datagram must begin with; None: silence is right too, and only an ICMP error is not."""

    def __init__(self, request: bytes, answer: bytes | None, timeout: float) -> None:
        self._request, self._answer, self._timeout = request, answer, timeout

    def begin(self) -> list[bytes]:
        return [self._request]

    def again(self) -> list[bytes]:
        return [] if self._answer is None else [self._request]

    def received(self, packet: Packet, payload: bytes) -> tuple[list[bytes], Verdict]:
        if self._answer is None or payload.startswith(self._answer):
            return [], Verdict(True, "passed", "answers")
        return [], Verdict(False, "answer", "another answer than expected")

    def expired(self) -> tuple[list[bytes], Verdict]:
        if self._answer is None:
            return [], Verdict(True, "passed", "does not refuse")
        return [], Verdict(False, "timeout", f"no answer within {self._timeout:g} s")
