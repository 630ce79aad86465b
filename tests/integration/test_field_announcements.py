"""Many external IPs fail over at the same time, and the switch before a router limits ARP (docs/field.md)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from lbctl.site.model import ExternalIp, Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.sites import simple_site
from tests.bed.traffic import request
from tests.integration.hands import eventually, external_mac

MANY, RATE = 100, 20
"""External IPs, and how many of them are announced in a second: by 40 frames."""
LIMIT = """
table netdev limited {{
    chain input {{
        type filter hook ingress device eth0 priority 0;
        ether type arp limit rate over {rate}/second burst 20 packets counter drop
    }}
}}
"""
"""Of nftables, at the router: so many ARP frames come in."""


def many() -> Site:
    """On lb-a; all with the same server."""
    site = simple_site(servers=1, settings={"announce_rate": RATE})
    server = Server(IPv4Address("10.0.0.11"), 8080)
    ips = tuple(ExternalIp(IPv4Address("198.51.100.0") + number, load_balancer="lb-a", nat="full",
                           internal_ips=(IPv4Address("10.0.1.0") + number,),
                           services=(Service("tcp", 80, servers=(server,)),)) for number in range(1, MANY + 1))
    return replace(site, internal_networks=(IPv4Network("10.0.0.0/23"),), external_ips=ips)


BED = {"site": many(), "clients": 1}


def places(bed: Bed) -> list[str]:
    """Of each external IP, the MAC that the router sends to."""
    lines = [line.split() for line in bed.clients[0].ip("neigh", "show", "dev", "eth0").splitlines()]
    known = {words[0]: words[words.index("lladdr") + 1] for words in lines if "lladdr" in words}
    return [known.get(str(ip.address), "") for ip in bed.site.external_ips]


@contextlib.contextmanager
def limited(bed: Bed, rate: int) -> Iterator[None]:
    """The router knows all external IPs, believes for hours what it knows, and hears so many ARP frames a second."""
    router = bed.clients[0]
    router.sysctl(ipv4__neigh__eth0__base_reachable_time_ms=36_000_000, ipv4__neigh__eth0__gc_stale_time=36_000)
    for ip in bed.site.external_ips:
        router.popen("ping", "-c1", "-W5", str(ip.address)).wait()
    assert set(places(bed)) == {external_mac(bed, "lb-a")}
    router.run("nft", LIMIT.format(rate=rate))
    try:
        yield
    finally:
        router.run("nft", "delete table netdev limited")
        router.ip("neigh", "flush", "all")
        router.sysctl(ipv4__neigh__eth0__base_reachable_time_ms=30_000, ipv4__neigh__eth0__gc_stale_time=60)


def test_all_are_found_where_they_are_now(fresh: Bed) -> None:
    """Each is announced within MANY / RATE seconds, and a limit of half as many frames more takes them all."""
    with limited(fresh, 3 * RATE):
        fresh.lbs["lb-a"].ovs.kill()
        there = external_mac(fresh, "lb-b")
        eventually(fresh, lambda: set(places(fresh)) == {there}, "the router has heard of all", 2 + MANY / RATE)
        for ip in fresh.site.external_ips[::20]:
            assert request(fresh.clients[0], ip.address)["server"] == "10.0.0.11"


def test_announced_all_at_once_most_are_not(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_announcements.py", *APPS)
    quiet_bed.start_controller()
    with limited(quiet_bed, 3 * RATE):
        quiet_bed.lbs["lb-a"].ovs.kill()
        there = external_mac(quiet_bed, "lb-b")
        eventually(quiet_bed, lambda: there in places(quiet_bed), "the router has heard of some", 5.0)
        time.sleep(6.0)
        assert places(quiet_bed).count(there) < MANY
