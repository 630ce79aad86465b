"""The orders that break connections: the product's own steps, but without transition mode.

The LBs are those of the prior art: one that gets a packet answers it by its own access table alone, and without an
entry by an error.
"""

from __future__ import annotations

from collections.abc import Iterator

from evaluation.demonstration.orders import ROUTE_FIRST, TABLE_FIRST
from lbctl.connections.answers import refuse
from lbctl.connections.arrival import Arrival
from lbctl.connections.dispatch import Connections
from lbctl.connections.strays import Strays
from lbctl.entries.access_table import Entry
from lbctl.ground.effects import Outbox
from lbctl.ground.serving import Serving
from lbctl.moves.actions import SERVING_UNANNOUNCED, Action, Announce, Assign, Confirm, Forget, SetHolder, SetRole
from lbctl.moves.move import Move
from lbctl.openflow.rules import ABSENT, SERVING


class NaiveMove(Move):
    """What both naive orders share.

    Their grace time is the product's: packets on their way to the source go through.
    """

    def _route(self) -> Iterator[list[Action]]:
        source, target = self.record.source, self.record.target
        self._begin("route")
        yield [SetRole(source, SERVING_UNANNOUNCED), Confirm(source, "route-source")]
        self._routed = True
        yield [Assign(target, True, "saved")]
        # From here on new connections are made at the target only.
        yield [
            *(SetHolder(target, True), SetHolder(source, False)),
            *(SetRole(target, SERVING), Announce(target), Confirm(target, "route-target")),
        ]

    def _grace(self) -> Iterator[list[Action]]:
        self._begin("grace")
        self._deadline = self._now + self._settings.grace
        yield []
        yield [SetRole(self.record.source, ABSENT), Forget(self.record.source), Assign(self.record.target, False)]


class RouteFirst(NaiveMove):
    """Packets reach an LB that does not know their connections yet."""

    def _steps(self) -> Iterator[list[Action]]:
        yield from self._route()
        yield from self._copy()
        yield from self._grace()


class TableFirst(NaiveMove):
    """Packets still reach the source when its entries have gone; what it learns meanwhile, the target never gets."""

    def _steps(self) -> Iterator[list[Action]]:
        yield from self._copy()
        yield [
            *(SetHolder(self.record.source, False), Forget(self.record.source), Confirm(self.record.source, "moved"))
        ]
        yield [SetHolder(self.record.source, True)]
        yield from self._route()
        yield from self._grace()


class PriorArtStrays(Strays):
    """Nobody but the LB itself knows its entries, so nobody can put a missing one back."""

    def put_back(self, arrival: Arrival, serving: Serving, entry: Entry) -> Outbox:
        return refuse(arrival, serving)


class PriorArtConnections(Connections):
    """As PriorArtStrays."""

    strays = PriorArtStrays


MOVES: dict[str, type[Move]] = {ROUTE_FIRST.name: RouteFirst, TABLE_FIRST.name: TableFirst}
