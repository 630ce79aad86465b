"""What follows from a check: which servers are down, and what becomes of their connections.

No verdict empties a service (docs/health-checks.md#fail-open): a check that no server has ever passed takes none out,
and connections of a server that is down are reset only when another server has passed a check since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

from lbctl.entries.access_table import Entry
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.health_checks.targets import Target, Targets
from lbctl.health_checks.verdict import Verdict
from lbctl.values.keys import server_key

SAVE_INTERVAL = 1.0
"""Seconds from one saving of what is known of servers to the next, however often that changes."""
OPEN = "new connections go on; is the check right (docs/health-checks.md)? lbctl server list shows what it finds"


class Ender(Protocol):
    """Who ends entries (lbctl/connections/)."""

    def end_all(self, serving: Serving, entries: Iterable[Entry], now: float) -> Outbox:
        """Takes entries out of the table and out of every switch."""


class Judge:
    """Of all servers of a control function. counters: checks by result."""

    def __init__(self, ground: Ground, targets: Targets, ender: Ender, counters: Counter[str]) -> None:
        self._ground, self._targets, self._ender, self._counters = ground, targets, ender, counters
        self._unsaved, self._saved_at = False, float("-inf")
        ground.survives(lambda state: replace(state, checked=targets.results()))

    def tick(self, now: float) -> Outbox:
        """Has what has been found saved, so that a new controller knows it."""
        if not self._unsaved or now < self._saved_at + SAVE_INTERVAL:
            return []
        self._unsaved, self._saved_at = False, now
        return [self._ground.save()]

    def judged(self, target: Target, verdict: Verdict, began: float, now: float) -> Outbox:
        """A check has found that. began: when it did."""
        self._counters["passed" if verdict.passed else verdict.result] += 1
        servers, endpoint = target.serving.servers, target.server.endpoint
        if verdict.passed and not target.proof.passed:
            target.proof.passed = self._unsaved = True
            if servers.set_heeded(target.place):
                self._ground.log("health check is heeded", **_service_of(target), server=str(endpoint))
        target.note(verdict.passed, began)
        if target.judgement.note(verdict.passed, target.proof.passed):
            self._changed(target, verdict, now)
        elif not verdict.passed and not target.judgement.up and verdict.reason != target.reason:
            target.reason = verdict.reason
            servers.set_down(target.place, endpoint, verdict.reason, now)
        if not target.proof.passed:
            self._doubt(target, verdict.reason)
        return self._settle(target, now) if servers.down else []

    def _changed(self, target: Target, verdict: Verdict, now: float) -> None:
        """It has gone down, or is up again."""
        servers, told, endpoint = target.serving.servers, _service_of(target), target.server.endpoint
        told |= {"server": str(endpoint), "reason": verdict.reason}
        self._unsaved = True
        if target.judgement.up:
            servers.set_up(target.place, endpoint)
            self._ground.log("server up", **told, down_for=round(now - target.since, 1))
            return
        target.reason, target.since, target.settled = verdict.reason, now, False
        servers.set_down(target.place, endpoint, verdict.reason, now)
        self._ground.log("server down", level="warning", **told)
        if why := servers.fails_open(target.place):
            self._ground.log("service fails open", level="warning", **_service_of(target), reason=why, hint=OPEN)

    def _doubt(self, target: Target, found: str) -> None:
        """No server has passed this check yet. Is it to be said?"""
        servers = target.serving.servers
        if servers.fails_open(target.place) or not all(
            other.judgement.failing for other in self._targets.of_service(target)
        ):
            return
        servers.set_unheeded(target.place, found)
        self._ground.log("health check is not heeded", level="warning", **_service_of(target),
                         reason=servers.fails_open(target.place), hint=OPEN)

    def _settle(self, judged: Target, now: float) -> Outbox:
        """What `when_down` says becomes of the connections of servers that have failed alone: another one has passed
        checks before and after theirs. (What all do at once, or all get over, some are the first to be seen to do.)"""
        if judged.check.when_down != "reset":
            return []
        all_of_it = self._targets.of_service(judged)
        if judged.serving.servers.fails_open(judged.place):
            for target in all_of_it:
                target.settled = False  # they get new connections
            return []
        out: Outbox = []
        for target in all_of_it:
            if not target.judgement.up and not target.settled and _alone(target, all_of_it):
                target.settled = True
                out += self._reset(target, now)
        return out

    def _reset(self, target: Target, now: float) -> Outbox:
        """Ends the server's entries: the next packet of either side is answered with a RST (a client's datagram: by
        another server)."""
        protocol, port = target.place
        table = target.serving.table
        to_server, service = server_key(protocol, target.server.address.packed, target.server.port), port.to_bytes(2)
        if to_server not in table.connections_to:
            return []
        doomed = [
            entry for entry in table.snapshot() if entry.reply.startswith(to_server) and entry.key.endswith(service)
        ]
        return self._ender.end_all(target.serving, doomed, now)


def _alone(down: Target, all_of_it: Iterable[Target]) -> bool:
    """Has another server that takes connections passed a check before its last one, which has failed, and the next one
    after?"""
    return any(
        other.judgement.up and other.passed_at and down.failed_at and other.passed_at[0] < down.failed_at
        and down.failed_at < other.passed_at[1] and other.serving.servers.takes(other.place, other.server)
        for other in all_of_it
    )


def _service_of(target: Target) -> dict[str, Any]:
    """For the log."""
    return {
        "external_ip": str(target.serving.address), "service": f"{target.service.protocol}/{target.service.port}"
    }
