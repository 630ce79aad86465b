"""Who takes over from a failed LB, and when: by itself, or on order."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from lbctl.failures.succession import Candidate, Orphan, spread
from lbctl.ground.effects import Outbox
from lbctl.ground.serving import Serving
from lbctl.moves.move import Move
from lbctl.moves.takeover import Failure
from lbctl.values.addresses import Address
from lbctl.values.refused import Refused

if TYPE_CHECKING:
    from lbctl.control import ControlFunction

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds until a failover that did not succeed is tried again; doubled each time."""


class Relief:
    """Starts the failovers of a control function."""

    def __init__(self, control: ControlFunction) -> None:
        self._control = control
        self._retries: dict[Address, tuple[float, float]] = {}
        """When to try again, and how long to wait after that."""
        self._told: set[str] = set()
        """Failed LBs that nobody can take over from, as the log has said."""

    def to_fence(self) -> set[str]:
        """LBs that must answer ARP for nobody, and can't be told so."""
        switches = self._control.switches
        return {name for name in self._control.detection.failed() if switches[name].state == "disconnected"}

    def order(self, name: str, now: float) -> tuple[list[Move], Outbox]:
        """Takes all external IPs of that LB away, whether it has failed or not. Raises Refused: unknown LB, no other LB, a move
        is running (the failovers that are running are returned)."""
        control = self._control
        source = control.switches.get(name)
        if source is None:
            raise Refused(404, "Unknown load balancer", f"this site has no load balancer {name}")
        running = [move for move in control.moves.values()
                   if not move.ended and move.record.kind == "failover" and move.record.source == name]
        orphans = [serving for serving in control.directory if serving.assigned == name and serving.move not in running]
        moving = [str(serving.address) for serving in orphans if serving.move]
        if moving:
            raise Refused(409, "Move already running", f"{', '.join(moving)} is being moved: wait for its end, or abort it")
        failure = control.detection.failed().get(name)
        takers = self._takers(name, orphans, now)
        if orphans and not takers:
            raise Refused(409, "No other load balancer", f"no load balancer but {name} is ready, with both ports up")
        if failure is None and not source.ready:
            failure = control.detection.declare(name, "by order: it is not connected")
        return self._start(takers, failure, now, running)

    def tick(self, now: float) -> Outbox:
        """Starts what has become due."""
        control, out = self._control, []
        failed = control.detection.failed()
        self._told &= failed.keys()
        self._retries = {address: retry for address, retry in self._retries.items()
                         if (serving := control.directory.get(address)) and (serving.assigned in failed or serving.move)}
        for name, failure in failed.items():
            orphans = [serving for serving in control.directory
                       if serving.assigned == name and serving.move is None and self._due(serving, now)]
            takers = self._takers(name, orphans, now)
            if orphans and not takers and name not in self._told:
                self._told.add(name)
                control.log("no load balancer can take over", level="error", lb=name, external_ips=len(orphans),
                            hint="another one must be ready, with both ports up")
            out += self._start(takers, failure, now)[1]
        return out

    def _due(self, serving: Serving, now: float) -> bool:
        """Each start is a try; one that succeeds makes this external IP no orphan any more."""
        due, _ = self._retries.get(serving.address, (now, FIRST_RETRY))
        return now >= due

    def _takers(self, name: str, orphans: list[Serving], now: float) -> dict[Serving, str]:
        """Who takes which of the orphans of that LB."""
        if not orphans:
            return {}
        chosen = spread(self._orphans(orphans), self._candidates(name, now))
        return {serving: chosen[serving.address] for serving in orphans if serving.address in chosen}

    def _orphans(self, orphans: list[Serving]) -> dict[Address, Orphan]:
        control = self._control
        named_by: dict[Address, set[Address]] = {}
        for serving in control.directory:
            for other in serving.config.not_with:
                named_by.setdefault(other, set()).add(serving.address)
        return {serving.address: Orphan(frozenset(serving.next_hops()), control.balancing.weight(serving), serving.config.only_on,
                                        serving.config.not_with | named_by.get(serving.address, set())) for serving in orphans}

    def _candidates(self, failed: str, now: float) -> list[Candidate]:
        control = self._control
        detection, drained = control.detection, control.balancing.drained
        unfit = {failed, *detection.failed()}
        has, loads = defaultdict(set), control.balancing.loads()
        for serving in control.directory:
            has[serving.assigned].add(serving.address)
        return [Candidate(name, frozenset(has[name]), frozenset(switch.neighbours), loads[name], switch.lb.capacity,
                          detection.held_down(name, now) or name in drained)
                for name, switch in control.switches.items()
                if name not in unfit and switch.ready and switch.ports_up]

    def _start(self, takers: dict[Serving, str], failure: Failure | None, now: float,
               moves: list[Move] | None = None) -> tuple[list[Move], Outbox]:
        control, out, moves = self._control, [], list(moves or ())
        for serving, target in takers.items():
            if failure is None:
                move, messages = control.movement.free(serving, target, now)
            else:
                _, wait = self._retries.get(serving.address, (now, FIRST_RETRY))
                self._retries[serving.address] = now + wait, min(2 * wait, LAST_RETRY)
                move, messages = control.movement.take_over(serving, target, failure, control.copies.remote(serving), now)
            moves.append(move)
            out += messages
        return moves, out
