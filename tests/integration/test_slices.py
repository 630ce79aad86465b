"""Sliced services: nothing is decided for a new connection, and a move copies nothing."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from lbctl.site.model import Site
from tests.bed.bed import Bed
from tests.bed.sites import simple_site
from tests.bed.traffic import connect, request
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


BED = {"site": sliced()}


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
