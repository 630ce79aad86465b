"""Who takes over from a failed LB, and when: by itself, or on order."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Protocol

from lbctl.failures.detection import Detection
from lbctl.failures.succession import Candidate, Orphan, spread
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.move_record import MoveRecord
from lbctl.ground.serving import Serving
from lbctl.moves.takeover import LbFailure
from lbctl.values.addresses import Address
from lbctl.values.portions import portions
from lbctl.values.refused import Refused

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
"""Seconds until a failover that did not succeed is tried again; doubled each time."""
STARTED_AT_ONCE = 10
"""Failovers: each takes some 0.5 ms."""


class Mover(Protocol):
    """Who moves external IPs (lbctl/moves/)."""

    def take_over(self, serving: Serving, to: str, failure: LbFailure, now: float) -> tuple[MoveRecord, Outbox]:
        """From its failed LB."""

    def free(self, serving: Serving, to: str, now: float) -> tuple[MoveRecord, Outbox]:
        """From an LB that is well."""


class Weights(Protocol):
    """Who knows what external IPs and LBs carry (lbctl/load/)."""

    def weight(self, serving: Serving) -> float:
        """Of an external IP, as it is now."""

    def by_lb(self) -> dict[str, float]:
        """The sum of the weights of each LB's external IPs."""


class Drains(Protocol):
    def is_drained(self, name: str) -> bool:
        """Does an operator want that LB empty?"""


class Relief:
    """Starts the failovers of a control function."""

    def __init__(self, ground: Ground, detection: Detection, mover: Mover, weights: Weights, drains: Drains) -> None:
        self._ground, self._detection, self._mover, self._weights, self._drains = (
            ground,
            detection,
            mover,
            weights,
            drains,
        )
        self._retries: dict[Address, tuple[float, float]] = {}
        """When to try again, and how long to wait after that."""
        self._takers: dict[str, Iterator[tuple[Address, str]]] = {}
        """By failed LB: who takes which of its external IPs, as far as that has not been started."""
        self._told: set[str] = set()
        """Failed LBs that nobody can take over from, as the log has said."""

    def order(self, name: str, now: float) -> Iterator[tuple[list[MoveRecord], Outbox]]:
        """Takes all external IPs of that LB away, whether it has failed or not, some with each step; what is to be
        sent is sent before the next one. The failovers that are running count as its moves. Raises Refused: unknown LB,
        no other LB, another move is running."""
        source = self._ground.switches.get(name)
        if source is None:
            raise Refused(404, "Unknown load balancer", f"this site has no load balancer {name}")
        # One that is being taken over may have its new LB already.
        running = [serving.move for serving in self._ground.external_ips
                   if serving.move and serving.move.kind == "failover" and serving.move.source == name]
        under_way = {record.id for record in running}
        orphans = [serving for serving in self._ground.external_ips
                   if serving.assigned == name and not (serving.move and serving.move.id in under_way)]
        moving = [str(serving.address) for serving in orphans if serving.move]
        if moving:
            raise Refused(
                409, "Move already running", f"{', '.join(moving)} is being moved: wait for its end, or abort it"
            )
        failure = self._detection.failed().get(name)
        chosen = dict(spread(self._orphans(orphans), self._candidates(name, now)))
        if orphans and not chosen:
            raise Refused(409, "No other load balancer", f"no load balancer but {name} is ready, with both ports up")
        if failure is None and not source.ready:
            failure = self._detection.declare(name, "by order: it is not connected")
        return self._ordered(name, [(serving, chosen[serving.address]) for serving in orphans], failure, running, now)

    def _ordered(self, name: str, orphans: list[tuple[Serving, str]], failure: LbFailure | None,
                 running: list[MoveRecord], now: float) -> Iterator[tuple[list[MoveRecord], Outbox]]:
        yield running, []
        for some in portions(orphans, STARTED_AT_ONCE):
            # Meanwhile it may have been believed to have failed, and some may have begun.
            begun = [serving.move for serving, _ in some if serving.move and serving.move.source == name]
            failed = self._detection.failed()
            chosen = {serving: target for serving, target in some if serving.assigned == name and not serving.move
                      and self._can_take(target, failed)}
            records, out = self._start(chosen, failed.get(name, failure), now)
            yield begun + records, out

    def tick(self, now: float) -> Outbox:
        """Starts what has become due."""
        out: Outbox = []
        failed = self._detection.failed()
        self._told &= failed.keys()
        if not self._takers:
            self._retries = {
                address: retry
                for address, retry in self._retries.items()
                if (serving := self._ground.external_ips.get(address)) and (serving.assigned in failed or serving.move)
            }
        self._takers = {name: takers for name, takers in self._takers.items() if name in failed}
        for name in failed:
            many = name not in self._takers and self._look_for_takers(name, now) > STARTED_AT_ONCE
            if not many:  # else that was enough for one go
                out += self._go_on(name, failed, now)
        return out

    @property
    def hurried(self) -> bool:
        """Would it start more, if it were told the time again?"""
        return bool(self._takers)

    def _look_for_takers(self, name: str, now: float) -> int:
        """How many external IPs need one?"""
        orphans = [serving for serving in self._ground.external_ips if self._is_orphan(serving, name, now)]
        if not orphans:
            return 0
        if candidates := self._candidates(name, now):
            self._takers[name] = spread(self._orphans(orphans), candidates)
        elif name not in self._told:
            self._told.add(name)
            self._ground.log("no load balancer can take over", level="error", lb=name, external_ips=len(orphans),
                             hint="another one must be ready, with both ports up")
        return len(orphans)

    def _is_orphan(self, serving: Serving, name: str, now: float) -> bool:
        return serving.assigned == name and serving.move is None and self._due(serving, now)

    def _go_on(self, name: str, failed: Mapping[str, LbFailure], now: float) -> Outbox:
        """Some of what is to be taken over from that LB: packets wait for all that is done at once."""
        chosen: dict[Serving, str] = {}
        for address, target in itertools.islice(self._takers.get(name, ()), STARTED_AT_ONCE):
            serving = self._ground.external_ips.get(address)
            if serving and self._is_orphan(serving, name, now) and self._can_take(target, failed):
                chosen[serving] = target
        if not chosen:
            self._takers.pop(name, None)  # what could not be taken over as it was meant is looked at again
        return self._start(chosen, failed[name], now)[1]

    def _due(self, serving: Serving, now: float) -> bool:
        """Each start is a try; one that succeeds makes this external IP no orphan any more."""
        due, _ = self._retries.get(serving.address, (now, FIRST_RETRY))
        return now >= due

    def _orphans(self, orphans: list[Serving]) -> dict[Address, Orphan]:
        named_by: dict[Address, set[Address]] = {}
        for serving in self._ground.external_ips:
            for other in serving.config.not_with:
                named_by.setdefault(other, set()).add(serving.address)
        return {
            serving.address: Orphan(
                frozenset(serving.next_hops()),
                self._weights.weight(serving),
                serving.config.only_on,
                serving.config.not_with | named_by.get(serving.address, set()),
            )
            for serving in orphans
        }

    def _candidates(self, failed: str, now: float) -> list[Candidate]:
        has: dict[str, set[Address]] = defaultdict(set)
        loads, failed_lbs = self._weights.by_lb(), self._detection.failed()
        for serving in self._ground.external_ips:
            has[serving.assigned].add(serving.address)
        return [Candidate(name, frozenset(has[name]), frozenset(switch.neighbours), loads[name], switch.lb.capacity,
                          self._detection.held_down(name, now) or self._drains.is_drained(name))
                for name, switch in self._ground.switches.items()
                if name != failed and self._can_take(name, failed_lbs)]

    def _can_take(self, name: str, failed: Mapping[str, LbFailure]) -> bool:
        switch = self._ground.switches.get(name)
        return switch is not None and switch.fit and switch.ports_up and name not in failed

    def _start(self, takers: dict[Serving, str], failure: LbFailure | None,
               now: float) -> tuple[list[MoveRecord], Outbox]:
        out: Outbox = []
        records: list[MoveRecord] = []
        for serving, target in takers.items():
            if failure is None:
                record, effects = self._mover.free(serving, target, now)
            else:
                _, wait = self._retries.get(serving.address, (now, FIRST_RETRY))
                self._retries[serving.address] = now + wait, min(2 * wait, LAST_RETRY)
                record, effects = self._mover.take_over(serving, target, failure, now)
            records.append(record)
            out += effects
        return records, out
