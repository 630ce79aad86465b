"""What a check has found, and what follows from several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from lbctl.frames.packets import Packet


class Segment(NamedTuple):
    """A TCP segment of a check."""

    flags: int
    seq: int
    ack: int = 0
    payload: bytes = b""


class Verdict(NamedTuple):
    """Of one check. result: one word, what is counted. reason: for people."""

    passed: bool
    result: str
    reason: str


Said = Sequence[Segment] | Sequence[bytes]
"""What the check sends: segments, or the payloads of datagrams."""


class Attempt(Protocol):
    """One check of one server: says, hears, and comes to a verdict; whoever drives it knows addresses and time."""

    def begin(self) -> Said:
        """The first packet."""

    def again(self) -> Said:
        """What has not been answered, once more."""

    def received(self, packet: Packet, payload: bytes) -> tuple[Said, Verdict | None]:
        """A packet of the server."""

    def expired(self) -> tuple[Said, Verdict]:
        """Its time is over."""


@dataclass(slots=True)
class Judgement:
    """Is a server up? It is until `fall` checks in a row have failed, and again when `rise` have passed."""

    rise: int
    fall: int
    up: bool = True
    against: int = 0
    """Checks in a row that say otherwise."""

    @property
    def failing(self) -> bool:
        """Is it down, or would it be if failures were heeded?"""
        return not self.up or self.against >= self.fall

    def note(self, passed: bool, heeded: bool = True) -> bool:
        """The outcome of one more check. True if the server is not any more what it was; one that is up stays so
        while failures are not heeded."""
        if passed == self.up:
            self.against = 0
            return False
        self.against += 1
        if self.against < (self.fall if self.up else self.rise) or self.up and not heeded:
            return False
        self.up, self.against = passed, 0
        return True
