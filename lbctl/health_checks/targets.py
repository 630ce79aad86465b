"""The servers that are checked: those of all services with a health check, as the services are now."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lbctl.ground.serving import Directory, Serving
from lbctl.health_checks.tcp import HttpQuestion, TcpCheck
from lbctl.health_checks.udp import UdpCheck
from lbctl.health_checks.verdict import Attempt, Judgement
from lbctl.site.model import CHECK_PORTS, HealthCheck, Server, Service, ServiceName
from lbctl.store.checked import Checked
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import Place

ISN_SECOND = 250_000
"""How much initial sequence numbers grow in a second (RFC 9293 3.4.1)."""
_NUMBERS = 1 << 32

CheckedServer = tuple[Place, Endpoint]
"""Service of an external IP, and server."""


@dataclass(eq=False, slots=True)
class Proof:
    """Of one service's check as it is configured now: has any server passed it? Before that it takes no server out."""

    check: str
    """The check in words, so that a new controller knows whether it is the same."""
    passed: bool = False


@dataclass(eq=False, slots=True)
class Target:
    """A server of a service that is checked. number: any, the same in each run; what spreads the targets over time
    and ports."""

    serving: Serving
    services: Mapping[Place, Service]
    """Of the external IP, when this was made."""
    place: Place
    service: Service
    server: Server
    judgement: Judgement
    proof: Proof
    number: int
    source_port: int
    """Where its checks come from; always the same as long as that is free, since Open vSwitch's cache knows the
    answers then."""
    due: float
    """When the next check is to begin."""
    reason: str = ""
    """Why it is down."""
    since: float = 0.0
    """It has been down since then."""
    failed_at: float | None = None
    """When its last check began, if that has failed."""
    passed_at: tuple[float, float] | None = None
    """When its last check began, if that has passed; the first one: the passed one before it (infinite: it failed)."""
    settled: bool = True
    """Has what becomes of its connections been done?"""
    unresolved: tuple[str, float] | None = None
    """The LB that is asking for the MAC of its next hop, and since when."""
    checked: bool = False
    """Is a check under way?"""
    gone: bool = False

    @property
    def check(self) -> HealthCheck:
        assert self.service.health_check is not None
        return self.service.health_check

    @property
    def asked(self) -> tuple[bytes, int]:
        """Packed address and port that answer. A server that answers clients itself does that as its external IP."""
        address = self.serving.address if self.serving.config.direct else self.server.address
        return address.packed, self.check.port or self.server.port

    def note(self, passed: bool, began: float) -> None:
        """The outcome of its last check, and when that began."""
        if passed:
            self.failed_at, self.passed_at = None, (self.passed_at[1] if self.passed_at else float("inf"), began)
        else:
            self.failed_at, self.passed_at = began, None

    def attempt(self, seed: int, now: float) -> Attempt:
        """A new check. seed: another one in each run, so that sequence numbers can't be guessed from the site file
        (RFC 6528)."""
        check = self.check
        if check.type == "udp":
            return UdpCheck(check.request, check.answer, check.timeout)
        isn = ((self.number ^ zlib.crc32(seed.to_bytes(8))) + int(now * ISN_SECOND)) % _NUMBERS
        address = self.serving.address
        host = check.host or (str(address) if address.version == 4 else f"[{address}]")
        return TcpCheck(
            isn, check.timeout, HttpQuestion(check.path, host, check.status) if check.type == "http" else None
        )


class Targets:
    """By owner of the external IP. known: what an earlier control function has found, of the services that there are
    at first."""

    def __init__(self, known: Mapping[ServiceName, Checked]) -> None:
        self._known = known
        self._each: dict[int, dict[CheckedServer, Target]] = {}
        self._followed: dict[int, tuple[Serving, object]] = {}
        """The services that the targets of an external IP were made of."""

    def follow(self, directory: Directory, now: float) -> list[Target]:
        """Makes them those of the services as they are now. Returns the new ones, each due at a time of its own; what
        is not a target any more is `gone`. A server that stays, stays up or down."""
        new: list[Target] = []
        for serving in directory:
            seen = self._followed.get(serving.owner)
            if not seen or seen[0] is not serving or seen[1] is not serving.services:
                self._followed[serving.owner] = serving, serving.services
                new += self._retarget(serving, now)
        for owner in self._followed.keys() - directory.by_owner.keys():
            _drop(self._each.pop(owner, {}).values())
            del self._followed[owner]
        self._known = {}
        return new

    def of_service(self, target: Target) -> list[Target]:
        """All of the service that this one is of."""
        each = self._each.get(target.serving.owner, {})
        found = (each.get((target.place, server.endpoint)) for server in target.service.servers)
        return [other for other in found if other]

    def results(self) -> dict[ServiceName, Checked]:
        """What is known of the services whose check has been passed: for a later control function."""
        found: dict[ServiceName, Checked] = {}
        for target in itertools.chain.from_iterable(each.values() for each in self._each.values()):
            if target.proof.passed:
                checked = found.setdefault(_name(target.serving, target.service), Checked(target.proof.check, {}))
                if not target.judgement.up:
                    checked.down[target.server.endpoint] = target.reason, target.since
        return found

    def _retarget(self, serving: Serving, now: float) -> list[Target]:
        before, targets = self._each.pop(serving.owner, {}), {}
        proofs = {key[0]: target.proof for key, target in before.items()}
        for place, service in serving.services.items():
            if service.health_check is None:
                serving.servers.set_heeded(place)
                continue
            check, proof = str(service.health_check), proofs.get(place)
            known = self._known.get(_name(serving, service)) if proof is None else None
            if known and known.check == check:
                proof = Proof(check, passed=True)
            elif proof is None or proof.check != check:
                proof, known = Proof(check), None
                serving.servers.set_heeded(place)
            for server in service.servers:
                key = place, server.endpoint
                targets[key] = target = _target(serving, place, server, proof, before.get(key), now)
                if known and (down := known.down.get(server.endpoint)):
                    target.judgement.up, target.settled = False, False
                    target.reason, target.since = down
                    serving.servers.set_down(place, server.endpoint, *down)
        _drop(before.values())
        for place, endpoint in before.keys() - targets.keys():
            serving.servers.set_up(place, endpoint)
        if targets:
            self._each[serving.owner] = targets
        return list(targets.values())


def _name(serving: Serving, service: Service) -> ServiceName:
    return ServiceName(serving.address, service.protocol, service.port)


def _target(
    serving: Serving, place: Place, server: Server, proof: Proof, before: Target | None, now: float
) -> Target:
    service = serving.services[place]
    check = service.health_check
    assert check is not None, "only servers that are checked are targets"
    number = zlib.crc32(f"{serving.address} {place} {server.endpoint}".encode())
    first, last = CHECK_PORTS
    port = before.source_port if before else first + number % (last - first + 1)
    found = Target(serving, serving.services, place, service, server, Judgement(check.rise, check.fall), proof,
                   number, port, now + check.interval * number / _NUMBERS)
    if before is None:
        return found
    found.judgement.up, found.judgement.against = before.judgement.up, before.judgement.against
    found.due = min(before.due, found.due)
    if before.proof is proof:
        found.failed_at, found.passed_at = before.failed_at, before.passed_at
    if not found.judgement.up:
        found.reason, found.since = before.reason, before.since
        found.settled = before.settled
        serving.servers.set_down(place, server.endpoint, found.reason, found.since)
    return found


def _drop(targets: Iterable[Target]) -> None:
    for target in targets:
        target.gone = True
