"""How long an order about servers takes the controller: packets of new connections wait meanwhile.

The controller is as in evaluation/benchmarks/capacity.py, with fewer LBs and more servers. A time is that of the whole
REST request, with the order saved on disk. Yardstick: a request that only reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from evaluation.benchmarks.capacity import controlled, site
from evaluation.measuring.findings import Findings, Result, Unusable, median, milliseconds, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from tests.bed.controller import Controller

LBS, SERVERS, SIZES = 8, 10, (100, 1000)
ROUNDS = 7
FIRST_NEW = IPv4Address("10.200.0.1")
READ = "a server is read"
Order = tuple[str, str, str, dict[str, Any] | None]
"""What it is, method, path below the service's servers, body."""


def main() -> Findings:
    """Measures every kind of order, on a small and on a large site."""
    return of_results([line for size in SIZES for line in _lines(size)])


def _lines(size: int) -> list[Result]:
    with controlled(site(LBS, size, SERVERS)) as (controller, loaded, _):
        times, others = watched(lambda: _measured(controller), [loaded.space.path])
    return [_line(what, size, took, times[READ], others) for what, took in times.items() if what != READ]


def _measured(controller: Controller) -> dict[str, list[float]]:
    """Seconds of each round, by what was ordered."""
    address = controller.rest("GET", "/v1/external-ips").json["external_ips"][0]["address"]
    servers = f"/v1/external-ips/{address}/services/tcp/80/servers"
    found: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for what, method, path, body in _orders(str(FIRST_NEW + number)):
            seconds = _timed(lambda: controller.rest(method, servers + path, body).status)  # noqa: B023
            found.setdefault(what, []).append(seconds)
    return found


def _orders(address: str) -> list[Order]:
    """What becomes of one server, from its coming to its going."""
    path = f"/{address}:80"
    return [
        ("a server comes", "POST", "", {"address": address, "port": 80}),
        (READ, "GET", path, None),
        ("a server's weight or limit changes", "PATCH", path, {"weight": 2, "max_connections": 100}),
        ("a server is drained", "PATCH", path, {"drained": True}),
        ("a server goes", "DELETE", path, None),
    ]


def _timed(order: Callable[[], int]) -> float:
    begun = time.perf_counter()
    status = order()
    if status not in (200, 201):
        raise Unusable(f"an order was answered with status {status}")
    return time.perf_counter() - begun


def _line(what: str, size: int, took: list[float], reading: list[float], others: float) -> Result:
    shown = f"{milliseconds(median(took))} (worst {milliseconds(max(took))})"
    return Result(
        f"{what}; {size} external IPs of {SERVERS} servers, {LBS} LBs",
        shown,
        f"{READ} {milliseconds(median(reading))}",
        "",
        "",
        ROUNDS,
        others,
        True,
        {"order": figure("s", took), "reading": figure("s", reading)},
    )
