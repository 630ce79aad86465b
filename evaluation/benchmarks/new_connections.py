"""New connections/s, and requests/s on connections that are kept, through one LB and through HAProxy; by connection,
and by slice.

Both stand between the same clients and servers, on the same two cores, in turns. Yardstick: HAProxy in TCP mode. A
second table tells which thread of Open vSwitch, and the controller, took how much processor time for a new connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from evaluation.benchmarks.scene import HAPROXY_EXTERNAL, Load, Scene, compared, wrk
from evaluation.measuring.findings import Findings, Result, median, of_results
from evaluation.measuring.others import undisturbed
from evaluation.measuring.record import Row, Table, figure
from evaluation.measuring.usage import processor_time, thread_times
from lbctl.site.model import EntryKind
from tests.bed.sites import simple_site

CLIENTS = 8
"""Addresses: a single one would run out of ports."""
CONNECTIONS = 32
"""For each client."""
RUNS = 3
SECONDS = 5.0
WARM_UP = 1.0
NEW_TARGET, SLICED_TARGET, KEPT_TARGET = 0.5, 1.0, 1.0
CONTROLLER = "ryu-manager"
THREADS = {
    "ovs-vswitchd": "ovs-vswitchd, main thread",
    "revalidator": "ovs-vswitchd, revalidator",
    "urcu": "ovs-vswitchd, urcu",
    CONTROLLER: CONTROLLER,
}
"""Threads and processes, and how they are shown."""
ALL = "total"


def main() -> Findings:
    """Measures both kinds of load, with both kinds of entries."""
    by_connection, by_slice = _measured("connections"), _measured("slices")
    results = [
        _result("new connections", by_connection.new, NEW_TARGET),
        _result("requests, kept connections", by_connection.kept, KEPT_TARGET),
        _result("new connections, sliced", by_slice.new, SLICED_TARGET),
        _result("requests, kept connections, sliced", by_slice.kept, KEPT_TARGET),
    ]
    return of_results(results, {"processor": _processor(by_connection.new, by_slice.new)})


class Measured(NamedTuple):
    new: list[Run]
    kept: list[Run]


def _measured(entries: EntryKind) -> Measured:
    plain = simple_site(lbs=1, external_ips=1, servers=2)
    site = replace(plain, external_ips=tuple(
        replace(ip, services=tuple(replace(service, entries=entries) for service in ip.services))
        for ip in plain.external_ips
    ))
    with Scene(site, clients=CLIENTS) as scene:
        scene.start_nginx()
        scene.start_haproxy()
        scene.start_controller()
        return Measured(_in_turns(scene, close=True), _in_turns(scene, close=False))


@dataclass(frozen=True)
class Run:
    """The same load through the LB and through HAProxy, one right after the other; `others`: see Result.

    `costs`: seconds of processor time for each request through the LB, by thread of Open vSwitch and for the
    controller.
    """

    ours: Load
    haproxy: Load
    costs: Mapping[str, float]
    others: float = field(default=0.0)


def _in_turns(scene: Scene, *, close: bool) -> list[Run]:
    def both(seconds: float) -> Run:
        before = _used(scene)
        ours = _load(scene, str(scene.site.external_ips[0].address), seconds, close)
        after = _used(scene)
        requests = max(1.0, ours.per_second * seconds)
        costs = {name: (after[name] - before.get(name, 0.0)) / requests for name in after}
        return Run(ours, _load(scene, HAPROXY_EXTERNAL, seconds, close), costs)

    both(WARM_UP)
    runs = [undisturbed(lambda: both(SECONDS), scene.namespaces) for _ in range(RUNS)]
    return [Run(run.ours, run.haproxy, run.costs, others) for run, others in runs]


def _load(scene: Scene, address: str, seconds: float, close: bool) -> Load:
    return wrk(scene.clients, f"http://{address}/", seconds, connections=CONNECTIONS, close=close)


def _used(scene: Scene) -> dict[str, float]:
    """Seconds of processor time so far, by thread of the LB's ovs-vswitchd and for the controller."""
    vswitchd, controller = scene.lbs["lb-a"].ovs.vswitchd_pid, scene.controller.process
    assert vswitchd is not None and controller is not None
    return {**thread_times(vswitchd), CONTROLLER: processor_time(controller.pid)}


def _result(what: str, runs: Sequence[Run], target: float) -> Result:
    pairs = [(run.ours, run.haproxy) for run in runs]
    return compared(what, ("lbctl", "HAProxy"), pairs, [run.others for run in runs], target)


def _processor(by_connection: Sequence[Run], by_slice: Sequence[Run]) -> Table:
    """What each thread takes for a new connection, and all threads together."""
    kinds = {"by connection": by_connection, "by slice": by_slice}
    rows = []
    for name, shown in {**THREADS, ALL: "these and all other threads of the two"}.items():
        costs = {kind: [run.costs.get(name, 0.0) if name != ALL else sum(run.costs.values()) for run in runs]
                 for kind, runs in kinds.items()}
        rows.append(Row(
            cells=(shown, *(f"{median(each) * 1e6:.0f} us" for each in costs.values())),
            figures={f"{name}, {kind}": figure("s", each) for kind, each in costs.items()},
        ))
    return Table(columns=("processor time for each new connection", *kinds), rows=tuple(rows))
