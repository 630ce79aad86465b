"""Hosts inside as clients: with full NAT, UDP and IPv6; and servers that a NAT gateway takes outside."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site, together, with_nat_gateway
from tests.bed.traffic import connect, request
from tests.integration.moving import STRATEGIES, Talks, assert_unharmed

SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "udp_idle_timeout": 3.0, "time_wait": 2.0}
NEAR, FAR, FULL, GATEWAY = "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.200"
"""NEAR, FULL and GATEWAY begin at lb-a, FAR at lb-b."""
SIX, FAR_SIX = "2001:db8:1::1", "2001:db8:1::2"
SERVER, FAR_SERVER, SIX_SERVER = "10.0.0.11", "10.0.0.21", "2001:db8:2::11"
OUTSIDE, PORT = "203.0.113.1", 8000


def site() -> Site:
    plain = simple_site(external_ips=3, settings=SETTINGS)
    near, far, full = (replace(ip, services=(*ip.services, udp(ip.services[0]))) for ip in plain.external_ips)
    full = replace(full, nat="full", gateway=None, internal_ips=(IPv4Address("10.0.0.103"),))
    four = with_nat_gateway(replace(plain, external_ips=(near, far, full)), inside=(ip_network("10.0.0.0/27"),))
    return together(four, simple_site(external_ips=2, version=6))


def udp(tcp: Service) -> Service:
    return Service("udp", 80, servers=tuple(Server(server.address, 8080) for server in tcp.servers))


BED = {"site": site(), "inside": ("10.0.0.5",)}


def prepare(bed: Bed) -> None:
    for space in bed.servers:
        bed.serve(space, "udp_server.py", space.name.removeprefix("server-"), 8080)
    bed.serve(bed.remote, "echo_server.py", "outside", PORT)
    bed.serve(bed.remote, "udp_server.py", "outside", 5353)


def server(bed: Bed, address: str) -> Namespace:
    return bed.spaces[f"server-{address}"]


def ask(space: Namespace, address: str, port: int, *texts: str) -> set[str]:
    """Who answers these datagrams from one port."""
    answered = set()
    with space.call(lambda: socket.socket(type=socket.SOCK_DGRAM)) as plug:
        plug.settimeout(limit(3))
        plug.connect((address, port))
        for text in texts:
            plug.send(text.encode())
            name, _, echoed = plug.recv(1000).decode().partition(" ")
            assert echoed == text
            answered.add(name)
    return answered


def datagrams(bed: Bed) -> list[dict]:
    """Entries of UDP."""
    return [entry for lb in bed.lbs for entry in bed.entries(lb) if entry["protocol"] == "udp"]


CALLS = pytest.mark.parametrize(
    ("caller", "address"),
    [(SERVER, FULL), (SERVER, FAR), (FAR_SERVER, FULL), (SIX_SERVER, SIX), (SIX_SERVER, FAR_SIX)],
    ids=["full", "far", "far-full", "ipv6", "far-ipv6"],
)


@CALLS
def test_a_server_calls(live: Bed, caller: str, address: str) -> None:
    assert len({request(server(live, caller), address)["server"] for _ in range(4)}) == 2
    with Talks(server(live, caller), address, 3) as talks:
        assert talks.broken() == []


@CALLS
def test_what_it_has_called_moves(live: Bed, caller: str, address: str) -> None:
    load = live.load(server(live, caller), address, lines=3, requests=1, interval=0.05)
    home = live.rest("GET", f"/v1/external-ips/{address}").json["load_balancer"]
    for target in sorted({"lb-a", "lb-b"} - {home}) + [home]:
        assert live.move(address, target)["state"] == "done"
    assert_unharmed([load])


@pytest.mark.parametrize("address", [NEAR, FAR, FULL])
def test_datagrams_of_servers(live: Bed, address: str) -> None:
    assert len(ask(server(live, SERVER), address, 80, "one", "two", "three")) == 1
    live.wait_until(lambda: not datagrams(live), 15, "the entries are idle")


@pytest.mark.parametrize("address", [NEAR, FAR, FULL])
def test_hosts_of_the_nat_gateway_reach_external_ips(live: Bed, address: str) -> None:
    assert request(live.inside[0], address)["server"].startswith("10.0.0.")
    assert len(ask(live.inside[0], address, 80, "one", "two")) == 1


@pytest.mark.parametrize("caller", [SERVER, FAR_SERVER])
def test_a_server_reaches_the_outside(live: Bed, caller: str) -> None:
    """By the NAT gateway, from beside it and from another LB."""
    with Talks(server(live, caller), OUTSIDE, 2, port=PORT) as talks:
        assert talks.broken() == []
        found = {entry["external_ip"] for entry in live.entries("lb-a") if entry["client"] == OUTSIDE}
        assert found == {GATEWAY}
    assert ask(server(live, caller), OUTSIDE, 5353, "one", "two", "three") == {"outside"}


def test_a_server_that_reaches_the_outside_still_serves(live: Bed) -> None:
    with Talks(server(live, SERVER), OUTSIDE, 2, port=PORT) as out, Talks(live.clients[0], NEAR, 4) as served:
        assert out.broken() == [] == served.broken()


@pytest.mark.parametrize("moved", [NEAR, GATEWAY])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_servers_connection_outside_survives_moves(live: Bed, moved: str, strategy: str) -> None:
    load = live.load(server(live, SERVER), OUTSIDE, PORT, lines=3, requests=1, interval=0.05)
    for target in ("lb-b", "lb-a"):
        assert live.move(moved, target, strategy)["state"] == "done"
    assert_unharmed([load])


def test_nobody_listens_outside(live: Bed) -> None:
    for caller in (SERVER, FAR_SERVER):
        with pytest.raises(ConnectionRefusedError):
            connect(server(live, caller), OUTSIDE, 9)
