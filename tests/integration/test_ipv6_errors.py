"""ICMPv6 errors about connections, and the NAT gateway, with IPv6. What a translation makes work has a twin without
it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from lbctl.site.model import ExternalIp, Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site, with_nat_gateway
from tests.bed.traffic import connect, request
from tests.integration.hands import counters, server_space
from tests.integration.moving import STRATEGIES, Talks, assert_unharmed, wait_reached

PLAIN, FULL_ROUTED, GATEWAY = "2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::200"
SERVER, ROUTED_SERVER, INNER_ROUTER, INTERNAL_IP = (
    "2001:db8:2::11",
    "2001:db8:4::21",
    "2001:db8:2::99",
    "2001:db8:2::102",
)
CLIENT, INSIDE, PORT = "2001:db8:3::1", ("2001:db8:2::201", "2001:db8:2::202"), 8000
MUCH = 400_000


def site() -> Site:
    """Destination NAT, full NAT to a server behind a router, and a NAT gateway."""
    settings = {"linger": 1, "arp_interval": 1.0, "error_rate": 1000, "settle": 0.2, "grace": 0.2}
    [plain] = simple_site(external_ips=1, servers=1, version=6).external_ips
    plain = replace(plain, services=(*plain.services, Service("udp", 53, servers=(Server(IPv6Address(SERVER), 5353),))))
    web = Service("tcp", 80, servers=(Server(IPv6Address(ROUTED_SERVER), 8080, next_hop=IPv6Address(INNER_ROUTER)),))
    full = ExternalIp(IPv6Address(FULL_ROUTED), "lb-a", None, "full", (web,), internal_ips=(IPv6Address(INTERNAL_IP),))
    whole = replace(simple_site(external_ips=1, settings=settings, version=6), external_ips=(plain, full))
    return with_nat_gateway(whole, 6)


BED = {"site": site(), "inside": INSIDE, "apps": ("tests/integration/naive_audits.py", *APPS)}
"""Flows that a test takes away by hand stay away."""


def prepare(bed: Bed) -> None:
    """Linux sends so many errors as are asked for, and there is a server in the outside which says who its clients
    are."""
    for space in (bed.router, bed.remote, *bed.inner_routers.values(), *bed.servers, *bed.inside):
        space.sysctl(ipv6__icmp__ratelimit=0, ipv4__tcp_mtu_probing=0)
    bed.serve(bed.remote, "echo_server.py", "outside::", PORT)


@pytest.fixture
def outside(built_bed: Bed) -> Namespace:
    return built_bed.remote


@contextlib.contextmanager
def without_translation(bed: Bed) -> Iterator[None]:
    """ICMPv6 errors don't get to the controller, as if it did not translate them."""
    kept = []
    for node in bed.lbs.values():
        flows = node.ovs.ofctl("--no-stats", "dump-flows", node.bridge, "table=0,icmp6").splitlines()
        errors = [flow for flow in flows if any(f"icmp_type={kind} " in flow for kind in (1, 2, 3, 4))]
        assert len(errors) == 8, "two ports, four types"
        kept.append((node, errors))
        for kind in (1, 2, 3, 4):
            node.ovs.ofctl("del-flows", node.bridge, f"table=0,icmp6,icmp_type={kind}")
        node.ovs.appctl("revalidator/purge")
    try:
        yield
    finally:
        for node, errors in kept:
            node.ovs.ofctl("add-flows", node.bridge, "-", input="\n".join(errors))


@contextlib.contextmanager
def bottleneck(space: Namespace, device: str, *senders: Namespace) -> Iterator[None]:
    """Packets of more than 1300 bytes don't go that way; routers never cut IPv6 packets."""
    space.ip("link", "set", device, "mtu", 1300)
    try:
        yield
    finally:
        space.ip("link", "set", device, "mtu", 1500)
        for sender in senders:
            sender.ip("-6", "route", "flush", "cache")


def download(space: Namespace, address: str, timeout: float) -> int:
    """Bytes that came of so MUCH."""
    got = 0
    with connect(space, address, timeout=timeout) as connection, contextlib.suppress(TimeoutError):
        connection.sendall(b"GET /bytes/%d HTTP/1.1\r\nConnection: close\r\n\r\n" % MUCH)
        while part := connection.recv(65536):
            got += len(part)
    return got


# Errors.


def datagram_refused(space: Namespace, address: str, port: int, timeout: float = limit(2.0)) -> bool:
    """Whether the sender of a datagram is told that nobody listens."""
    with space.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        try:
            client.send(b"anybody?")
            client.recv(100)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
        raise AssertionError("an answer")


def test_a_client_is_told_that_the_servers_port_is_closed(live: Bed) -> None:
    """The server's own error, translated."""
    for space in (live.clients[0], live.remote):
        assert datagram_refused(space, PLAIN, 53)
    with without_translation(live):
        assert not datagram_refused(live.clients[0], PLAIN, 53, 0.7)


def test_a_large_download_passes_a_bottleneck_outside(live: Bed) -> None:
    before = counters(live)["other"].get("icmp_errors_translated", 0)
    with bottleneck(live.router, "eth1", server_space(live, SERVER)):
        assert download(live.remote, PLAIN, limit(3.0)) > MUCH
    assert counters(live)["other"]["icmp_errors_translated"] > before


def test_twin_without_translation_the_download_hangs(live: Bed) -> None:
    with without_translation(live), bottleneck(live.router, "eth1", server_space(live, SERVER)):
        assert download(live.remote, PLAIN, 1.5) < 1000


def test_a_large_upload_passes_a_bottleneck_inside(live: Bed) -> None:
    inner = live.inner_routers[IPv6Address(INNER_ROUTER)]
    with bottleneck(inner, "far", live.remote, live.clients[0]):
        for space in (live.remote, live.clients[0]):
            assert request(space, FULL_ROUTED, method="POST", body=b"x" * MUCH, timeout=limit(3.0))["received"] == MUCH


def test_twin_without_translation_the_upload_hangs(live: Bed) -> None:
    inner = live.inner_routers[IPv6Address(INNER_ROUTER)]
    with without_translation(live), bottleneck(inner, "far"), pytest.raises(TimeoutError):
        request(live.clients[0], FULL_ROUTED, method="POST", body=b"x" * MUCH, timeout=1.5)


def test_the_end_of_a_hop_limit_is_told(live: Bed) -> None:
    """ping by a hop limit of 1 and 2, from outside: the router, then the LB, which answers itself."""
    said = live.remote.run("sh", "-c", f"ping -c 1 -W 2 -t 1 {PLAIN}; true")
    assert "From 2001:db8:3::254" in said and "Time exceeded" in said
    assert "1 received" in live.remote.run("ping", "-c", "1", "-W", "2", "-t", "2", PLAIN)
    said = live.inside[0].run("sh", "-c", f"ping -c 1 -W 2 -t 1 {CLIENT}; true")
    assert "From 2001:db8:2::200" in said and "Time exceeded" in said


# NAT gateway.


def test_inside_hosts_go_out_by_tcp_udp_and_echo(live: Bed, outside: Namespace) -> None:
    answer = request(live.inside[0], CLIENT, PORT)
    assert answer["client"][0] == GATEWAY
    assert " 2 received" in live.inside[1].run("ping", "-c2", "-l2", "-W10", CLIENT)
    server = outside.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    client = live.inside[0].call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with server, client:
        server.bind(("::", 5353))
        server.settimeout(limit(3)), client.settimeout(limit(3))
        for text in (b"one", b"two"):
            client.sendto(text, (CLIENT, 5353))
            got, peer = server.recvfrom(100)
            assert got == text and peer[0] == GATEWAY
            server.sendto(got.upper(), peer)
            assert client.recv(100) == text.upper()
    assert datagram_refused(live.inside[0], CLIENT, 4999)


def test_what_nobody_inside_asked_for_is_refused(live: Bed) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(live.clients[0], GATEWAY, 22)
    assert datagram_refused(live.clients[0], GATEWAY, 53)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_nat_gateway_moves_with_its_connections(live: Bed, outside: Namespace, strategy: str) -> None:
    wait_reached(live)
    loads = [live.load(space, CLIENT, PORT, lines=4, requests=1, interval=0.03) for space in live.inside]
    with Talks(live.inside[0], CLIENT, 5, port=PORT) as quiet:
        for to in ("lb-b", "lb-a"):
            record = live.move(GATEWAY, to, strategy)
            assert record["state"] == "done" and record["packets_lost"] == 0, record
            assert quiet.broken() == []
    assert_unharmed(loads)
