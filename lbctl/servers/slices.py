"""Who has which slice of a service, so that a new connection needs no decision (docs/slices.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lbctl.servers.turns import Turns
from lbctl.values.addresses import Endpoint
from lbctl.values.slices import SLICES

Owners = tuple[Endpoint | None, ...]
"""The server of each slice; None: no server takes connections."""
NOBODYS: Owners = (None,) * SLICES


def divided(before: Owners, weights: Mapping[Endpoint, int]) -> Owners:
    """The fewest changes to `before` that give each of these servers its share, to within one slice. weights: greater
    than 0."""
    if not weights:
        return (None,) * len(before)
    has = {endpoint: [number for number, owner in enumerate(before) if owner == endpoint] for endpoint in weights}
    quotas = _quotas(len(before), weights, {endpoint: len(numbers) for endpoint, numbers in has.items()})
    owners: list[Endpoint | None] = [owner if owner in weights else None for owner in before]
    for endpoint, numbers in has.items():
        for number in _spread(numbers, len(numbers) - quotas[endpoint]):
            owners[number] = None
    wanted = [quotas[endpoint] - min(quotas[endpoint], len(numbers)) for endpoint, numbers in has.items()]
    endpoints, turns, everyone = list(has), Turns(wanted), range(len(has))
    return tuple(endpoints[turns.next(everyone)] if owner is None else owner for owner in owners)


def _quotas(count: int, weights: Mapping[Endpoint, int], has: Mapping[Endpoint, int]) -> dict[Endpoint, int]:
    """How many slices each gets: the largest remainders are rounded up, of equal ones those of who would else have to
    give one away."""
    total = sum(weights.values())
    quotas = {endpoint: count * weight // total for endpoint, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda each: (-(count * weights[each] % total), has[each] <= quotas[each]))
    for endpoint in by_remainder[: count - sum(quotas.values())]:
        quotas[endpoint] += 1
    return quotas


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """So many of these, evenly spaced."""
    return [numbers[(2 * each + 1) * len(numbers) // (2 * count)] for each in range(max(0, count))]
