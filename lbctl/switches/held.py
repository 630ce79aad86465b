"""What a switch should hold besides entries, as ordered so far: table by table, since it is compared so."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set

from lbctl.openflow.flow import Flow, Identity
from lbctl.openflow.tables import TABLES


class Held:
    """Flows by their identities."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Identity, Flow]] = {name: {} for name in TABLES}
        self.orders: Counter[str] = Counter()
        """By table: how often what it should hold has become another."""
        self._come: set[Identity] | None = None
        """What has come since somebody watches; None: nobody does."""

    def table(self, name: str) -> Mapping[Identity, Flow]:
        """The flows of one table."""
        return self._tables[name]

    def flows(self) -> Iterator[Flow]:
        """Of all tables."""
        return itertools.chain.from_iterable(table.values() for table in self._tables.values())

    def has(self, flow: Flow) -> bool:
        """Exactly that one?"""
        return self.table(flow.table).get(flow.identity) == flow

    def watch(self) -> Set[Identity]:
        """Whatever comes from now on, until nobody watches any more or somebody else does."""
        self._come = set()
        return self._come

    def unwatch(self) -> None:
        """Nobody wants to know any more."""
        self._come = None

    def change(self, come: Iterable[Flow], gone: Iterable[Flow]) -> None:
        """What has been ordered."""
        touched: set[str] = set()
        for flow in gone:
            self._tables[flow.table].pop(flow.identity, None)
            touched.add(flow.table)
        for flow in come:
            identity = flow.identity
            self._tables[flow.table][identity] = flow
            if self._come is not None:
                self._come.add(identity)
            touched.add(flow.table)
        self.orders.update(touched)

    def replace(self, flows: Iterable[Flow]) -> None:
        """These, and no others."""
        self.change((), list(self.flows()))
        self.change(flows, ())
