"""What checking 1 000 servers costs the controller and the LB's Open vSwitch, on a bed where nothing else happens.

The servers are ports of a few hosts; each is checked every 2 s over the data path. Beside it, the same bed without checks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

from evaluation.measuring.others import watched
from evaluation.measuring.findings import Result
from evaluation.measuring.usage import processor_time
from lbctl.site.model import HealthCheck, Server, Site
from tests.bed.bed import Bed, running_bed
from tests.bed.sites import simple_site

SERVERS, HOSTS, INTERVAL = 1000, 8, 2.0
SECONDS, RUNS = 10.0, 3
SETTLES = 3.0
"""Seconds after another site file: the first checks' flows are new to the datapath."""
KINDS = {"TCP": (HealthCheck("tcp", INTERVAL), 0.05), "HTTP": (HealthCheck("http", INTERVAL), 0.08)}
"""With the target: shares of one core that the controller may take more than without checks. An answer to HTTP is three packets or more."""


def main() -> list[Result]:
    with running_bed(_site(None), clients=1) as bed:
        idle, others = _run(bed, None)
        found = []
        for name, (check, target) in KINDS.items():
            busy, share = _run(bed, check)
            more = busy[0] - idle[0]
            found.append(Result(f"controller, {SERVERS} servers checked by {name} every {INTERVAL:g} s", f"{busy[0]:.1%} of a core",
                                f"no checks {idle[0]:.1%}", "", f"<= {target:.0%} more", RUNS, max(share, others), more <= target))
            found.append(Result(f"the same, Open vSwitch ({name})", f"{busy[1]:.1%} of a core", f"no checks {idle[1]:.1%}", "", "",
                                RUNS, max(share, others), True))
        return found


def _site(check: HealthCheck | None) -> Site:
    plain = simple_site(lbs=2, external_ips=1, servers=HOSTS)
    [ip] = plain.external_ips
    [service] = ip.services
    servers = tuple(Server(service.servers[number % HOSTS].address, 8080 + number // HOSTS) for number in range(SERVERS))
    return replace(plain, external_ips=(replace(ip, services=(replace(service, servers=servers, health_check=check),)),))


def _run(bed: Bed, check: HealthCheck | None) -> tuple[list[float], float]:
    """Shares of a core that the controller and the serving LB's ovs-vswitchd take, and what others took of the machine."""
    bed.controller.reload(_site(check))
    time.sleep(SETTLES)
    before = _passed(bed)
    pids = [bed.controller.process.pid, bed.lbs["lb-a"].ovs.vswitchd_pid]
    spaces = [bed.lbs["lb-a"].space.path, bed.controller.space.path, *(space.path for space in bed.servers)]
    runs, shares = [], []
    for _ in range(RUNS):
        used, share = watched(lambda: _used(pids), spaces)
        runs.append(used)
        shares.append(share)
    if check:
        rate = (_passed(bed) - before) / (RUNS * SECONDS)
        assert rate > 0.95 * SERVERS / INTERVAL, f"only {rate:.0f} checks/s passed"
    return [median(column) for column in zip(*runs, strict=True)], max(shares)


def _passed(bed: Bed) -> float:
    lines = bed.rest("GET", "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('lbctl_health_checks_total{result="passed"}'))


def _used(pids: list[int]) -> list[float]:
    """Of each process, during SECONDS."""
    begun, before = time.monotonic(), [processor_time(pid) for pid in pids]
    time.sleep(SECONDS)
    elapsed = time.monotonic() - begun
    return [(processor_time(pid) - used) / elapsed for pid, used in zip(pids, before, strict=True)]


if __name__ == "__main__":
    from evaluation.measuring.findings import table

    print(table(main()))
