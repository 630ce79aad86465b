"""Failover (seed: third embodiment, modification 2): the external IPs of a dead LB go to others, entries first, then the route.

The entries come from the control function's own access table. No transition mode is needed: when the route changes, the new
LB knows every connection. An LB that still lives is freed by ordinary moves instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lbctl.access_table import AccessTable
from lbctl.model import Address, Settings, address_order
from lbctl.move import ABSENT, SERVING, Action, Announce, Assign, Confirm, Move, MoveRecord, Release, SetHolder, SetRole


class Takeover(Move):
    """One external IP is taken over from an LB that is not connected any more."""

    def __init__(self, record: MoveRecord, table: AccessTable, settings: Settings) -> None:
        super().__init__(record, table, settings)
        self._lost.add(record.source)

    def _steps(self) -> Iterator[list[Action]]:
        source, target = self.record.source, self.record.target
        yield [SetHolder(target, True)]
        yield from self._copy()
        self._begin("route")
        self._routed = True
        # The source is told when it comes back: before anything else, it is read back and cleaned.
        yield [SetRole(source, ABSENT), SetHolder(source, False), Assign(target, False, "saved")]
        yield [SetRole(target, SERVING), Announce(target), Release(target), Confirm(target, "route-target")]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An LB that could take external IPs over. external_ips: how many it has."""

    name: str
    external_ips: int
    reaches: frozenset[Address]
    """The next hops whose MACs it knows."""


def spread(orphans: Mapping[Address, frozenset[Address]], candidates: list[Candidate]) -> dict[Address, str]:
    """Which LB takes which external IP: each one that has the fewest then. orphans: external IP -> next hops that it needs.

    An LB that does not reach all of them comes last; an external IP gets none only if there is no candidate.
    """
    counts = {candidate.name: candidate.external_ips for candidate in candidates}
    chosen: dict[Address, str] = {}
    for address in sorted(orphans, key=address_order):
        needs = orphans[address]
        best = min(candidates, key=lambda each: (len(needs - each.reaches), counts[each.name], each.name), default=None)
        if best is not None:
            chosen[address] = best.name
            counts[best.name] += 1
    return chosen
