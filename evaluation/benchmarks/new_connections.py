"""New connections/s, and requests/s on connections that are kept, through one LB and through HAProxy.

Both stand between the same clients and servers, on the same two cores, in turns. Yardstick: HAProxy in TCP mode.
"""

from __future__ import annotations

from dataclasses import dataclass

from evaluation.measuring.others import undisturbed
from evaluation.measuring.findings import Result, median, per_second
from evaluation.benchmarks.scene import HAPROXY_EXTERNAL, Load, Scene, wrk

CLIENTS = 8
"""Addresses: a single one would run out of ports."""
CONNECTIONS = 32
"""For each client."""
RUNS = 3
SECONDS = 5.0
WARM_UP = 1.0
NEW_TARGET, KEPT_TARGET = 0.5, 1.0


def main() -> list[Result]:
    """Measures, and returns two lines of the table."""
    with Scene(lbs=1, external_ips=1, servers=2, clients=CLIENTS) as scene:
        scene.start_nginx()
        scene.start_haproxy()
        scene.start_controller()
        new = _in_turns(scene, close=True)
        kept = _in_turns(scene, close=False)
    return [_result("new connections", new, NEW_TARGET), _result("requests, kept connections", kept, KEPT_TARGET)]


@dataclass(frozen=True)
class Run:
    """The same load through the LB and through HAProxy, one right after the other; `others`: see Result."""

    ours: Load
    haproxy: Load
    others: float


def _in_turns(scene: Scene, *, close: bool) -> list[Run]:
    addresses = (str(scene.site.external_ips[0].address), HAPROXY_EXTERNAL)

    def both(seconds: float) -> list[Load]:
        return [wrk(scene.clients, f"http://{address}/", seconds, connections=CONNECTIONS, close=close) for address in addresses]

    both(WARM_UP)
    runs = [undisturbed(lambda: both(SECONDS), scene.namespaces) for _ in range(RUNS)]
    return [Run(*loads, others) for loads, others in runs]


def _result(what: str, runs: list[Run], target: float) -> Result:
    ours, yardstick = median([run.ours.per_second for run in runs]), median([run.haproxy.per_second for run in runs])
    errors = sum(run.ours.errors for run in runs)
    shown = per_second(ours) + (f", {errors} errors" if errors else "")
    ratio = ours / yardstick
    return Result(what, shown, f"HAProxy {per_second(yardstick)}", f"{ratio:.2f}", f">= {target:g}", len(runs),
                  max(run.others for run in runs), ratio >= target and not errors)


if __name__ == "__main__":
    from evaluation.measuring.findings import table

    print(table(main()))
