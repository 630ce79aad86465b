"""What an order did to the traffic, and whether the demonstration shows what it claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from evaluation.demonstration.orders import Order


@dataclass(frozen=True)
class Step:
    """A step of a move: when it began, on the clock of time.monotonic(), and how long it took, in seconds."""

    name: str
    started: float
    seconds: float


@dataclass(frozen=True)
class MoveResult:
    """One move, from its record."""

    source: str
    target: str
    state: str
    reason: str | None
    started: float
    steps: tuple[Step, ...]
    entries_copied: int
    packets_held: int
    packets_lost: int


@dataclass(frozen=True)
class ProbeResult:
    """Round trips as (time.monotonic() of the answer, seconds); and segments of both sides together: those that TCP
    sent again, and those that never came (what was sent again may only have been late)."""

    arrivals: tuple[tuple[float, float], ...]
    sent: int
    retransmitted: int
    lost: int

    def worst_round_trip(self, after: float = 0.0, before: float = float("inf")) -> float:
        """In seconds, of the answers between two times; 0 if there are none."""
        return max((trip for when, trip in self.arrivals if after <= when <= before), default=0.0)

    def longest_gap(self, after: float = 0.0, before: float = float("inf")) -> float:
        """The longest time between two answers, in seconds; 0 with less than two answers."""
        times = [when for when, _ in self.arrivals if after <= when <= before]
        return max((later - earlier for earlier, later in zip(times, times[1:], strict=False)), default=0.0)


@dataclass(frozen=True)
class OrderResult:
    """Everything about one order. `breaks`: (time.monotonic(), why) of each connection that broke, requests' too."""

    order: Order
    began: float
    moves: tuple[MoveResult, ...]
    probe: ProbeResult
    connections: int
    resets: int
    stalls: int
    requests: int
    failed_requests: int
    retransmitted: int
    """By TCP, from the first move on, the probe excepted."""
    dropped: int
    """Packets that an LB's receive queue had no room for: no fault of the order, but of a machine that is too busy."""
    transferred: int
    """Bytes."""
    wrong_bytes: int
    """Pieces of downloads that did not hold what they should."""
    breaks: tuple[tuple[float, str], ...] = field(default=())

    @property
    def packets_held(self) -> int:
        return sum(move.packets_held for move in self.moves)

    @property
    def harmless(self) -> bool:
        """Nothing that a client could notice but time."""
        moved = all(move.state == "done" and not move.packets_lost for move in self.moves)
        broken = self.resets + self.stalls + self.failed_requests + self.probe.lost + self.wrong_bytes
        return moved and broken == 0

    @property
    def broke_connections(self) -> bool:
        return self.resets + self.stalls + self.failed_requests > 0

    @property
    def as_claimed(self) -> bool:
        return self.broke_connections if self.order.naive else self.harmless

    @property
    def quiet_until(self) -> float:
        """Until when nothing had been moved: what came before is the bed's own jitter."""
        return self.moves[0].started if self.moves else float("inf")


def sentence(results: Sequence[OrderResult]) -> str:
    """The result of the demonstration, in plain words."""
    words = [_about(result) for result in results]
    if all(result.as_claimed for result in results):
        return " ".join([*words, "This is what the seed claims."])
    words.append("This is NOT what the seed claims.")
    if any(result.dropped for result in results if not result.as_claimed):
        words.append(
            "But the LBs' receive queues overflowed: this machine was too busy to tell. Try again when it is quieter."
        )
    return " ".join(words)


def _about(result: OrderResult) -> str:
    name, moves = result.order.name, len(result.moves)
    failed = [move for move in result.moves if move.state != "done"]
    if failed:
        return f"{name}: a move ended {failed[0].state} ({failed[0].reason})."
    broken, requests, lost = result.resets + result.stalls, result.failed_requests, result.probe.lost
    if result.harmless:
        return f"{name}: {moves} moves, no connection broken, no request failed, no probe packet lost."
    words = [f"{broken} connections broken", f"{requests} requests failed", f"{lost} probe packets lost"]
    if result.wrong_bytes:
        words.append(f"{result.wrong_bytes} pieces of downloads wrong")
    return f"{name}: {moves} moves, {', '.join(words)}."
