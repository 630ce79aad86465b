"""What a change of the site needs of other parts. lbctl/control.py says who offers it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from lbctl.entries.access_table import Entry
from lbctl.ground.effects import Outbox
from lbctl.ground.serving import Serving
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address


class Ender(Protocol):
    """Who ends entries (lbctl/connections/)."""

    def end_all(self, serving: Serving, entries: Iterable[Entry], now: float) -> Outbox:
        """Takes entries out of the table and out of every switch."""


class Neighbours(Protocol):
    """Who asks and tells the neighbours (lbctl/networks/)."""

    def probe(self, switch: Switch) -> Outbox:
        """Asks for the MACs of all next hops and routers."""

    def ask(self, switch: Switch, addresses: Iterable[Address]) -> Outbox:
        """Asks for the MACs of these next hops and routers."""

    def announce(self, serving: Serving, name: str, now: float) -> Outbox:
        """Tells that LB's neighbours of an external IP."""


class Follower(Protocol):
    """Who has made something of the site, and has to make it anew (lbctl/copies/)."""

    def site_changed(self) -> None:
        """Another site is in force."""


@dataclass(frozen=True, slots=True)
class Needs:
    ender: Ender
    neighbours: Neighbours
    followers: tuple[Follower, ...]
