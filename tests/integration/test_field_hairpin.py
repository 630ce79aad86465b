"""Everybody behind the LBs is a client, too: servers and other hosts inside reach external IPs, and the outside."""

from __future__ import annotations

import pytest

from tests.bed.bed import Bed
from tests.bed.sites import simple_site
from tests.bed.traffic import request
from tests.integration.moving import FIRST, SECOND, STRATEGIES, Talks, assert_unharmed, entry_flows

SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "udp_idle_timeout": 3.0, "time_wait": 2.0}
BED = {"site": simple_site(external_ips=3, servers=2, settings=SETTINGS)}
THIRD = "198.51.100.3"
"""FIRST and THIRD begin at lb-a, SECOND at lb-b."""
S1, S2 = "10.0.0.11", "10.0.0.12"


def server(bed: Bed, address: str):
    """Its namespace."""
    return next(space for space in bed.servers if space.name == f"server-{address}")


def test_a_server_calls_another_external_ip_of_its_lb(live: Bed) -> None:
    with Talks(server(live, S1), THIRD) as talk:
        host, port = talk.sockets[0].getsockname()
        [entry] = [entry for entry in live.entries("lb-a") if entry["client_port"] == port]
        assert (entry["client"], entry["internal_ip"]) == (S1, "10.0.0.3")
        assert talk.broken() == []
    assert {request(server(live, S1), THIRD)["server"] for _ in range(4)} == {"10.0.0.31", "10.0.0.32"}


def test_a_server_calls_its_own_external_ip(live: Bed) -> None:
    """Also where it is chosen itself."""
    assert {request(server(live, S1), FIRST)["server"] for _ in range(4)} == {S1, S2}
