"""What a switch should hold besides entries, as ordered so far: table by table, since it is compared so."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Set

from lbctl.openflow.flow import Flow, Identity
from lbctl.openflow.tables import TABLES


class Held:
    """Flows by their identities."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Identity, Flow]] = {name: {} for name in TABLES}
        self._journals: dict[str, set[int]] = {}
        """By table: the cookies of what has come or gone since somebody began to note them."""
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

    def journal(self, table: str) -> Set[int]:
        """From now on it holds the cookies of what comes and goes in that table, until another is begun."""
        self._journals[table] = noted = set[int]()
        return noted

    def watch(self) -> Set[Identity]:
        """Whatever comes from now on, until nobody watches any more or somebody else does."""
        self._come = set()
        return self._come

    def unwatch(self) -> None:
        """Nobody wants to know any more."""
        self._come = None

    def change(self, come: Iterable[Flow], gone: Iterable[Flow]) -> None:
        """What has been ordered."""
        for flow in gone:
            self._tables[flow.table].pop(flow.identity, None)
            self._note(flow)
        for flow in come:
            identity = flow.identity
            table = self._tables[flow.table]
            if replaced := table.get(identity):
                self._note(replaced)
            table[identity] = flow
            if self._come is not None:
                self._come.add(identity)
            self._note(flow)

    def _note(self, flow: Flow) -> None:
        if (journal := self._journals.get(flow.table)) is not None:
            journal.add(flow.cookie)

    def replace(self, flows: Iterable[Flow]) -> None:
        """These, and no others; what has come and gone until now is not noted any more."""
        self._journals.clear()
        self.change((), list(self.flows()))
        self.change(flows, ())
