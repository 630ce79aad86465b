"""What connections notice when the slices of a sliced service change hands: a thousand slices, under load.

Servers are drained and come back in turn. Yardstick: each slice's flow just changes
(tests/integration/naive_slices.py). And what it costs when one server comes to ten, under many new connections.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from evaluation.benchmarks.scene import Load, Scene, wrk
from evaluation.measuring.findings import Findings, Result, Unusable, median, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from lbctl.site.model import Server, Site
from lbctl.values.slices import SLICES as OF_A_SERVICE
from tests.bed.controller import APPS
from tests.bed.sites import (
    EXTERNAL_NETWORK,
    INTERNAL_NETWORK,
    SERVER_PORT,
    host,
    simple_site,
    with_keepers,
    with_slices,
)
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
JOINED, JOIN_CLIENTS, JOIN_SECONDS, QUIET_SECONDS = 10, 2, 12.0, 3.0
"""Servers that one comes to; clients, each of which opens one connection after the other; seconds of that load, and of
these before the server comes."""
SHOWN_TARGET, PLAIN_TARGET = 1.5, 10.0
"""Packets that come to the controller, beside new connections of the slices that change hands; seconds until all is
plain again."""


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
    return of_results([*_lines(ours, naive), *_joined()])


def _site(servers: int = 3) -> Site:
    plain = simple_site(lbs=1, external_ips=1, servers=min(servers, 9))
    others = tuple(Server(host(INTERNAL_NETWORK, 11 + number), SERVER_PORT) for number in range(9, servers))
    plain = replace(plain, external_ips=tuple(
        replace(ip, services=tuple(replace(service, servers=service.servers + others) for service in ip.services))
        for ip in plain.external_ips))
    return with_keepers(with_slices(plain, router=host(EXTERNAL_NETWORK, 254)), "sockets")


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


def _joined() -> list[Result]:
    """One server comes to JOINED others."""
    with Scene(_site(JOINED + 1), clients=JOIN_CLIENTS) as scene:
        scene.start_keepers()
        scene.start_nginx()
        scene.start_controller()
        external_ip = scene.site.external_ips[0]
        path, last = f"/v1/external-ips/{external_ip.address}", external_ip.services[0].servers[-1]
        server = f"{path}/services/tcp/80/servers/{last.endpoint}"
        before = _slices(scene, path)
        scene.rest("PATCH", server, {"drained": True})
        _wait_changed(scene, path, before)

        def loaded() -> tuple[Load, int, int, float]:
            with ThreadPoolExecutor(1) as pool:
                load = pool.submit(wrk, scene.clients, f"http://{external_ip.address}/", JOIN_SECONDS, connections=1,
                                   close=True)
                time.sleep(QUIET_SECONDS)
                slices, shown, begun = _slices(scene, path), _packet_ins(scene), time.monotonic()
                scene.rest("PATCH", server, {"drained": False})
                changed, seconds = _wait_changed(scene, path, slices), time.monotonic() - begun
                shown = _packet_ins(scene) - shown
                return load.result(), changed, shown, seconds

        (load, changed, shown, seconds), others = watched(loaded, scene.namespaces)
    expected = load.per_second * seconds * changed / OF_A_SERVICE
    what = f"a server comes to {JOINED}, {load.per_second:.0f} new connections/s"
    return [
        Result(f"{what}: broken", f"{load.errors}", "", "", "0", 1, others, not load.errors,
               {"errors": figure("connections", [load.errors])}),
        Result(f"{what}: packets that come to the controller", f"{shown}",
               f"{expected:.0f} new ones in {changed} slices", f"{shown / expected:.2f}", f"<= {SHOWN_TARGET:g}", 1,
               others, shown <= SHOWN_TARGET * expected, {"shown": figure("packets", [shown])}),
        Result(f"{what}: until all slices are plain", f"{seconds:.1f} s", "", "", f"<= {PLAIN_TARGET:g} s", 1, others,
               seconds <= PLAIN_TARGET, {"seconds": figure("s", [seconds])}),
    ]


def _packet_ins(scene: Scene) -> int:
    (balancer,) = scene.rest("GET", "/v1/load-balancers").json["load_balancers"]
    return int(balancer["counters"]["packet_ins"])


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
