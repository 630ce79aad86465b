"""What checking 1 000 servers costs the controller and the LB's Open vSwitch, on a bed where nothing else happens.

The servers are ports of a few hosts; each is checked every 2 s over the data path. Beside it, the same bed without
checks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluation.measuring.findings import Findings, Result, Unusable, median, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from evaluation.measuring.usage import processor_time
from lbctl.site.model import HealthCheck, Server, Site
from tests.bed.bed import Bed, running_bed
from tests.bed.sites import simple_site

SERVERS, HOSTS, INTERVAL = 1000, 8, 2.0
SECONDS, RUNS = 10.0, 3
SETTLES = 3.0
"""Seconds after another site file: the first checks' flows are new to the datapath."""
KINDS = {"TCP": (HealthCheck("tcp", INTERVAL), 0.05), "HTTP": (HealthCheck("http", INTERVAL), 0.08)}
"""With the target: the share of one core that the controller may take more than without checks.

An answer to HTTP is three packets or more.
"""


@dataclass(frozen=True)
class Used:
    """Shares of one core, for each run, that the controller and the serving LB's ovs-vswitchd take.

    `others`: see Result.
    """

    controller: Sequence[float]
    switch: Sequence[float]
    others: float


def main() -> Findings:
    """Measures without checks, and with each kind of them."""
    with running_bed(_site(None), clients=1) as bed:
        idle = _run(bed, None)
        found = []
        for name, (check, target) in KINDS.items():
            busy = _run(bed, check)
            found += _lines(name, busy, idle, target)
        return of_results(found)


def _lines(name: str, busy: Used, idle: Used, target: float) -> list[Result]:
    """The controller, for which there is a target, and Open vSwitch."""
    controller, without = median(busy.controller), median(idle.controller)
    switch, switch_without = median(busy.switch), median(idle.switch)
    others = max(busy.others, idle.others)
    return [
        Result(
            f"controller, {SERVERS} servers checked by {name} every {INTERVAL:g} s",
            f"{controller:.1%} of a core",
            f"no checks {without:.1%}",
            "",
            f"<= {target:.0%} more",
            RUNS,
            others,
            controller - without <= target,
            {"checks": figure("cores", busy.controller), "no checks": figure("cores", idle.controller)},
        ),
        Result(
            f"the same, Open vSwitch ({name})",
            f"{switch:.1%} of a core",
            f"no checks {switch_without:.1%}",
            "",
            "",
            RUNS,
            others,
            True,
            {"checks": figure("cores", busy.switch), "no checks": figure("cores", idle.switch)},
        ),
    ]


def _site(check: HealthCheck | None) -> Site:
    plain = simple_site(lbs=2, external_ips=1, servers=HOSTS)
    [ip] = plain.external_ips
    [service] = ip.services
    servers = tuple(
        Server(service.servers[number % HOSTS].address, 8080 + number // HOSTS) for number in range(SERVERS)
    )
    checked = replace(service, servers=servers, health_check=check)
    return replace(plain, external_ips=(replace(ip, services=(checked,)),))


def _run(bed: Bed, check: HealthCheck | None) -> Used:
    """Some runs with these checks, or without."""
    bed.controller.reload(_site(check))
    time.sleep(SETTLES)
    before, begun = _passed(bed), time.monotonic()
    controller, switch = bed.controller.process, bed.lbs["lb-a"].ovs.vswitchd_pid
    assert controller is not None and switch is not None
    pids = [controller.pid, switch]
    spaces = [bed.lbs["lb-a"].space.path, bed.controller.space.path, *(space.path for space in bed.servers)]
    runs, shares = [], []
    for _ in range(RUNS):
        used, share = watched(lambda: _used(pids), spaces)
        runs.append(used)
        shares.append(share)
    rate = (_passed(bed) - before) / (time.monotonic() - begun)
    if check and rate < 0.95 * SERVERS / INTERVAL:
        raise Unusable(
            f"only {rate:.0f} checks of {SERVERS / INTERVAL:.0f} passed in a second; is the machine too busy?"
        )
    of_controller, of_switch = zip(*runs, strict=True)
    return Used(of_controller, of_switch, max(shares))


def _passed(bed: Bed) -> float:
    lines = bed.rest("GET", "/metrics").text.splitlines()
    passed = 'lbctl_health_checks_total{result="passed"}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(passed))


def _used(pids: list[int]) -> list[float]:
    """The share of one core that each process takes during SECONDS."""
    begun, before = time.monotonic(), [processor_time(pid) for pid in pids]
    time.sleep(SECONDS)
    elapsed = time.monotonic() - begun
    return [(processor_time(pid) - used) / elapsed for pid, used in zip(pids, before, strict=True)]
