"""Which LB takes which external IP of one that has failed: a pure function, without a solver, since clients wait."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from lbctl.values.addresses import Address, address_order


@dataclass(frozen=True, slots=True)
class Orphan:
    """An external IP without an LB. needs: the next hops that its LB must reach; load: what it carries; only_on,
    apart: as of its ExternalIp, `apart` also what names it."""

    needs: frozenset[Address]
    load: float = 0.0
    only_on: frozenset[str] = frozenset()
    apart: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An LB that could take external IPs over. held_down: it has failed lately, or is drained."""

    name: str
    external_ips: frozenset[Address]
    reaches: frozenset[Address]
    """The next hops whose MACs it knows."""
    load: float = 0.0
    """Of its external IPs."""
    capacity: float = 1.0
    held_down: bool = False


def spread(orphans: Mapping[Address, Orphan], candidates: Collection[Candidate]) -> Iterator[tuple[Address, str]]:
    """Which external IP goes to which LB, one after the other. The largest load first, each to the LB that has the
    lowest relative load then; of several the one with the fewest external IPs.

    An LB that does not reach all next hops comes last, before it one that is held down, before it one where the
    external IP should not be (only_on, not_with); so an external IP gets none only if there is no candidate.
    """
    if not candidates:
        return
    loads = {candidate.name: candidate.load for candidate in candidates}
    has = {candidate.name: set(candidate.external_ips) for candidate in candidates}
    for address in sorted(orphans, key=lambda address: (-orphans[address].load, *address_order(address))):
        orphan = orphans[address]

        def worth(candidate: Candidate, orphan: Orphan = orphan) -> tuple[int, bool, bool, float, int, str]:
            name = candidate.name
            unwanted = bool(orphan.only_on and name not in orphan.only_on) or not orphan.apart.isdisjoint(has[name])
            return (len(orphan.needs - candidate.reaches), candidate.held_down, unwanted,
                    (loads[name] + orphan.load) / candidate.capacity, len(has[name]), name)

        best = min(candidates, key=worth)
        yield address, best.name
        loads[best.name] += orphan.load
        has[best.name].add(address)
