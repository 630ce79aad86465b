"""New connections/s, and requests/s on connections that are kept, through one LB and through HAProxy.

Both stand between the same clients and servers, on the same two cores, in turns. Yardstick: HAProxy in TCP mode.
"""

from __future__ import annotations

from benchmarks.results import Result, median, per_second
from benchmarks.scene import HAPROXY_EXTERNAL, Load, Scene, wrk

CLIENTS = 8
"""Addresses: a single one would run out of ports."""
CONNECTIONS = 8
"""For each client."""
RUNS = 3
SECONDS = 5.0
NEW_TARGET, KEPT_TARGET = 0.5, 1.0


def main() -> list[Result]:
    """Measures, and returns two lines of the table."""
    with Scene(lbs=1, external_ips=1, servers=2, clients=CLIENTS) as scene:
        scene.start_nginx()
        scene.start_haproxy()
        scene.start_controller()
        new = _in_turns(scene, close=True)
        kept = _in_turns(scene, close=False)
    return [_result("new connections", *new, NEW_TARGET), _result("requests, kept connections", *kept, KEPT_TARGET)]


def _in_turns(scene: Scene, *, close: bool) -> tuple[list[Load], list[Load]]:
    ours: list[Load] = []
    haproxy: list[Load] = []
    addresses = ((ours, str(scene.site.external_ips[0].address)), (haproxy, HAPROXY_EXTERNAL))
    for _, address in addresses:
        wrk(scene.clients, f"http://{address}/", 1.0, connections=CONNECTIONS, close=close)
    for _ in range(RUNS):
        for loads, address in addresses:
            loads.append(wrk(scene.clients, f"http://{address}/", SECONDS, connections=CONNECTIONS, close=close))
    return ours, haproxy


def _result(what: str, ours: list[Load], haproxy: list[Load], target: float) -> Result:
    mine, yardstick = (median([load.per_second for load in loads]) for loads in (ours, haproxy))
    errors = sum(load.errors for load in ours)
    shown = per_second(mine) + (f", {errors} errors" if errors else "")
    ratio = mine / yardstick
    return Result(what, shown, f"HAProxy {per_second(yardstick)}", f"{ratio:.2f}", f">= {target:g}", RUNS,
                  ratio >= target and not errors)


if __name__ == "__main__":
    from benchmarks.results import table

    print(table(main()))
