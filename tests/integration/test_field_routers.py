"""A NAT gateway's neighbours that get another MAC, or are said to have one (docs/field.md)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.sites import simple_site, with_nat_gateway
from tests.bed.traffic import RawPort
from tests.integration.hands import eventually
from tests.integration.moving import Talks

GATEWAY, OUTSIDE, PORT, ROUTER = "198.51.100.200", "203.0.113.1", 8000, "198.51.100.254"
SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 1.0}
BED = {"site": with_nat_gateway(simple_site(external_ips=1, settings=SETTINGS)), "inside": ("10.0.0.201",)}
BROADCAST = "ff:ff:ff:ff:ff:ff"


def prepare(bed: Bed) -> None:
    """A server in the outside."""
    bed.serve(bed.remote, "echo_server.py", "outside", PORT)


@contextlib.contextmanager
def another_mac(space: Namespace, mac: str) -> Iterator[None]:
    before = space.mac("eth0")
    routes = [line for line in space.ip("route", "show").splitlines() if "via" in line and "eth0" in line]
    space.ip("link", "set", "eth0", "address", mac)
    try:
        yield
    finally:
        space.ip("link", "set", "eth0", "address", before)
        assert [line for line in space.ip("route", "show").splitlines() if "via" in line and "eth0" in line] == routes


def router_mac(bed: Bed) -> str:
    return bed.rest("GET", f"/v1/external-ips/{GATEWAY}").json["router"]["mac"]


def test_the_router_of_a_nat_gateway_gets_another_mac(live: Bed) -> None:
    with Talks(live.inside[0], OUTSIDE, 3, port=PORT) as talks:
        with another_mac(live.router, "02:00:00:00:77:02"):
            assert talks.broken() == []
        assert talks.broken() == []


def test_where_they_stay_with_its_first_one_they_hang(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_router.py", *APPS)
    quiet_bed.start_controller()
    eventually(quiet_bed, lambda: router_mac(quiet_bed), "the router is found", 10.0)
    talks = Talks(quiet_bed.inside[0], OUTSIDE, 3, port=PORT)
    with talks, another_mac(quiet_bed.router, "02:00:00:00:77:02"):
        eventually(quiet_bed, lambda: router_mac(quiet_bed) == "02:00:00:00:77:02", "it is found anew", 10.0)
        assert len(talks.broken(timeout=3.0)) == 3


def test_an_inside_host_gets_another_mac(live: Bed) -> None:
    host = live.inside[0]
    with Talks(host, OUTSIDE, 3, port=PORT) as talks:
        with another_mac(host, "02:00:00:00:77:03"):
            assert talks.broken() == []
        assert talks.broken() == []


def test_who_only_says_that_it_is_the_router_is_not_believed(live: Bed) -> None:
    eventually(live, lambda: router_mac(live), "the router is found", 10.0)
    true = live.router.mac("eth0")
    with RawPort(live.clients[0], "eth0") as port, Talks(live.inside[0], OUTSIDE, 3, port=PORT) as talks:
        for _ in range(20):
            me = port.mac, ROUTER
            port.send(frames.arp((port.mac, BROADCAST), 1, me, (BROADCAST, ROUTER)),
                      frames.arp((port.mac, BROADCAST), 2, me, me))
            time.sleep(0.05)
            assert router_mac(live) == true
        assert talks.broken() == []
