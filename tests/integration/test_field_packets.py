"""Packets that are too large for a link, whole or in fragments (docs/field.md), each as an experiment."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site, together, with_nat_gateway
from tests.integration.hands import counters, external_mac
from tests.integration.moving import STRATEGIES, move, pinned, wait_reached

SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0}
ECHO, OUTSIDE_PORT = 80, 5353
LARGE = 3000
"""Bytes: three fragments of 1500, 1500 and 68 with IPv4."""
PLAIN, FULL, PLAIN_6, FULL_6 = "198.51.100.1", "198.51.100.2", "2001:db8:1::3", "2001:db8:1::4"
OUTSIDE = "203.0.113.1"
INSIDE = ("10.0.0.201",)
KINDS = pytest.mark.parametrize("address", [PLAIN, FULL, PLAIN_6, FULL_6])


def site() -> Site:
    """On lb-a, by UDP: destination and full NAT of both IP versions; and a NAT gateway."""
    ipv4, ipv6 = (simple_site(external_ips=4, servers=1, version=version, settings=SETTINGS) for version in (4, 6))
    both = together(with_nat_gateway(replace(ipv4, external_ips=ipv4.external_ips[:2])),
                    replace(ipv6, external_ips=ipv6.external_ips[2:]))
    internal = {FULL: "10.0.0.102", FULL_6: "2001:db8:2::104"}

    def with_udp(ip):
        services = tuple(Service("udp", ECHO, servers=tuple(Server(server.address, 8080) for server in each.servers))
                         for each in ip.services)
        ip = replace(ip, load_balancer="lb-a", services=(*ip.services, *services))
        if inner := internal.get(str(ip.address)):
            ip = replace(ip, nat="full", gateway=None, internal_ips=(ip_address(inner),))
        return ip

    return replace(both, external_ips=tuple(map(with_udp, both.external_ips)))


BED = {"site": site(), "inside": INSIDE}


def prepare(bed: Bed) -> None:
    """UDP echo at every server, and outside."""
    for space in bed.servers:
        bed.serve(space, "udp_server.py", space.name.removeprefix("server-"), 8080)
    bed.serve(bed.remote, "udp_server.py", "outside", OUTSIDE_PORT)


class Plug:
    """A connected UDP socket whose datagrams may be fragmented. A context manager."""

    def __init__(self, space: Namespace, address: str, port: int = ECHO) -> None:
        self.address, self.port = address, port
        self.socket = space.call(self._open)
        self.socket.settimeout(limit(3.0))

    def _open(self) -> socket.socket:
        version_6 = ":" in self.address
        plug = socket.socket(socket.AF_INET6 if version_6 else socket.AF_INET, socket.SOCK_DGRAM)
        # IP_MTU_DISCOVER and IPV6_MTU_DISCOVER: IP_PMTUDISC_DONT
        plug.setsockopt(*((socket.IPPROTO_IPV6, 23) if version_6 else (socket.IPPROTO_IP, 10)), 0)
        plug.connect((self.address, self.port))
        return plug

    def send(self, text: bytes) -> None:
        self.socket.send(text)

    def answered(self, text: bytes) -> bool:
        """Has it come back?"""
        try:
            return self.socket.recv(65536).partition(b" ")[2] == text
        except TimeoutError:
            return False

    def ask(self, size: int) -> bool:
        """A datagram of that size, and its echo. Has it come back?"""
        text = (bytes(range(1, 256)) * (size // 255 + 1))[:size]
        self.send(text)
        return self.answered(text)

    def __enter__(self) -> Plug:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


# Fragments (F10).

@KINDS
def test_datagrams_larger_than_a_packet_go_both_ways(live: Bed, address: str) -> None:
    """Those of a connection that is known, and one that opens a connection."""
    with Plug(live.clients[0], address) as plug:
        assert plug.ask(10)
        assert plug.ask(LARGE)
        assert plug.ask(60_000)
    with Plug(live.clients[0], address) as plug:
        assert plug.ask(LARGE)
        assert plug.ask(10)
    assert counters(live)["other"]["fragments_translated"] > 0


def test_also_through_a_nat_gateway(live: Bed) -> None:
    with Plug(live.inside[0], OUTSIDE, OUTSIDE_PORT) as plug:
        assert plug.ask(LARGE)
        assert plug.ask(10)
        assert plug.ask(LARGE)


@pytest.mark.parametrize("address", [PLAIN, FULL])
def test_also_of_a_client_inside(live: Bed, address: str) -> None:
    with Plug(live.inside[0], address) as plug:
        assert plug.ask(LARGE)
        assert plug.ask(10)
        assert plug.ask(60_000)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_move_loses_none(fresh: Bed, strategy: str) -> None:
    """Of a client that asks all the while: with large datagrams, in a connection that is known and in new ones."""
    wait_reached(fresh)
    with Plug(fresh.clients[0], PLAIN) as known:
        assert known.ask(LARGE)
        moving = fresh.move(PLAIN, "lb-b", strategy, wait=False)["id"]
        asked = 0
        while move(fresh, moving)["state"] == "running" or asked < 20:
            assert known.ask(LARGE), f"question {asked}"
            with Plug(fresh.clients[0], PLAIN) as new:
                assert new.ask(LARGE), f"new one {asked}"
            asked += 1
    assert move(fresh, moving)["state"] == "done"


def test_a_deaf_neighbours_fragments_are_passed_on(fresh: Bed) -> None:
    """To the LB that serves the external IP: by the first one, and the others follow."""
    wait_reached(fresh)
    with Plug(fresh.clients[0], PLAIN) as plug, pinned(fresh.clients[0], PLAIN, external_mac(fresh, "lb-a")):
        assert plug.ask(LARGE)
        assert fresh.move(PLAIN, "lb-b")["state"] == "done"
        assert plug.ask(LARGE)
    assert counters(fresh)["other"]["passed_on"] > 0


def test_more_than_the_rate_is_dropped_and_the_rest_goes_on(live: Bed) -> None:
    """Fragments alone: whole packets have meters of their own, or none."""
    with Plug(live.clients[0], PLAIN) as plug, Plug(live.clients[1], PLAIN) as small:
        assert small.ask(10)
        for _ in range(200):
            plug.send(bytes(60_000))
        assert all(small.ask(10) for _ in range(50))


def test_where_fragments_are_dropped_large_datagrams_vanish(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_fragments.py", *APPS)
    quiet_bed.start_controller()
    with Plug(quiet_bed.clients[0], PLAIN) as plug:
        assert plug.ask(10)
        assert not plug.ask(LARGE)
