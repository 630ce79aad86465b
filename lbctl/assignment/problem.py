"""What an assignment is computed from, and what comes out. Plain values, which can be pickled; no Ryu, no numpy, no
clock.

Loads are in any unit (bytes/s, packets/s), the same for all external IPs. An LB's relative load is the sum of the loads
of its external IPs divided by its capacity. Capacities are weights, or in the unit of the loads: then 1 is full.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lbctl.values.addresses import Address, address_order

MOVE_COST = 100.0
"""What a move weighs beside its entries, in entries."""
TOLERANCE = 0.005
"""By how much (relative) the highest relative load may exceed the least possible one, to save moves."""


class Unassignable(ValueError):
    """The problem cannot be solved, or makes no sense; the text says what and why, for people."""


@dataclass(frozen=True, slots=True)
class Demand:
    """An external IP: its load, its live entries, the LBs that it may be on (none named: any), and whom it must not
    share an LB with."""

    address: Address
    load: float
    entries: int = 0
    only_on: frozenset[str] = frozenset()
    not_with: frozenset[Address] = frozenset()


@dataclass(frozen=True, slots=True)
class Capacity:
    """An LB. standby: it has only external IPs that `only_on` allows it by name. drained: it is to be emptied."""

    name: str
    capacity: float = 1.0
    standby: bool = False
    drained: bool = False


@dataclass(frozen=True, slots=True)
class Problem:
    """current: where each external IP is now.

    headroom: None, or the relative load that nobody may exceed after the loss of any one LB (1.0 if capacities are in
    the unit of loads); see headroom.py.
    """

    demands: tuple[Demand, ...]
    capacities: tuple[Capacity, ...]
    current: Mapping[Address, str]
    headroom: float | None = None
    tolerance: float = TOLERANCE
    move_cost: float = MOVE_COST


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """A move to order. brings: the relative load that the target has after it, if those before it have been made."""

    address: Address
    source: str
    target: str
    entries: int
    brings: float


@dataclass(frozen=True, slots=True)
class Plan:
    """target: where each external IP is to be; moves: what to do for it, in this order.

    before, after: LB -> relative load. bound: no assignment has a highest relative load below it. optimal: both
    objectives are proved to be the best (up to exact.GAP). after_loss: with headroom asked for, the highest relative
    load after the loss of the LB whose loss is worst, when its external IPs are spread well; the headroom is there if
    it is at most that asked for.
    """

    target: dict[Address, str]
    moves: tuple[PlannedMove, ...]
    before: dict[str, float]
    after: dict[str, float]
    bound: float
    optimal: bool
    algorithm: str
    after_loss: float | None = None

    @property
    def cost(self) -> int:
        """Entries that the moves copy."""
        return sum(move.entries for move in self.moves)


@dataclass(slots=True)
class Indexed:
    """A checked problem with numbers for names: external IPs in the order of addresses, LBs in the order given.

    allowed: the LBs that each external IP may be on; enemies: the external IPs that it must not be with, both ways.
    """

    problem: Problem
    addresses: list[Address]
    names: list[str]
    load: list[float]
    cost: list[float]
    capacity: list[float]
    current: list[int]
    allowed: list[tuple[int, ...]]
    enemies: list[frozenset[int]]
    members: list[frozenset[int]] = field(init=False)

    def __post_init__(self) -> None:
        # By identity: most share one long tuple, whose hash would be computed again for each.
        sets = {id(allowed): frozenset(allowed) for allowed in {id(each): each for each in self.allowed}.values()}
        self.members = [sets[id(allowed)] for allowed in self.allowed]

    def loads(self, place: Iterable[int]) -> list[float]:
        """The load of every LB with that assignment; exactly rounded, so that the order of moves does not change it."""
        parts: list[list[float]] = [[] for _ in self.names]
        for item, lb in enumerate(place):
            parts[lb].append(self.load[item])
        return [math.fsum(part) for part in parts]

    def relative(self, place: Iterable[int]) -> list[float]:
        return [load / capacity for load, capacity in zip(self.loads(place), self.capacity, strict=True)]

    def moved(self, place: list[int]) -> float:
        """The weight of the moves to that assignment."""
        return math.fsum(self.cost[item] for item, lb in enumerate(place) if lb != self.current[item])

    def valid(self, place: list[int]) -> bool:
        """Every external IP is where it may be."""
        return all(lb in self.members[item] and all(place[other] != lb for other in self.enemies[item])
                   for item, lb in enumerate(place))


@dataclass(frozen=True, slots=True)
class Solution:
    """What an algorithm finds. place: LB of each external IP; bound, proved, after_loss: as in Plan (bound, optimal,
    after_loss); after_loss None: not looked at."""

    place: list[int]
    bound: float
    proved: bool
    after_loss: float | None = None


def checked(problem: Problem) -> Indexed:
    """Raises Unassignable with the reason for people."""
    capacities = _checked_capacities(problem)
    demands = sorted(problem.demands, key=lambda demand: address_order(demand.address))
    number = {demand.address: item for item, demand in enumerate(demands)}
    if len(number) != len(demands):
        raise Unassignable("an external IP is given twice")
    _check_settings(problem)
    places = {name: lb for lb, name in enumerate(capacities)}
    anywhere = tuple(lb for lb, each in enumerate(problem.capacities) if not each.standby and not each.drained)
    current, allowed = [], []
    for demand in demands:
        _check_demand(demand, number, capacities)
        if demand.address not in problem.current:
            raise Unassignable(f"{demand.address}: it is not said which load balancer has it now")
        at = problem.current[demand.address]
        if at not in places:
            raise Unassignable(f"{demand.address} is on {at}, and there is no such load balancer")
        current.append(places[at])
        allowed.append(_allowed(demand, capacities, places, anywhere))
    return Indexed(
        problem, addresses=[demand.address for demand in demands], names=list(places),
        load=[float(demand.load) for demand in demands],
        cost=[demand.entries + problem.move_cost for demand in demands],
        capacity=[each.capacity for each in problem.capacities], current=current, allowed=allowed,
        enemies=_enemies(demands, number))


def _checked_capacities(problem: Problem) -> dict[str, Capacity]:
    found: dict[str, Capacity] = {}
    for each in problem.capacities:
        if each.name in found:
            raise Unassignable(f"load balancer {each.name} is given twice")
        if not (math.isfinite(each.capacity) and each.capacity > 0):
            raise Unassignable(f"load balancer {each.name} has the capacity {each.capacity}: it must be greater than "
                               "0; to empty it, drain it")
        found[each.name] = each
    return found


def _check_settings(problem: Problem) -> None:
    for what, value in (("tolerance", problem.tolerance), ("cost of a move", problem.move_cost)):
        if not (math.isfinite(value) and value >= 0):
            raise Unassignable(f"the {what} is {value}: it must not be negative")
    if problem.headroom is not None and not (math.isfinite(problem.headroom) and problem.headroom > 0):
        raise Unassignable(f"the headroom is {problem.headroom}: it must be greater than 0")


def _check_demand(demand: Demand, known: Mapping[Address, int], capacities: Mapping[str, Capacity]) -> None:
    if not (math.isfinite(demand.load) and demand.load >= 0):
        raise Unassignable(f"{demand.address} has the load {demand.load}: it must be a number, and not negative")
    if demand.entries < 0:
        raise Unassignable(f"{demand.address} has {demand.entries} entries")
    if unknown := sorted(name for name in demand.only_on if name not in capacities):
        raise Unassignable(f"{demand.address} may be only on {', '.join(unknown)}, and there is no such load balancer")
    if demand.address in demand.not_with:
        raise Unassignable(f"{demand.address} must not be with itself")
    if strange := sorted((each for each in demand.not_with if each not in known), key=address_order):
        raise Unassignable(f"{demand.address} must not be with {strange[0]}, and there is no such external IP")


def _allowed(demand: Demand, capacities: Mapping[str, Capacity], places: Mapping[str, int],
             anywhere: tuple[int, ...]) -> tuple[int, ...]:
    if not demand.only_on:
        if not anywhere:
            raise Unassignable("no load balancer is left: all are drained or standby")
        return anywhere
    found = tuple(lb for name, lb in places.items() if name in demand.only_on and not capacities[name].drained)
    if not found:
        raise Unassignable(f"{demand.address} may be only on {', '.join(sorted(demand.only_on))}: drained")
    return found


def _enemies(demands: list[Demand], number: Mapping[Address, int]) -> list[frozenset[int]]:
    found: list[set[int]] = [set() for _ in demands]
    for item, demand in enumerate(demands):
        for address in demand.not_with:
            found[item].add(number[address])
            found[number[address]].add(item)
    none: frozenset[int] = frozenset()
    return [frozenset(each) if each else none for each in found]
