"""A control function without switches: lbctl's own Loads, Balancing, Relief and assign.

In the place of switches and moves is something that takes their time and has their outcome.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np

from evaluation.simulator.load import Numbers
from lbctl.assignment import assign
from lbctl.failures.detection import Detection
from lbctl.failures.relief import Relief
from lbctl.ground.effects import Outbox, Solve, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Directory, Serving
from lbctl.ground.tokens import Tokens
from lbctl.load.balancing import Balancing
from lbctl.load.loads import Loads
from lbctl.moves.takeover import LbFailure
from lbctl.openflow.inbound import FlowStats
from lbctl.openflow.messages import ReadFlows
from lbctl.site.model import PACKETS_PER_CONNECTION, ExternalIp, LoadBalancer, Rebalance, Settings, Site
from lbctl.values.addresses import Address
from lbctl.values.owners import owner_of
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy

STOPS = ("the load has changed", "can't take", "is not at", "a load balancer has failed")
"""What the reasons have in common for which runs are stopped."""
FIRST = IPv4Address("198.18.0.0")
PACKETS = 50.0
"""Of a connection, so that half of a load is packets and half is new connections in packets' terms."""
MOVE_TIME = 4.5
"""Seconds that a move takes (settle 1 s, grace 3 s; docs/performance.md). The new LB serves from its end on."""
TICK = 0.05
"""Seconds: the shell's."""
ENTRY_RATE = 0.02
"""Entries for each unit of load."""


@dataclass(slots=True, eq=False)
class SimulatedServing:
    """An external IP at work, as far as loads and balancing look at it.

    carried: packets counted by the LB that has it now.
    """

    config: ExternalIp
    assigned: str
    owner: int
    opened: float = 0.0
    carried: float = 0.0
    table: range = range(0)
    move: None = None

    @property
    def address(self) -> Address:
        return self.config.address

    def next_hops(self) -> set[IPv4Address]:
        """None that an LB might not reach."""
        return set()


@dataclass(slots=True)
class SimulatedSwitch:
    """served_version: another one once it has other external IPs. neighbours: nobody needs any."""

    lb: LoadBalancer
    served_version: int = 0
    ready: bool = True
    ports_up: bool = True
    neighbours: dict[Address, str] = field(default_factory=dict)

    @property
    def fit(self) -> bool:
        return self.ready


@dataclass(slots=True)
class SimulatedMove:
    """ends: when."""

    record: MoveRecord
    serving: SimulatedServing
    ends: float


class Planned(NamedTuple):
    """A plan: the second of the day, seconds that it took, moves, highest load before and after, lower bound."""

    at: float
    took: float
    moves: int
    before: float
    after: float
    bound: float


@dataclass
class Tally:
    """What automatic rebalancing has done. runs: how plans that were carried out ended -> how many."""

    moves: int = 0
    entries: int = 0
    failures: int = 0
    plans: list[Planned] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)


class SimulatedControl:
    """What Loads, Balancing and Relief ask other parts for, and these three.

    External IP i is on the LB with number place[i] at first.
    """

    def __init__(self, capacity: Sequence[float], place: Sequence[int], rebalance: Rebalance, period: float) -> None:
        names = [f"lb-{number}" for number in range(len(capacity))]
        balancers = tuple(
            LoadBalancer(name, number + 1, "ext", "int", capacity=float(each))
            for number, (name, each) in enumerate(zip(names, capacity, strict=True))
        )
        ips = tuple(ExternalIp(FIRST + number, names[lb], None) for number, lb in enumerate(place))
        self.site = Site(balancers, (), (), ips, Settings(load_period=period), rebalance=rebalance)
        self.number = {name: number for number, name in enumerate(names)}
        self.switches = {lb.name: SimulatedSwitch(lb) for lb in balancers}
        self.servings = [SimulatedServing(ip, ip.load_balancer, owner_of(ip.address.packed)) for ip in ips]
        self._counters: dict[tuple[str, int], float] = {}
        """What an external IP's flow had counted when it left an LB: it goes on there when it comes back."""
        directory = Directory()
        directory.by_address = {serving.address.packed: cast(Serving, serving) for serving in self.servings}
        self.ground = cast(
            Ground,
            SimpleNamespace(
                site=self.site,
                settings=self.site.settings,
                switches=self.switches,
                external_ips=directory,
                tokens=Tokens(),
                log=self._log,
                survives=lambda piece: None,
                ready=lambda: [switch for switch in self.switches.values() if switch.ready],
            ),
        )
        self.failures: dict[str, LbFailure] = {}
        detection = cast(Detection, SimpleNamespace(failed=lambda: self.failures, held_down=lambda name, now: False))
        mover = SimpleNamespace(start=self._start, take_over=self._take_over)
        self.moving: dict[Address, SimulatedMove] = {}
        self.move_times: Iterator[float] = itertools.repeat(MOVE_TIME)
        self.tally = Tally()
        self._ids = itertools.count(1)
        self.loads = Loads(self.ground, decode=_as_it_is)
        self.balancing = Balancing(self.ground, self.loads, mover, detection, ())
        self.relief = Relief(self.ground, detection, mover, self.loads, self.balancing)

    def _log(self, event: str, **keys: object) -> None:
        """Counts how runs end."""
        if event == "rebalancing ended":
            reason = str(keys["reason"] or "done")
            self.tally.runs[next((kind for kind in STOPS if kind in reason), reason)] += 1

    # What happens to LBs.

    def fail(self, name: str) -> None:
        """It loses its external IPs at the next tick."""
        self.failures[name], self.switches[name].ready = LbFailure("simulated"), False
        self.tally.failures += 1

    def come_back(self, name: str) -> None:
        del self.failures[name]
        self.switches[name].ready = True

    # Time.

    def measure(self, load: Numbers, seconds: float, now: float) -> None:
        """Every external IP has carried so much for so long; half of it packets, half new connections."""
        packets = load * (PACKETS / (PACKETS + PACKETS_PER_CONNECTION))
        counts = (load * ENTRY_RATE).astype(int).tolist()
        for serving, each, entries in zip(self.servings, packets.tolist(), counts, strict=True):
            serving.carried += each * seconds
            serving.opened += each * seconds / PACKETS
            serving.table = range(entries)
        on: dict[str, list[FlowStats]] = {name: [] for name in self.switches}
        for serving in self.servings:
            on[serving.assigned].append(FlowStats(10, serving.owner, int(serving.carried), int(serving.carried)))
        while out := self.loads.tick(now):
            for effect in out:
                assert isinstance(effect, ToSwitch) and isinstance(effect.message, ReadFlows)
                flows = cast(bytes, on[effect.lb])  # _as_it_is decodes them
                self.ground.tokens.flows_read(effect.message.token, flows, False, now)
            now += TICK

    def tick(self, now: float) -> None:
        """Moves that are under way end, and what is due is done: failovers, balancing."""
        for move in [move for move in self.moving.values() if move.ends <= now]:
            self._end(move)
        self.relief.tick(now)
        while self.relief.hurried:
            self.relief.tick(now)
        self._post(self.balancing.tick(now), now)

    def _post(self, out: Outbox, now: float) -> None:
        for message in [effect for effect in out if isinstance(effect, Solve)]:
            begun = time.perf_counter()
            plan = assign(message.problem(lambda: None), message.algorithm)
            took = time.perf_counter() - begun
            self.tally.plans.append(
                Planned(now, took, len(plan.moves), max(plan.before.values()), max(plan.after.values()), plan.bound)
            )
            self._post(self.balancing.solved(plan, now), now)

    # Moves.

    def _start(self, address: Address, target: str, strategy: Strategy, now: float) -> tuple[MoveRecord, Outbox]:
        """As Movement.start. Raises Refused."""
        serving = cast(SimulatedServing | None, self.ground.external_ips.get(address))
        assert serving is not None
        if not self.switches[target].ready:
            raise Refused(409, "Load balancer not ready", f"{target} is not ready")
        record = MoveRecord(str(next(self._ids)), address, serving.assigned, target, strategy, now)
        self.moving[address] = SimulatedMove(record, serving, now + next(self.move_times))
        return record, []

    def _take_over(
        self, serving: SimulatedServing, target: str, failure: LbFailure, now: float
    ) -> tuple[MoveRecord, Outbox]:
        """As Movement.take_over; at once."""
        record = MoveRecord(
            str(next(self._ids)),
            serving.address,
            serving.assigned,
            target,
            Strategy.PRECOPY,
            now,
            "failover",
            "done",
            ended=now,
        )
        self._assign(serving, target)
        return record, []

    def _end(self, move: SimulatedMove) -> None:
        """It is done, unless its source or target has failed meanwhile."""
        record = move.record
        record.ended = move.ends
        del self.moving[record.external_ip]
        if move.serving.assigned != record.source or not self.switches[record.target].ready:
            record.state, record.reason = "rolled-back", "a load balancer has failed"
            return
        record.state = "done"
        self._assign(move.serving, record.target)
        self.tally.moves += 1
        self.tally.entries += len(move.serving.table)

    def _assign(self, serving: SimulatedServing, name: str) -> None:
        self._counters[serving.assigned, serving.owner] = serving.carried
        self.switches[serving.assigned].served_version += 1
        self.switches[name].served_version += 1
        serving.assigned, serving.carried = name, self._counters.get((name, serving.owner), 0.0)

    def places(self) -> Numbers:
        """The number of the LB that each external IP is on."""
        return np.fromiter((self.number[serving.assigned] for serving in self.servings), int, len(self.servings))


def relative(load: Numbers, place: Numbers, capacity: Numbers) -> Numbers:
    """The relative load of each LB."""
    loads: Numbers = np.bincount(place, load, len(capacity)) / capacity
    return loads


def _as_it_is(flows: bytes) -> Iterable[FlowStats]:
    """There is no switch whose bytes had to be decoded: what stands in for them is the counters themselves."""
    return cast(list[FlowStats], flows)
