"""New connections/s, and requests/s on connections that are kept, through one LB and through HAProxy; by connection,
by slice, and by slice to servers that answer clients themselves.

Both stand between the same clients and servers, on the same two cores, in turns. Yardstick: HAProxy in TCP mode. A
second table tells which thread of Open vSwitch, and the controller, took how much processor time for a new connection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from evaluation.benchmarks.scene import HAPROXY_EXTERNAL, Load, Scene, compared, wrk
from evaluation.benchmarks.static_flows import static_flows
from evaluation.measuring.findings import Findings, Result, median, of_results
from evaluation.measuring.others import undisturbed
from evaluation.measuring.record import Row, Table, figure
from evaluation.measuring.usage import processor_time, thread_times
from lbctl.site.model import EntryKind, Site
from tests.bed.direct import let_answer
from tests.bed.sites import SERVER_PORT, simple_site

CLIENTS = 8
"""Addresses: a single one would run out of ports."""
CONNECTIONS = 32
"""For each client."""
RUNS = 5
SECONDS = 5.0
WARM_UP = 1.0
NEW_TARGET, SLICED_TARGET, DIRECT_TARGET, KEPT_TARGET = 0.5, 1.0, 1.15, 1.0
GAIN_TARGET, STATIC_TARGET, SPENT_TARGET = 3.0, 0.95, 0.85
"""Of slices: beside entries by connection; beside flows by hand; of ovs-vswitchd's time for a connection, to servers
that answer themselves beside the others."""
CONTROLLER = "ryu-manager"
THREADS = {
    "ovs-vswitchd": "ovs-vswitchd, main thread",
    "revalidator": "ovs-vswitchd, revalidator",
    "urcu": "ovs-vswitchd, urcu",
    CONTROLLER: CONTROLLER,
}
"""Threads and processes, and how they are shown."""
ALL = "total"
BY_CONNECTION, BY_SLICE, DIRECT = KINDS = "by connection", "by slice", "by slice, direct server return"


def main() -> Findings:
    """Measures both kinds of load, with all kinds of entries."""
    by_connection, by_slice, direct = (_measured(site_of(kind)) for kind in KINDS)
    results = [
        _result("new connections", by_connection.new, NEW_TARGET),
        _result("requests, kept connections", by_connection.kept, KEPT_TARGET),
        _result("new connections, sliced", by_slice.new, SLICED_TARGET),
        _result("requests, kept connections, sliced", by_slice.kept, KEPT_TARGET),
        _result("new connections, direct server return", direct.new, DIRECT_TARGET),
        _result("requests, kept connections, direct server return", direct.kept, KEPT_TARGET),
        _gain(by_slice.new, by_connection.new),
        _beside_static(by_slice.new),
        _spent(direct.new, by_slice.new),
    ]
    of_new = dict(zip(KINDS, (by_connection.new, by_slice.new, direct.new), strict=True))
    return of_results(results, {"processor": _processor(of_new)})


class Measured(NamedTuple):
    new: list[Run]
    kept: list[Run]


def site_of(kind: str) -> Site:
    """kind: one of KINDS."""
    direct = kind == DIRECT
    plain = simple_site(lbs=1, external_ips=1, servers=2, ports={SERVER_PORT: SERVER_PORT} if direct else None)
    entries: EntryKind = "connections" if kind == BY_CONNECTION else "slices"
    return replace(plain, external_ips=tuple(
        replace(ip, nat="none" if direct else ip.nat,
                services=tuple(replace(service, entries=entries) for service in ip.services))
        for ip in plain.external_ips
    ))


def _measured(site: Site) -> Measured:
    with Scene(site, clients=CLIENTS, prepare=let_answer) as scene:
        scene.start_nginx()
        scene.start_haproxy()
        scene.start_controller()
        return Measured(_in_turns(scene, close=True), _in_turns(scene, close=False))


def _is_plainly_sliced(scene: Scene) -> bool:
    (external_ip,) = scene.site.external_ips
    return not external_ip.direct and external_ip.services[0].sliced


@dataclass(frozen=True)
class Run:
    """The same load through the LB, HAProxy, and flows by hand (not always), one right after the other; `others`: see
    Result.

    `costs`: seconds of processor time for each request through the LB, by thread of Open vSwitch and for the
    controller.
    """

    ours: Load
    haproxy: Load
    costs: Mapping[str, float]
    static: Load | None
    others: float = field(default=0.0)


def _in_turns(scene: Scene, *, close: bool) -> list[Run]:
    def both(seconds: float) -> Run:
        before = _used(scene)
        external_ip = scene.site.external_ips[0]
        ours = _load(scene, f"{external_ip.address}:{external_ip.services[0].port}", seconds, close)
        after = _used(scene)
        requests = max(1.0, ours.per_second * seconds)
        costs = {name: (after[name] - before.get(name, 0.0)) / requests for name in after}
        haproxy, static = _load(scene, HAPROXY_EXTERNAL, seconds, close), None
        if close and _is_plainly_sliced(scene):
            with static_flows(scene, str(external_ip.address)):
                static = _load(scene, str(external_ip.address), seconds, close)
        return Run(ours, haproxy, costs, static)

    both(WARM_UP)
    runs = [undisturbed(lambda: both(SECONDS), scene.namespaces) for _ in range(RUNS)]
    return [replace(run, others=others) for run, others in runs]


def _load(scene: Scene, place: str, seconds: float, close: bool) -> Load:
    return wrk(scene.clients, f"http://{place}/", seconds, connections=CONNECTIONS, close=close)


def _used(scene: Scene) -> dict[str, float]:
    """Seconds of processor time so far, by thread of the LB's ovs-vswitchd and for the controller."""
    vswitchd, controller = scene.lbs["lb-a"].ovs.vswitchd_pid, scene.controller.process
    assert vswitchd is not None and controller is not None
    return {**thread_times(vswitchd), CONTROLLER: processor_time(controller.pid)}


def _result(what: str, runs: Sequence[Run], target: float) -> Result:
    pairs = [(run.ours, run.haproxy) for run in runs]
    return compared(what, ("lbctl", "HAProxy"), pairs, [run.others for run in runs], target)


def _gain(ours: Sequence[Run], before: Sequence[Run]) -> Result:
    """What slices are worth."""
    pairs = [(run.ours, other.ours) for run, other in zip(ours, before, strict=True)]
    others = [run.others for run in (*ours, *before)]
    return compared("sliced, beside entries by connection", ("sliced", "by connection"), pairs, others, GAIN_TARGET)


def _beside_static(sliced: Sequence[Run]) -> Result:
    """What the pipeline costs."""
    pairs = [(run.ours, run.static) for run in sliced if run.static]
    return compared("sliced, beside flows by hand", ("sliced", "flows by hand"), pairs, [run.others for run in sliced],
                    STATIC_TARGET)


def _spent(direct: Sequence[Run], sliced: Sequence[Run]) -> Result:
    """What half of the packets spares Open vSwitch."""
    ours, theirs = ([sum(cost for name, cost in run.costs.items() if name != CONTROLLER) for run in runs]
                    for runs in (direct, sliced))
    ratio = median(ours) / median(theirs)
    return Result(
        "Open vSwitch's time for a new connection, direct server return", f"{median(ours) * 1e6:.0f} us",
        f"sliced {median(theirs) * 1e6:.0f} us", f"{ratio:.2f}", f"<= {SPENT_TARGET:g}", len(direct),
        max(run.others for run in (*direct, *sliced)), ratio <= SPENT_TARGET,
        {"direct": figure("s", ours), "sliced": figure("s", theirs)},
    )


def _processor(kinds: Mapping[str, Sequence[Run]]) -> Table:
    """What each thread takes for a new connection, and all threads together."""
    rows = []
    for name, shown in {**THREADS, ALL: "these and all other threads of the two"}.items():
        costs = {kind: [run.costs.get(name, 0.0) if name != ALL else sum(run.costs.values()) for run in runs]
                 for kind, runs in kinds.items()}
        rows.append(Row(
            cells=(shown, *(f"{median(each) * 1e6:.0f} us" for each in costs.values())),
            figures={f"{name}, {kind}": figure("s", each) for kind, each in costs.items()},
        ))
    return Table(columns=("processor time for each new connection", *kinds), rows=tuple(rows))
