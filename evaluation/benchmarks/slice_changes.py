"""What connections notice when the slices of a sliced service change hands: a thousand slices, under load.

Servers are drained and come back in turn. Yardstick: each slice's flow just changes
(tests/integration/naive_slices.py).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.benchmarks.scene import Scene
from evaluation.measuring.findings import Findings, Result, Unusable, median, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from lbctl.site.model import Site
from tests.bed.controller import APPS
from tests.bed.sites import EXTERNAL_NETWORK, host, simple_site, with_keepers
from tests.bed.traffic import LoadResult

SLICES = 1000
"""That change hands at least."""
LINES, WORKERS, INTERVAL = 64, 8, 0.02
"""Of each client: connections that stay open, each with a line every INTERVAL, and workers, which open one each
INTERVAL."""
CLIENTS = 3
NAIVE_APPS = ("tests/integration/naive_slices.py", *APPS)
PATIENCE = 60.0
"""Seconds for one change."""


@dataclass(frozen=True)
class Run:
    """slices: that changed hands; seconds: of each change; loads: what the clients saw; others: see Result."""

    slices: int
    seconds: Sequence[float]
    loads: Sequence[LoadResult]
    others: float

    @property
    def opened(self) -> int:
        """New connections."""
        return sum(load.succeeded + len(load.failures) for load in self.loads)

    @property
    def broken(self) -> tuple[int, int]:
        """Of those that stay open, and of new ones."""
        return sum(len(load.broken) for load in self.loads), sum(len(load.failures) for load in self.loads)


def main() -> Findings:
    """One run of each."""
    with Scene(_site(), clients=CLIENTS) as scene:
        scene.start_keepers()
        ours = _run(scene, APPS)
    with Scene(_site(), clients=CLIENTS) as scene:
        scene.start_keepers()
        naive = _run(scene, NAIVE_APPS)
    return of_results(_lines(ours, naive))


def _site() -> Site:
    plain = simple_site(lbs=1, external_ips=1, servers=3)
    return with_keepers(replace(plain, external_ips=tuple(
        replace(ip, router=host(EXTERNAL_NETWORK, 254),
                services=tuple(replace(service, entries="slices") for service in ip.services))
        for ip in plain.external_ips
    )), "sockets")


def _run(scene: Scene, apps: tuple[str, ...]) -> Run:
    scene.controller.apps = apps
    scene.start_controller()
    loads = [scene.load(client, scene.site.external_ips[0].address, lines=LINES, requests=WORKERS, interval=INTERVAL)
             for client in scene.clients]
    (slices, seconds), others = watched(lambda: _changes(scene), scene.namespaces)
    return Run(slices, seconds, [load.stop() for load in loads], others)


def _changes(scene: Scene) -> tuple[int, list[float]]:
    """How many slices changed hands, and the seconds of each change."""
    [external_ip] = scene.site.external_ips
    path = f"/v1/external-ips/{external_ip.address}"
    servers = external_ip.services[0].servers
    changed, seconds = 0, list[float]()
    for server, drained in ((server, drained) for server in itertools.cycle(servers) for drained in (True, False)):
        begun = time.monotonic()
        before = _slices(scene, path)
        scene.rest("PATCH", f"{path}/services/tcp/80/servers/{server.endpoint}", {"drained": drained})
        changed += _wait_changed(scene, path, before)
        seconds.append(time.monotonic() - begun)
        if changed >= SLICES and not drained:
            return changed, seconds
    raise AssertionError("never ends")


def _service(scene: Scene, path: str) -> dict[str, Any]:
    service: dict[str, Any] = scene.rest("GET", path).json["services"][0]
    return service


def _slices(scene: Scene, path: str) -> dict[str, int]:
    return {server["address"]: server["slices"] for server in _service(scene, path)["servers"]}


def _wait_changed(scene: Scene, path: str, before: dict[str, int]) -> int:
    """Until the slices have changed hands: how many."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        service, now = _service(scene, path), _slices(scene, path)
        if now != before and not service["slice_changes"]:
            return sum(max(0, now[server] - before[server]) for server in now)
        time.sleep(0.1)
    raise Unusable(f"slices did not change hands within {PATIENCE:g} s")


def _lines(ours: Run, naive: Run) -> list[Result]:
    broken, theirs = ours.broken, naive.broken
    return [
        _line(f"connections that stay open, of {CLIENTS * LINES}: broken while {ours.slices} slices change hands",
              f"{broken[0]}", f"{theirs[0]}", "0", ours, broken[0] == 0, "broken", broken[0], theirs[0]),
        _line(f"new connections, of {ours.opened} (yardstick: {naive.opened}): broken", f"{broken[1]}",
              f"{theirs[1]}", "0", ours, broken[1] == 0, "broken", broken[1], theirs[1]),
        _line("from the order until the slices are plain again", f"{median(ours.seconds):.1f} s, at most "
              f"{max(ours.seconds):.1f} s", "", "<= 10 s", ours, max(ours.seconds) <= 10, "seconds", *ours.seconds),
    ]


def _line(what: str, mine: str, yardstick: str, target: str, ours: Run, passed: bool, name: str,
          *values: float) -> Result:
    return Result(what, mine, yardstick, "", target, 1, ours.others, passed, {name: figure(name, list(values))})
