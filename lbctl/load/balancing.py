"""Acting on an assignment: a plan's moves, a few at a time; by order, or by itself where the site file says so.

What is computed is for assignment.py, which takes its time elsewhere (a process); here is what goes into it and what
comes of it. A plan that has begun is stopped when one of its moves fails, or when it would make the highest load
worse than it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from lbctl.assignment import TOLERANCE, Capacity, Demand, Plan, PlannedMove, Problem, Unassignable
from lbctl.ground.effects import Outbox, Solve
from lbctl.ground.ground import Ground
from lbctl.ground.move_record import MoveRecord
from lbctl.load.loads import Loads
from lbctl.store import State
from lbctl.values.addresses import Address
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy

CLOSE = 0.25
"""Of the threshold: how far above the least possible highest load a plan made by itself may stay, to save moves. So
what begins above the whole threshold ends well below it, and noise does not begin the next one at once."""
ROUNDS = 3
"""Looks in a row at which the load must be uneven before it is rebalanced by itself."""


class Mover(Protocol):
    """Who moves external IPs (lbctl/moves/)."""

    def start(self, address: Address, to: str, strategy: Strategy, now: float) -> tuple[MoveRecord, Outbox]:
        """Raises Refused."""


class Fitness(Protocol):
    """Who knows which LBs have failed (lbctl/failures/)."""

    def failed(self) -> Container[str]: ...


@dataclass(slots=True)
class Run:
    """A plan that is carried out. state: running; done; stopped (see reason)."""

    id: str
    plan: Plan
    drained: frozenset[str]
    waiting: deque[PlannedMove] = field(default_factory=deque)
    moves: list[str] = field(default_factory=list)
    """Ids, in the order in which they have begun."""
    under_way: list[MoveRecord] = field(default_factory=list)
    state: str = "running"
    reason: str | None = None
    loads: dict[str, float] = field(default_factory=dict)
    """Each LB's relative load as if all begun moves had ended, from the loads of that version."""
    loads_of: int | None = None


class Balancing:
    """Of a control function."""

    def __init__(self, ground: Ground, loads: Loads, mover: Mover, fitness: Fitness, drained: Iterable[str]) -> None:
        """drained: LBs that an operator wants empty."""
        self._ground, self._loads, self._mover, self._fitness = ground, loads, mover, fitness
        self._drained = set(drained)
        self.last: Run | None = None
        self._begun = 0
        self._uneven = 0
        self._next_look = self._rest_until = 0.0
        self._solving = False
        ground.survives(self._survives)

    def _survives(self, state: State) -> State:
        return replace(state, drained=frozenset(self._drained & self._ground.switches.keys()))

    def is_drained(self, name: str) -> bool:
        """Does an operator want that LB empty?"""
        return name in self._drained

    @property
    def running(self) -> Run | None:
        return self.last if self.last and self.last.state == "running" else None

    # The problem.

    def problem(self, pause: Callable[[], None] = lambda: None, tolerance: float = TOLERANCE) -> Problem:
        """What there is to be assigned now. LBs that can't take anything over have no capacity. pause: is called now
        and then, and may let others run. tolerance: see Problem."""
        ground, demands, current = self._ground, list[Demand](), dict[Address, str]()
        for serving in list(ground.external_ips):
            demands.append(Demand(serving.address, self._loads.weight(serving), len(serving.table),
                                  serving.config.only_on, serving.config.not_with))
            current[serving.address] = serving.assigned
            pause()
        usable = self._usable()
        capacities = tuple(Capacity(name, switch.lb.capacity, switch.lb.standby, name not in usable)
                           for name, switch in ground.switches.items())
        return Problem(tuple(demands), capacities, current, ground.site.rebalance.headroom or None, tolerance)

    def _relative(self) -> dict[str, float]:
        """Each LB's load, for each unit of its capacity."""
        return {name: load / self._capacity(name) for name, load in self._loads.by_lb().items()}

    def _usable(self) -> set[str]:
        """The LBs that can take something over."""
        failed = self._fitness.failed()
        return {name for name, switch in self._ground.switches.items()
                if switch.fit and switch.ports_up and name not in self._drained and name not in failed}

    def set_drained(self, name: str, drained: bool) -> Outbox:
        """From now on that LB is to be empty, or may be used again; kept across a restart. Raises Refused: unknown
        LB."""
        if name not in self._ground.switches:
            raise Refused(404, "Unknown load balancer", f"this site has no load balancer {name}")
        (self._drained.add if drained else self._drained.discard)(name)
        self._ground.log("drained" if drained else "drain undone", lb=name)
        return [self._ground.save()]

    # Acting.

    def begin(self, plan: Plan, now: float) -> tuple[Run, Outbox]:
        """Carries it out. Raises Refused while another one is being carried out."""
        if self.running:
            raise Refused(409, "Rebalancing already", f"plan {self.running.id} is being carried out: wait for its end")
        self._begun += 1
        self.last = run = Run(str(self._begun), plan, frozenset(self._drained), deque(plan.moves))
        self._ground.log(
            "rebalancing",
            plan=run.id,
            moves=len(plan.moves),
            highest_before=round(max(plan.before.values(), default=0), 3),
            highest_after=round(max(plan.after.values(), default=0), 3),
            algorithm=plan.algorithm,
        )
        return run, self._go_on(run, now)

    def tick(self, now: float) -> Outbox:
        """Starts what has become due."""
        if run := self.running:
            return self._go_on(run, now)
        return self._look(now)

    def _go_on(self, run: Run, now: float) -> Outbox:
        out: Outbox = []
        if bad := next((record for record in run.under_way if record.state in ("rolled-back", "aborted")), None):
            self._end(run, now, f"move {bad.id} of {bad.external_ip}: {bad.reason}")
            return out
        run.under_way = [record for record in run.under_way if record.ended is None]
        free = self._ground.site.rebalance.at_once - len(run.under_way)
        ready = run.waiting and free > 0
        if ready and run.loads_of != self._loads.version:
            run.loads, run.loads_of = self._as_if_done(run), self._loads.version
            if run.moves:  # else it begins just now
                return out  # of a large site, that was enough for one go
        loads, usable = run.loads, self._usable() if ready else set()
        while run.waiting and free > 0:
            planned = run.waiting.popleft()
            if reason := self._useless(run, planned, loads, usable):
                self._end(run, now, reason)
                return out
            try:
                record, effects = self._mover.start(planned.address, planned.target, Strategy.PRECOPY, now)
            except Refused as refused:
                self._end(run, now, f"{planned.address} to {planned.target}: {refused.detail}")
                return out
            run.moves.append(record.id)
            run.under_way.append(record)
            self._shift(loads, planned.address, planned.source, planned.target)
            free -= 1
            out += effects
        if not run.waiting and not run.under_way:
            self._end(run, now, None)
        return out

    def _useless(self, run: Run, planned: PlannedMove, loads: Mapping[str, float], usable: set[str]) -> str | None:
        """Why this move of the plan should not be made any more: something has changed meanwhile. loads: relative, of
        each LB.

        A plan may bring an LB to more than both had before, as long as others have still more."""
        serving = self._ground.external_ips.get(planned.address)
        if serving is None or serving.assigned != planned.source:
            return f"{planned.address} is not at {planned.source} any more"
        if planned.target not in usable:
            return f"{planned.target} can't take {planned.address} any more: it has gone, failed, or been drained"
        if planned.source in run.drained:
            return None
        moved = self._loads.weight(serving)
        source, target = loads[planned.source], loads[planned.target]
        after = target + moved / self._capacity(planned.target)
        if after > max(source, target, planned.brings) * (1 + self._ground.site.rebalance.threshold):
            return (f"the load has changed: {planned.address} would bring {planned.target} to {after:.3g}, "
                    f"planned was {planned.brings:.3g}")
        return None

    def _as_if_done(self, run: Run) -> dict[str, float]:
        """Each LB's relative load with the run's moves that are under way."""
        loads = self._relative()
        for record in run.under_way:
            serving = self._ground.external_ips.get(record.external_ip)
            if serving is not None and serving.assigned == record.source:
                self._shift(loads, record.external_ip, record.source, record.target)
        return loads

    def _shift(self, loads: dict[str, float], address: Address, source: str, target: str) -> None:
        """Counts an external IP at the target."""
        serving = self._ground.external_ips.get(address)
        assert serving is not None, "the caller has found it there"
        moved = self._loads.weight(serving)
        loads[source] -= moved / self._capacity(source)
        loads[target] += moved / self._capacity(target)

    def _capacity(self, name: str) -> float:
        return self._ground.switches[name].lb.capacity

    def _end(self, run: Run, now: float, reason: str | None) -> None:
        run.state, run.reason = ("stopped", reason) if reason else ("done", None)
        self._rest_until = now + self._ground.site.rebalance.cooldown
        self._uneven = 0
        self._ground.log("rebalancing ended", plan=run.id, state=run.state, reason=reason, moves=len(run.moves))

    # By itself.

    def _look(self, now: float) -> Outbox:
        """Uneven for some looks in a row, and after a rest: then a plan is asked for."""
        settings = self._ground.site.rebalance
        if settings.mode != "automatic" or self._solving or now < max(self._next_look, self._rest_until):
            return []
        self._next_look = now + self._ground.site.settings.load_period
        self._uneven = self._uneven + 1 if self._is_uneven() else 0
        if self._uneven < ROUNDS:
            return []
        self._solving = True
        return [Solve(partial(self.problem, tolerance=CLOSE * settings.threshold), settings.algorithm)]

    def _is_uneven(self) -> bool:
        """Does an LB exceed what all had if the load were spread by capacity?"""
        usable = self._usable()
        loads = {
            name: load
            for name, load in self._loads.by_lb().items()
            if name in usable and not self._ground.switches[name].lb.standby
        }
        capacity = sum(map(self._capacity, loads))
        most = sum(loads.values()) * (1 + self._ground.site.rebalance.threshold)
        return any(load / self._capacity(name) * capacity > most for name, load in loads.items())

    def solved(self, plan: Plan | Unassignable, now: float) -> Outbox:
        """The answer to a Solve. A plan that gains less than the threshold is not worth its moves."""
        self._solving, self._uneven = False, 0
        self._rest_until = now + self._ground.site.rebalance.cooldown
        if isinstance(plan, Unassignable):
            self._ground.log("no assignment", level="warning", reason=str(plan))
            return []
        before, after = max(plan.before.values(), default=0.0), max(plan.after.values(), default=0.0)
        if not plan.moves or after > before / (1 + self._ground.site.rebalance.threshold / 2) or self.running:
            return []
        return self.begin(plan, now)[1]
