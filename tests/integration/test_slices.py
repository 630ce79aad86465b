"""Sliced services: nothing is decided for a new connection, and a move copies nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from lbctl.site.model import Site
from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.sites import simple_site, with_keepers
from tests.bed.traffic import request
from tests.integration.failing import begin, failover_of
from tests.integration.hands import counters
from tests.integration.moving import FIRST, Talks, assert_unharmed, mixed_load

ROUTER = IPv4Address("198.51.100.254")
SETTINGS = {"grace": 0.5, "arp_interval": 1.0}


def sliced(router: IPv4Address | None = ROUTER, **plain: Any) -> Site:
    """Each external IP's service is sliced."""
    site = simple_site(settings=SETTINGS, **plain)
    return replace(site, external_ips=tuple(
        replace(ip, router=router, services=tuple(replace(service, entries="slices") for service in ip.services))
        for ip in site.external_ips
    ))


BED = {"site": with_keepers(sliced(servers=3), "sockets")}


def test_new_connections_are_not_shown_to_the_controller(bed: Bed) -> None:
    for space in (bed.clients[0], bed.remote):
        request(space, FIRST)
    before = counters(bed, "lb-a")["packet_ins"]
    for _ in range(20):
        for space in (bed.clients[0], bed.remote):
            assert request(space, FIRST)["server"]
    assert counters(bed, "lb-a")["packet_ins"] == before
    assert bed.entries("lb-a") == []


def test_a_move_copies_nothing_and_breaks_nothing(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    for to in ("lb-b", "lb-a"):
        record = bed.move(FIRST, to)
        assert record["state"] == "done" and record["entries_copied"] == 0 and record["packets_held"] == 0, record
    assert_unharmed(loads)


def change(bed: Bed, server: str, **fields: Any) -> None:
    reply = bed.rest("PATCH", f"/v1/external-ips/{FIRST}/services/tcp/80/servers/{server}", fields)
    assert reply.status == 200, reply.text


def changing(bed: Bed) -> bool:
    """Do slices change hands still?"""
    log = bed.controller.log_text()
    return log.count("slices change hands") > log.count("slices have changed hands")


def test_servers_come_and_go_while_connections_run(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=4)
    for drained in (True, False, True, False):
        change(bed, "10.0.0.11:8080", drained=drained)
        time.sleep(6)
    assert_unharmed(loads)


def test_lb_controller_and_keepers_die_at_once(quiet_bed: Bed) -> None:
    """Nothing of a connection needs to be copied."""
    bed = quiet_bed
    begin(bed)
    with Talks(bed.clients[0], FIRST, 20) as near, Talks(bed.remote, FIRST, 20) as far:
        for keeper in bed.keepers.values():
            keeper.kill()
        bed.controller.kill()
        faults.kill(bed, "lb-a")
        bed.controller.start()
        assert failover_of(bed, timeout=30)["entries_from"] == {}
        assert near.broken() == far.broken() == []


def test_a_new_controller_leaves_connections_alone(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    bed.restart_controller()
    assert_unharmed(loads)


def test_a_controller_that_dies_while_slices_change_hands(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST, lines=30, requests=4)
    change(bed, "10.0.0.11:8080", drained=True)
    for seconds in (0.5, 1.5, 2.2):
        time.sleep(seconds)
        bed.restart_controller()
    time.sleep(6)
    change(bed, "10.0.0.11:8080", drained=False)
    time.sleep(6)
    assert_unharmed(loads)
