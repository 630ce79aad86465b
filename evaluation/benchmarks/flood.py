"""A flood of SYNs at one external IP: what its own clients notice, and those of another external IP of the same LB.

During the flood the other external IP moves to another LB and back. Yardstick: HAProxy in the same place under the same
flood, which answers two ports of one address.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from evaluation.benchmarks.scene import HAPROXY_EXTERNAL, HAPROXY_OTHER_PORT, Scene
from evaluation.measuring.findings import Findings, Result, milliseconds, of_results, percent
from evaluation.measuring.record import figure
from evaluation.measuring.usage import resident
from lbctl.site.model import Site
from tests.bed.sites import simple_site
from tests.bed.traffic import Load, LoadResult, Script

RATE, SECONDS, AFTERWARDS = 20_000, 60.0, 60.0
"""SYNs/s, how long, and how long after its end everything is looked at again."""
WORKERS, INTERVAL, LINES = 20, 1.0, 10
"""Each client has so many workers, which open a connection every INTERVAL; the other external IP's has LINES that stay
open besides."""
PROMPT = 0.99
"""The share of the other external IP's requests that are to be answered within half a second."""
LEFT = 100
"""Entries that may be there a minute later: the clients' own."""


@dataclass(frozen=True)
class Flooded:
    """What clients of the attacked address and of the other one saw during a flood of so many SYNs/s."""

    attacked: LoadResult
    other: LoadResult
    rate: float


def main() -> Findings:
    """One flood of each."""
    with Scene(_site(), clients=3) as scene:
        scene.start_haproxy()
        scene.start_controller()
        lines = _ours(scene)
        return of_results(_beside(lines, _haproxys(scene)))


def _site() -> Site:
    """Both external IPs on the first LB."""
    plain = simple_site(lbs=2, external_ips=2, servers=2)
    return replace(plain, external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in plain.external_ips))


@dataclass(frozen=True)
class Ours:
    """What is known of lbctl besides."""

    flooded: Flooded
    moves: list[dict[str, Any]]
    talks: LoadResult
    """Of connections of the other external IP that were open all the time."""
    entries: int
    """At the end of the flood."""
    entries_later: int
    grown: int
    """Bytes by which the controller's memory has grown."""


def _ours(scene: Scene) -> Ours:
    attacked, other = (str(ip.address) for ip in scene.site.external_ips)
    controller, switch = scene.controller.process, scene.lbs["lb-a"]
    assert controller is not None
    before = resident(controller.pid)
    talks = scene.load(scene.clients[1], other, lines=LINES)
    moves: list[dict[str, Any]] = []

    def meanwhile() -> None:
        for target in ("lb-b", "lb-a"):
            time.sleep(SECONDS / 4)
            moves.append(scene.move(other, target))

    mac = switch.space.mac(switch.lb.external_port)
    flooded = _flooded(scene, (attacked, 80), (other, 80), mac, meanwhile)
    entries, grown = _entries(scene), resident(controller.pid) - before
    time.sleep(AFTERWARDS)
    return Ours(flooded, moves, talks.stop(), entries, _entries(scene), grown)


def _haproxys(scene: Scene) -> Flooded:
    attacker = scene.clients[2]
    [address] = [line.split()[3].partition("/")[0] for line in attacker.ip("-o", "-4", "addr", "show", "dev", "eth0").splitlines()]
    scene.haproxy.ip("route", "add", "203.0.113.0/24", "via", address)
    place = HAPROXY_EXTERNAL, 80
    return _flooded(scene, place, (HAPROXY_EXTERNAL, HAPROXY_OTHER_PORT), scene.haproxy.mac("eth0"), lambda: None)


def _flooded(scene, attacked, other, mac, meanwhile) -> Flooded:
    loads = [scene.load(client, *place, requests=WORKERS, interval=INTERVAL)
             for client, place in zip(scene.clients, (attacked, other), strict=False)]
    flood = Script(scene.clients[2], scene.directory / "flood.log", "syn_flood.py", "eth0", mac, *attacked, RATE, SECONDS)
    meanwhile()
    output, _ = flood.process.communicate()
    sent = json.loads(output)
    attacked_saw, other_saw = (load.stop() for load in loads)
    return Flooded(attacked_saw, other_saw, sent["sent"] / sent["seconds"])


def _entries(scene: Scene) -> int:
    return sum(ip["connections"] for ip in scene.rest("GET", "/v1/external-ips").json["external_ips"])
