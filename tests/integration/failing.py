"""What tests of failovers share: a bed whose LBs watch each other, copies of entries, and the record of a failover."""

from __future__ import annotations

from dataclasses import replace

from lbctl.site.model import Site
from tests.bed.bed import Bed
from tests.integration.moving import FIRST, wait_reached

SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "copy_interval": 0.2}


def with_copies(site: Site, *copies: str) -> Site:
    return replace(site, external_ips=tuple(replace(ip, copies=copies) for ip in site.external_ips))


def health(bed: Bed, lb: str) -> str:
    return bed.rest("GET", f"/v1/load-balancers/{lb}").json["health"]


def wait_watched(bed: Bed) -> None:
    """Until all LBs have answered probes: only then their silence means something."""
    bed.wait_until(lambda: all(health(bed, lb) == "well" for lb in bed.lbs), 5, "all LBs are watched")


def begin(bed: Bed, site: Site | None = None) -> None:
    """Starts the controller; every LB reaches every server, and is watched."""
    if site:
        bed.controller.configure(site)
    bed.start_controller()
    wait_reached(bed)
    wait_watched(bed)


def copied(bed: Bed) -> bool:
    """Have the keepers all that there is?"""
    keepers = bed.rest("GET", "/v1/keepers").json["keepers"]
    return all(keeper["synced"] and keeper["lag"] == 0 for keeper in keepers)


def failover_of(bed: Bed, address: str = FIRST, timeout: float = 15.0, kind: str = "failover") -> dict:
    """The record of its failover (or restoration), once it is done."""
    def found():
        moves = bed.rest("GET", "/v1/moves").json["moves"]
        return next((each for each in moves if each["kind"] == kind and each["external_ip"] == address
                     and each["state"] == "done"), None)

    return bed.wait_until(found, timeout, f"{kind} done")
