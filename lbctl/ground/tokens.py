"""Who waits for what: a token goes out with a question or an order, and comes back with its answer or confirmation.

Each token knows whom to tell. What has been answered, has failed, or was asked of an LB whose connection is lost, is
forgotten; the asker cancels what it does not want to know any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lbctl.ground.effects import Outbox
from lbctl.keeper.rows import Row

HIGHEST = 0xFFFFFF
"""24 bits, so that the shell can mark an OpenFlow xid as ours."""

Failed = Callable[[str, float], Outbox]
"""Is told the reason, and the time."""


def nothing(_reason: str, _now: float) -> Outbox:
    """What follows when nobody minds a failure."""
    return []


@dataclass(frozen=True, slots=True)
class Confirmation:
    """`then` is told when a barrier, a bundle, or the store has confirmed."""

    lb: str | None
    then: Callable[[float], Outbox]
    failed: Failed = nothing


@dataclass(frozen=True, slots=True)
class FlowsAnswer:
    """`part` is told each part of the answer to a ReadFlows, and whether more will come."""

    lb: str
    part: Callable[[bytes, bool, float], Outbox]
    failed: Failed = nothing


@dataclass(frozen=True, slots=True)
class PortsAnswer:
    """`then` is told the frames that each port (OpenFlow number) has received: the answer to a ReadPorts."""

    lb: str
    then: Callable[[Mapping[int, int]], None]
    failed: Failed = nothing


@dataclass(frozen=True, slots=True)
class RowsAnswer:
    """`then` is told the rows that a FetchCopy has brought; None: they can't be had there."""

    then: Callable[[list[Row] | None, float], Outbox]
    lb: None = None
    failed: Failed = nothing


@dataclass(frozen=True, slots=True)
class CountsAnswer:
    """`then` is told the connections by the server's ports that a CountSockets has brought; None: they can't be had."""

    then: Callable[[Mapping[int, int] | None, float], None]
    lb: None = None
    failed: Failed = nothing


Waiting = Confirmation | FlowsAnswer | PortsAnswer | RowsAnswer | CountsAnswer


class Tokens:
    """All tokens that are out."""

    def __init__(self) -> None:
        self._last = 0
        self._out: dict[int, Waiting] = {}

    def __len__(self) -> int:
        """How many are out."""
        return len(self._out)

    def new(self, waiting: Waiting) -> int:
        """A token that nobody else has."""
        while True:
            self._last = self._last % HIGHEST + 1
            if self._last not in self._out:
                self._out[self._last] = waiting
                return self._last

    def owed_by(self, token: int, lb: str) -> bool:
        """Does that LB's switch owe the answer? Else it speaks for another, or too late."""
        waiting = self._out.get(token)
        return waiting is not None and waiting.lb == lb

    def cancel(self, token: int) -> None:
        """Nobody wants to know any more."""
        self._out.pop(token, None)

    def lost(self, lb: str) -> None:
        """That LB's connection has ended: nothing that it was asked will be answered."""
        self._out = {token: waiting for token, waiting in self._out.items() if waiting.lb != lb}

    def refused(self, lb: str, reason: str, now: float) -> Outbox:
        """That LB has refused an order that has no token: whatever it was to confirm may rest on that."""
        doubtful = [token for token, waiting in self._out.items()
                    if waiting.lb == lb and isinstance(waiting, Confirmation)]
        return [effect for token in doubtful for effect in self.failed(token, reason, now)]

    # What comes back. A token that nobody waits for is ignored.

    def confirmed(self, token: int, now: float) -> Outbox:
        waiting = self._out.get(token)
        if not isinstance(waiting, Confirmation):
            return []
        del self._out[token]
        return waiting.then(now)

    def failed(self, token: int, reason: str, now: float) -> Outbox:
        """What was asked or ordered can't be done."""
        waiting = self._out.pop(token, None)
        return waiting.failed(reason, now) if waiting else []

    def flows_read(self, token: int, body: bytes, more: bool, now: float) -> Outbox:
        """A part of an answer to a ReadFlows. more: others follow."""
        waiting = self._out.get(token)
        if not isinstance(waiting, FlowsAnswer):
            return []
        if not more:
            del self._out[token]
        return waiting.part(body, more, now)

    def ports_read(self, token: int, received: Mapping[int, int]) -> None:
        """The answer to a ReadPorts."""
        waiting = self._out.get(token)
        if isinstance(waiting, PortsAnswer):
            del self._out[token]
            waiting.then(received)

    def rows_fetched(self, token: int, rows: list[Row] | None, now: float) -> Outbox:
        """The answer to a FetchCopy."""
        waiting = self._out.get(token)
        if not isinstance(waiting, RowsAnswer):
            return []
        del self._out[token]
        return waiting.then(rows, now)

    def sockets_counted(self, token: int, counts: Mapping[int, int] | None, now: float) -> None:
        """The answer to a CountSockets."""
        waiting = self._out.get(token)
        if isinstance(waiting, CountsAnswer):
            del self._out[token]
            waiting.then(counts, now)
