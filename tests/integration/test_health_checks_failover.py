"""A server is not down because its LB is: with one failed check to make a server down, LBs die, hang and are cut off,
and none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lbctl.site.model import HealthCheck, Site
from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.sites import simple_site
from tests.bed.traffic import request
from tests.integration.failing import SETTINGS, begin, failover_of
from tests.integration.hands import metric
from tests.integration.moving import FIRST, Talks

CHECK = HealthCheck("http", interval=1.0, timeout=1.0, rise=1, fall=1)


def site() -> Site:
    plain = simple_site(lbs=3, external_ips=4, settings=SETTINGS)
    return replace(
        plain,
        external_ips=tuple(
            replace(ip, services=tuple(replace(service, health_check=CHECK) for service in ip.services))
            for ip in plain.external_ips
        ),
    )


BED = {"site": site()}
FAULTS: dict[str, Callable[[Bed], None]] = {
    "killed": lambda bed: faults.kill(bed, "lb-a"),
    "hung": lambda bed: faults.freeze(bed, "lb-a"),
    "cut off outside": lambda bed: faults.cut_silently(bed, "lb-a", "external"),
    "cut off inside": lambda bed: faults.cut_silently(bed, "lb-a", "internal"),
    "unplugged inside": lambda bed: faults.cut(bed, "lb-a", "internal"),
    "without its controller": lambda bed: faults.cut(bed, "lb-a", "management"),
}


def passed(bed: Bed) -> float:
    return metric(bed, 'lbctl_health_checks_total{result="passed"}')


@pytest.mark.parametrize("fault", FAULTS)
def test_no_server_goes_down_with_its_lb(quiet_bed: Bed, fault: str) -> None:
    begin(quiet_bed)
    quiet_bed.wait_until(lambda: passed(quiet_bed) > 20, 10, "checks go on")
    begun = quiet_bed.controller.log_tail(1_000_000).count("server down")
    with Talks(quiet_bed.clients[0], FIRST, 4) as talks:
        FAULTS[fault](quiet_bed)
        try:
            failover_of(quiet_bed)
            before = passed(quiet_bed)
            quiet_bed.wait_until(lambda: passed(quiet_bed) > before + 30, 10, "checks go on by other LBs")
            assert talks.broken() == []
            assert {request(quiet_bed.clients[0], FIRST)["server"] for _ in range(6)} == {"10.0.0.11", "10.0.0.12"}
        finally:
            if fault == "hung":
                faults.thaw(quiet_bed, "lb-a")
    said = quiet_bed.controller.log_tail(1_000_000)
    assert said.count("server down") == begun == 0, [line for line in said.splitlines() if "server down" in line]
