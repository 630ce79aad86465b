"""What a switch should hold besides entries, as ordered so far: table by table, since it is compared so."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from lbctl.openflow.flow import Flow, Identity, Place
from lbctl.openflow.tables import TABLES


@dataclass(frozen=True, slots=True)
class Come:
    """Flows that have come since somebody began to watch. It grows."""

    identities: set[Identity] = field(default_factory=set)
    places: set[Place] = field(default_factory=set)


class Held:
    """Flows by their identities."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Identity, Flow]] = {name: {} for name in TABLES}
        self._journals: dict[str, set[int]] = {}
        """By table: the cookies of what has come or gone since somebody began to note them."""
        self._come: Come | None = None
        """None: nobody watches."""

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

    def watch(self) -> Come:
        """Whatever comes from now on, until nobody watches any more or somebody else does."""
        self._come = Come()
        return self._come

    def unwatch(self) -> None:
        """Nobody wants to know any more."""
        self._come = None

    def change(self, come: Collection[Flow], gone: Iterable[Flow]) -> None:
        """What has been ordered."""
        for flow in gone:
            self._tables[flow.table].pop(flow.identity, None)
            self._note(flow)
        self.complete(come)
        if self._come is not None:
            self._come.identities.update(flow.identity for flow in come)
            self._come.places.update(flow.place for flow in come)

    def complete(self, missing: Iterable[Flow]) -> None:
        """What is there besides, which nobody needs to watch for."""
        for flow in missing:
            identity = flow.identity
            table = self._tables[flow.table]
            if replaced := table.get(identity):
                self._note(replaced)
            table[identity] = flow
            self._note(flow)

    def _note(self, flow: Flow) -> None:
        if (journal := self._journals.get(flow.table)) is not None:
            journal.add(flow.cookie)

    def clear(self) -> None:
        """There is nothing; what has come and gone until now is not noted any more."""
        self._journals.clear()
        self._tables = {name: {} for name in TABLES}
