"""What the core asks of the world: values, in order, which the shell (ryu_apps/) carries out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lbctl.assignment import Problem
from lbctl.entries.nat_records import NatRecord
from lbctl.keeper.batches import Batch
from lbctl.openflow.messages import Message
from lbctl.site.model import ExternalIp, Keeper
from lbctl.store import State
from lbctl.values.addresses import Address


class ToSwitch(NamedTuple):
    """A message for the switch of that LB. One LB's messages arrive in their order, or, from some point on, not at
    all; between LBs there is no order but what confirmations make."""

    lb: str
    message: Message


@dataclass(frozen=True, slots=True)
class Save:
    """Not for a switch: keep across a restart what `state` tells when it is written, and confirm that by the token
    (None: no need). It is told as late as that because thousands of external IPs may fail over at once: each state
    holds all of them, and one that is written serves all who wait."""

    state: Callable[[], State]
    token: int | None = None


@dataclass(frozen=True, slots=True)
class FetchCopy:
    """Not for a switch: get that server's entries of the external IP from the keeper's copy (`keeper`), or from the
    server's socket table (`sockets`)."""

    keeper: Keeper
    external_ip: ExternalIp
    server: Address
    copy: str
    token: int


@dataclass(frozen=True, slots=True)
class CountSockets:
    """Not for a switch: count that server's TCP connections of the external IP, by its keeper."""

    keeper: Keeper
    external_ip: ExternalIp
    server: Address
    token: int


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Not for a switch: give the keeper this batch, and tell what it replies."""

    keeper: Keeper
    batch: Batch


@dataclass(frozen=True, slots=True)
class Solve:
    """Not for a switch: find an assignment, without keeping anything waiting. problem: tells it, calling what it is
    given now and then, which may let others run."""

    problem: Callable[[Callable[[], None]], Problem]
    algorithm: str


@dataclass(frozen=True, slots=True)
class WriteRecords:
    """Not for a switch: append these to the file of NAT records (relative to the site file)."""

    file: str
    records: Sequence[NatRecord]


Effect = ToSwitch | Save | FetchCopy | CountSockets | SendBatch | Solve | WriteRecords
Outbox = list[Effect]


def to_switch(lb: str, messages: Iterable[Message]) -> Outbox:
    """These messages, in order, to one LB."""
    return [ToSwitch(lb, message) for message in messages]
