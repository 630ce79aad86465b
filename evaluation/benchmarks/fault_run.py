"""One fault under load: what became of established connections and of requests, and how long nothing was forwarded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evaluation.benchmarks.scene import Scene
from evaluation.measuring.others import watched
from lbctl.site.model import Site
from tests.bed.bed import NotInTime
from tests.bed.faults import Established, Fates, Silence, cut, cut_silently, freeze, kill, wait_reached
from tests.bed.sites import simple_site, with_keepers

LB = "lb-a"
FIRST, SECOND = "198.51.100.1", "198.51.100.2"
"""The external IPs of the LB that the fault is about, and of the other one."""
BEFORE, AFTER, MOVED = 2.0, 2.0, 15.0
"""Seconds of traffic before the fault and when all is done; and within which an external IP must have left its LB."""


@dataclass(frozen=True)
class Fault:
    """What is done to a scene.

    copies: those that it is shown with, by site key. leaves: whether the LB's external IPs are to go to another one.
    """

    name: str
    inject: Callable[[Scene], None]
    copies: tuple[tuple[str, ...], ...] = (("controller",),)
    leaves: bool = True


def restart_controller(scene: Scene) -> None:
    """kill -9 of the controller; its supervisor starts it again at once."""
    scene.controller.kill()
    scene.controller.start()


def kill_keepers(scene: Scene) -> None:
    """kill -9 of all keepers; nobody starts them again."""
    for keeper in scene.keepers.values():
        keeper.kill()


def kill_with(other: Callable[[Scene], None]) -> Callable[[Scene], None]:
    """The LB dies together with something else."""

    def inject(scene: Scene) -> None:
        kill(scene, LB)
        other(scene)

    return inject


EACH = (("controller",), ("keeper",), ("sockets",))
FAULTS = (
    Fault("LB killed", lambda scene: kill(scene, LB), EACH),
    Fault("LB frozen", lambda scene: freeze(scene, LB)),
    Fault("external link cut", lambda scene: cut(scene, LB, "external")),
    Fault("internal link cut", lambda scene: cut(scene, LB, "internal")),
    Fault("external link cut, carrier stays", lambda scene: cut_silently(scene, LB, "external")),
    Fault("internal link cut, carrier stays", lambda scene: cut_silently(scene, LB, "internal")),
    Fault("control connection cut", lambda scene: cut_silently(scene, LB, "management")),
    Fault("controller killed and started", restart_controller, leaves=False),
    Fault("keepers killed", kill_keepers, (("keeper",),), leaves=False),
    Fault("LB and controller killed, controller started", kill_with(restart_controller), EACH),
    Fault("LB and keepers killed", kill_with(kill_keepers), (("keeper",), ("sockets",), ("controller", "sockets"))),
)


@dataclass(frozen=True)
class Run:
    """One fault. Times in seconds after it. `silence`: None if nothing was forwarded any more.

    noticed: when the control function began to move the external IP, by its own record; None if it did not. requests,
    failed, slow: of the external IP (slow: more than half a second). harmed: connections and requests of the other LB
    that failed.
    copied: entries that came from each copy. others: see Result.
    """

    fates: Fates
    silence: Silence | None
    noticed: float | None
    requests: int
    failed: int
    slow: int
    harmed: int
    copied: dict[str, int]
    others: float

    def told(self) -> str:
        """In one line."""
        fates = ", ".join(f"{getattr(self.fates, what)} {what}" for what in ("alive", "reset", "closed", "hung"))
        silence = f"silent {self.silence.begin:.3f} to {self.silence.end:.3f} s" if self.silence else "silent for good"
        return (
            f"{fates}; {silence}; noticed {self.noticed}; "
            f"requests: {self.failed} of {self.requests} failed, {self.slow} slow; "
            f"other LB harmed: {self.harmed}; entries from {self.copied}; others {self.others:.0%}"
        )


def run(fault: Fault, count: int, copies: Sequence[str]) -> Run:
    """The fault, with `count` established connections."""
    with Scene(_site(copies), clients=2) as scene:
        scene.start_controller()
        wait_reached(scene)
        established = Established(scene, scene.remote, FIRST, count)
        own_load = scene.load(scene.clients[0], FIRST, lines=0, requests=2)
        other_load = scene.load(scene.clients[1], SECOND, lines=5, requests=2)
        scene.wait_until(lambda: _prepared(scene), 10.0, "every LB watched, every entry copied")
        time.sleep(BEFORE)
        (begun, noticed, copied), share = watched(lambda: _strike(scene, fault), scene.namespaces)
        own, others = own_load.stop(), other_load.stop()
        fates = established.finish()
    return Run(
        fates,
        fates.silence(begun),
        noticed,
        own.succeeded + len(own.failures),
        len(own.failures),
        own.slow,
        len(others.broken) + len(others.failures),
        copied,
        share,
    )


def _site(copies: Sequence[str]) -> Site:
    """Two LBs with an external IP and two servers each; keepers only where they are needed."""
    plain = simple_site(lbs=2, external_ips=2, servers=2)
    return plain if copies == ("controller",) else with_keepers(plain, *copies)


def _prepared(scene: Scene) -> bool:
    balancers = scene.rest("GET", "/v1/load-balancers").json["load_balancers"]
    keepers = scene.rest("GET", "/v1/keepers").json["keepers"]
    return all(lb["health"] == "well" for lb in balancers) and all(keeper["synced"] for keeper in keepers)


def _strike(scene: Scene, fault: Fault) -> tuple[float, float | None, dict[str, int]]:
    """When it happened (monotonic clock), and Run's `noticed` and `copied`."""
    wall, begun = time.time(), time.monotonic()
    fault.inject(scene)
    noticed: float | None = None
    copied: dict[str, int] = {}
    if fault.leaves:
        try:
            record = scene.wait_until(lambda: _left(scene), MOVED, f"{FIRST} leaves {LB}")
            assert record is not None
            noticed = datetime.fromisoformat(record["started"]).timestamp() - wall
            copied = record.get("entries_from", {})
        except NotInTime:
            pass
    time.sleep(AFTER)
    return begun, noticed, copied


def _left(scene: Scene) -> dict[str, Any] | None:
    """The record of the move that has taken the external IP away."""
    records = scene.rest("GET", "/v1/moves").json["moves"]
    return next((record for record in records if record["external_ip"] == FIRST and record["state"] == "done"), None)
