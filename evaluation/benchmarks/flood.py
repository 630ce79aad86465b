"""A flood of SYNs at one external IP: what its own clients notice, and those of another external IP of the same LB.

During the flood the other external IP moves to another LB and back. Yardstick: HAProxy in the same place under the same
flood, which answers two ports of one address.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from evaluation.benchmarks.scene import HAPROXY_EXTERNAL, HAPROXY_OTHER_PORT, Scene
from evaluation.measuring.findings import Findings, Result, milliseconds, of_results, percent
from evaluation.measuring.others import watched
from evaluation.measuring.record import Figure, figure
from evaluation.measuring.usage import resident
from lbctl.site.model import EntryKind, Site
from tests.bed.sites import EXTERNAL_NETWORK, host, simple_site
from tests.bed.traffic import LoadResult, Script

RATE, SECONDS, AFTERWARDS = 20_000, 60.0, 60.0
"""SYNs/s, how long, and how long after its end everything is looked at again."""
WORKERS, INTERVAL, LINES = 20, 1.0, 10
"""Each client has so many workers, which open a connection every INTERVAL; the other external IP's has LINES besides,
connections that stay open."""
TARGET = 0.99
"""The share of the other external IP's requests that are to be answered."""
LEFT, GROWN, SHOWN = 100, 100, 1000
"""Entries that may be left AFTERWARDS (the clients' own), and MB that the controller may have grown by; of a flood of
sliced services, packets that may come to it (ARP, and from clients that it has not met)."""
SOURCES = "203.0.113.0/24"
"""Of the flood (tests/bed/syn_flood.py)."""

Place = tuple[str, int]


@dataclass(frozen=True)
class Flooded:
    """What clients of the attacked place and of the other one saw during a flood of so many SYNs/s; `others`: see
    Result."""

    attacked: LoadResult
    other: LoadResult
    rate: float
    others: float


@dataclass(frozen=True)
class Ours:
    """What is known of lbctl besides.

    talks: of the other external IP's connections that stayed open; entries: at the end of the flood, and AFTERWARDS;
    shown: packets that came to the controller during the flood; grown: bytes of memory that it had more at the end.
    """

    flooded: Flooded
    moves: list[dict[str, Any]]
    talks: LoadResult
    entries: tuple[int, int]
    shown: int
    grown: int


def main() -> Findings:
    """One flood of each, and one of sliced services."""
    with Scene(_site("connections"), clients=3) as scene:
        scene.start_haproxy()
        scene.start_controller()
        by_connection = _ours(scene)
        haproxy = _haproxys(scene)
    with Scene(_site("slices"), clients=3) as scene:
        scene.start_controller()
        by_slice = _ours(scene)
    return of_results([
        *_lines(by_connection, haproxy, "", {"other": TARGET}), _left(by_connection),
        *_lines(by_slice, haproxy, "sliced: ", {"other": TARGET, "attacked": TARGET}), _shown(by_slice),
    ])


def _site(entries: EntryKind) -> Site:
    """Both external IPs on the first LB."""
    plain = simple_site(lbs=2, external_ips=2, servers=2)
    return replace(plain, external_ips=tuple(
        replace(ip, load_balancer="lb-a", router=host(EXTERNAL_NETWORK, 254) if entries == "slices" else None,
                services=tuple(replace(each, entries=entries) for each in ip.services))
        for ip in plain.external_ips
    ))


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
    shown = _packet_ins(scene)
    flooded = _flooded(scene, (attacked, 80), (other, 80), mac, meanwhile)
    entries, shown, grown = _entries(scene), _packet_ins(scene) - shown, resident(controller.pid) - before
    time.sleep(AFTERWARDS)
    return Ours(flooded, moves, talks.stop(), (entries, _entries(scene)), shown, grown)


def _haproxys(scene: Scene) -> Flooded:
    """Its answers to the flood go to the attacker, as ours do."""
    shown = json.loads(scene.clients[2].ip("-json", "-4", "addr", "show", "dev", "eth0"))
    scene.haproxy.ip("route", "add", SOURCES, "via", shown[0]["addr_info"][0]["local"])
    places = (HAPROXY_EXTERNAL, 80), (HAPROXY_EXTERNAL, HAPROXY_OTHER_PORT)
    return _flooded(scene, *places, scene.haproxy.mac("eth0"), lambda: None)


def _flooded(scene: Scene, attacked: Place, other: Place, mac: str, meanwhile: Callable[[], None]) -> Flooded:
    """mac: where the flood goes. meanwhile: what is done while it comes."""
    loads = [
        scene.load(client, address, port, requests=WORKERS, interval=INTERVAL)
        for client, (address, port) in zip(scene.clients, (attacked, other), strict=False)
    ]

    def flood() -> float:
        log = scene.directory / "flood.log"
        script = Script(scene.clients[2], log, "syn_flood.py", "eth0", mac, *attacked, RATE, SECONDS)
        meanwhile()
        sent = json.loads(script.process.communicate(timeout=2 * SECONDS)[0])
        return sent["sent"] / sent["seconds"]

    rate, others = watched(flood, scene.namespaces)
    return Flooded(loads[0].stop(), loads[1].stop(), rate, others)


def _entries(scene: Scene) -> int:
    """Those by connection."""
    return sum(ip["connections"] or 0 for ip in scene.rest("GET", "/v1/external-ips").json["external_ips"])


def _packet_ins(scene: Scene) -> int:
    return sum(lb["counters"]["packet_ins"] for lb in scene.rest("GET", "/v1/load-balancers").json["load_balancers"])


def _lines(ours: Ours, haproxy: Flooded, kind: str, targets: Mapping[str, float]) -> list[Result]:
    both = f"{kind}flood of {ours.flooded.rate:,.0f} SYNs/s".replace(",", " ")
    lines = []
    for who in ("other", "attacked"):
        target = targets.get(who)
        mine, theirs = getattr(ours.flooded, who), getattr(haproxy, who)
        share = _answered(mine)
        lines.append(_line(
            f"{both}: requests of the {who} address that are answered", _text(mine), f"HAProxy {_text(theirs)}",
            f">= {target:.0%}" if target else "", ours, target is None or share >= target,
            {"lbctl": figure("share", [share]), "HAProxy": figure("share", [_answered(theirs)])},
        ))
    done = [move["state"] for move in ours.moves]
    lost = sum(move["packets_lost"] for move in ours.moves)
    lines += [
        _line(
            f"{kind}the other external IP moves there and back meanwhile",
            f"{', '.join(done)}; {lost} packets lost, {len(ours.talks.broken)} of {LINES} connections broken, longest "
            f"gap {milliseconds(ours.talks.longest_gap)}",
            "", "done, nothing lost", ours,
            done == ["done", "done"] and not lost and not ours.talks.broken,
            {"gap": figure("s", [ours.talks.longest_gap])},
        ),
        _line(
            f"{kind}the controller's memory grows by", f"{ours.grown / 1e6:.0f} MB", "", f"<= {GROWN} MB", ours,
            ours.grown <= GROWN * 1e6, {"grown": figure("bytes", [ours.grown])},
        ),
    ]
    return lines


def _left(ours: Ours) -> Result:
    """Of it, at its end and later."""
    return _line(
        f"entries at its end, and {AFTERWARDS:g} s later", f"{ours.entries[0]}, {ours.entries[1]}", "",
        f"<= {LEFT} later", ours, ours.entries[1] <= LEFT,
        {"at the end": figure("entries", [ours.entries[0]]), "later": figure("entries", [ours.entries[1]])},
    )


def _shown(ours: Ours) -> Result:
    """To the controller: the moves' own, and the neighbours' ARP, but nothing of the flood."""
    return _line(
        "sliced: packets that come to the controller", f"{ours.shown}", "", f"<= {SHOWN}", ours, ours.shown <= SHOWN,
        {"shown": figure("packets", [ours.shown])},
    )


def _line(
    what: str, mine: str, yardstick: str, target: str, ours: Ours, passed: bool, figures: Mapping[str, Figure]
) -> Result:
    return Result(what, mine, yardstick, "", target, 1, ours.flooded.others, passed, figures)


def _answered(load: LoadResult) -> float:
    """The share of requests that were answered, sooner or later (a client gives up after 20 s)."""
    return load.succeeded / max(1, load.succeeded + len(load.failures))


def _text(load: LoadResult) -> str:
    asked = max(1, load.succeeded + len(load.failures))
    return f"{percent(_answered(load))} of {asked}, {percent(load.slow / asked)} after more than 0.5 s"
