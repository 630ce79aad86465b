"""What moves need of other parts, each as narrow as it can be. lbctl/control.py says who offers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from lbctl.ground.effects import Outbox
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Serving
from lbctl.moves.takeover import LbFailure
from lbctl.openflow.inbound import EntryStats


class EntrySource(Protocol):
    """Where entries are kept besides the switches."""

    def kept_elsewhere(self, serving: Serving) -> bool:
        """Are there copies besides the access table?"""

    def remote(self, serving: Serving) -> bool:
        """Must its entries be fetched from elsewhere, since the access table has not what its LB had?"""

    def fetch(
        self, serving: Serving, lb: str, record: MoveRecord, then: Callable[[float], Outbox], now: float
    ) -> Outbox:
        """Makes the access table that which that LB had, as well as can be; `then` is told when it is."""

    def compare(
        self, serving: Serving, lb: str, record: MoveRecord, then: Callable[[float], Outbox], now: float
    ) -> Outbox:
        """The access table is the authority, and the copies say which of its entries they have; `then` is told when
        they have."""


class Announcer(Protocol):
    def announce(self, serving: Serving, name: str, now: float) -> Outbox:
        """Tells that LB's neighbours of an external IP."""


class Packets(Protocol):
    """Who has held packets, and ends entries."""

    def release(self, serving: Serving, name: str) -> Outbox:
        """Sends the held packets through that LB's tables."""

    def finished(self, serving: Serving, found: Iterable[EntryStats], now: float) -> Outbox:
        """What an LB held of an external IP that it serves no more."""


class Fitness(Protocol):
    """What is known of the LBs' data paths."""

    def failed(self) -> Mapping[str, LbFailure]:
        """The failed LBs, and why."""

    def fenced(self, name: str) -> bool:
        """Does that LB answer ARP for nobody any more, wherever it can be heard?"""
