"""What is known of a move, for people and for the parts that must not get in its way."""

from __future__ import annotations

from dataclasses import dataclass, field

from lbctl.values.addresses import Address
from lbctl.values.transfer import Strategy


@dataclass(slots=True)
class StepRecord:
    name: str
    started: float
    seconds: float | None = None


@dataclass(slots=True)
class MoveRecord:
    """What a move did, for people. Times are the caller's clock in seconds."""

    id: str
    external_ip: Address
    source: str
    target: str
    strategy: Strategy
    started: float
    kind: str = "move"
    """move; failover; restoration"""
    state: str = "running"
    """running; done; aborted (on request); rolled-back (something failed: see reason)"""
    reason: str | None = None
    ended: float | None = None
    steps: list[StepRecord] = field(default_factory=list)
    cause: str | None = None
    """Of a failover: how the source has failed."""
    entries_from: dict[str, int] = field(default_factory=dict)
    """Of a failover: how many entries came from which copy."""
    entries_copied: int = 0
    entries_total: int = 0
    packets_held: int = 0
    packets_released: int = 0
    packets_lost: int = 0

    @property
    def step(self) -> str | None:
        """The step under way; None once the move has ended."""
        return self.steps[-1].name if self.steps and self.ended is None else None
