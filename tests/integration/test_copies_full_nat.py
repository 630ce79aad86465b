"""Full NAT and UDP: what a dead LB's keepers give back besides clients and servers (seed, third embodiment, figure
12)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbctl.site.model import Service
from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.sites import full_nat_site, with_keepers
from tests.integration.failing import SETTINGS, begin, copied, failover_of
from tests.integration.moving import FIRST, Talks


def site():
    """TCP and UDP, each external IP on all servers."""
    plain = full_nat_site(settings=SETTINGS)
    udp = tuple(Service("udp", 53, servers=service.servers) for service in plain.external_ips[0].services)
    return with_keepers(
        replace(plain, external_ips=tuple(replace(ip, services=ip.services + udp) for ip in plain.external_ips)),
        "keeper",
    )


BED = {"site": site()}


def columns(bed: Bed) -> set[tuple]:
    """What full NAT has chosen for each connection of the first external IP."""
    return {
        (
            entry["protocol"],
            entry["client"],
            entry["client_port"],
            entry["server"],
            entry["internal_ip"],
            entry["internal_port"],
        )
        for lb in bed.lbs
        for entry in bed.entries(lb)
        if entry["external_ip"] == FIRST
    }


@pytest.mark.parametrize("controller_too", [False, True], ids=["lb", "lb-and-controller"])
def test_internal_ips_and_ports_come_back(quiet_bed: Bed, controller_too: bool) -> None:
    bed = quiet_bed
    begin(bed)
    with Talks(bed.clients[0], FIRST, 12) as near, Talks(bed.remote, FIRST, 12) as far:
        bed.wait_until(lambda: copied(bed), 5, "copied")
        before = columns(bed)
        if controller_too:
            bed.controller.kill()
        faults.kill(bed, "lb-a")
        if controller_too:
            bed.controller.start()
        assert failover_of(bed, timeout=30)["entries_from"] == {"keeper": 24}
        assert columns(bed) == before
        assert near.broken() == far.broken() == []
        with Talks(bed.clients[1], FIRST, 12) as new:  # whose ports must be others
            assert near.broken() == far.broken() == new.broken() == []
