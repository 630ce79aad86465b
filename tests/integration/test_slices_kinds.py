"""Sliced services of both IP versions and protocols: what is larger than a packet, and clients and routers that change
their MACs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.sites import together
from tests.bed.traffic import request
from tests.integration.failing import begin
from tests.integration.hands import counters
from tests.integration.moving import Talks
from tests.integration.test_field_packets import LARGE, Plug
from tests.integration.test_field_routers import another_mac
from tests.integration.test_slices import sliced

PLAIN, PLAIN_6 = "198.51.100.1", "2001:db8:1::2"
ADDRESSES = pytest.mark.parametrize("address", [PLAIN, PLAIN_6])
OTHER_MAC = "02:00:00:00:77:03"


def site(router: bool = True) -> Site:
    """One external IP of each version on lb-a, with TCP and UDP on port 80. router: does the site file name it?"""
    ipv4, ipv6 = (sliced(version, router, external_ips=2, servers=2) for version in (4, 6))
    both = together(
        replace(ipv4, external_ips=ipv4.external_ips[:1]), replace(ipv6, external_ips=ipv6.external_ips[1:])
    )
    return replace(both, external_ips=tuple(
        replace(ip, load_balancer="lb-a", services=(*ip.services, *map(by_udp, ip.services)))
        for ip in both.external_ips
    ))


def by_udp(tcp: Service) -> Service:
    servers = tuple(Server(server.address, 8080) for server in tcp.servers)
    return Service("udp", 80, servers=servers, entries="slices")


BED = {"site": site()}


@pytest.fixture(params=[True, False], ids=["router", "none"])
def live(quiet_bed: Bed, request: pytest.FixtureRequest) -> Bed:
    """With the router in the site file, and without it."""
    begin(quiet_bed, site(request.param))
    return quiet_bed


def prepare(bed: Bed) -> None:
    """UDP at every server, too."""
    for space in bed.servers:
        bed.serve(space, "udp_server.py", space.name.removeprefix("server-"), 8080)


def spaces(bed: Bed) -> Iterator[Namespace]:
    yield bed.clients[0]
    yield bed.remote


@ADDRESSES
def test_both_protocols_and_nothing_is_kept(live: Bed, address: str) -> None:
    for space in spaces(live):
        assert len({request(space, address)["server"] for _ in range(12)}) == 2, "both servers"
        with Plug(space, address) as plug:
            assert plug.ask(10)
            assert plug.ask(LARGE)
    assert live.rest("GET", f"/v1/external-ips/{address}").json["half_open"] == 0


@ADDRESSES
def test_a_client_that_changes_its_mac_is_followed(live: Bed, address: str) -> None:
    client = live.clients[0]
    with Talks(client, address, 3) as talks:
        with another_mac(client, OTHER_MAC):
            assert talks.broken() == []
        assert talks.broken() == []


@ADDRESSES
def test_a_router_that_changes_its_mac_is_followed(live: Bed, address: str) -> None:
    with Talks(live.remote, address, 3) as talks:
        with another_mac(live.router, OTHER_MAC):
            assert talks.broken() == []
        assert talks.broken() == []


@ADDRESSES
def test_another_lb_knows_where_clients_are(live: Bed, address: str) -> None:
    """It has never seen a packet of them."""
    with Talks(live.clients[0], address, 3) as near, Talks(live.remote, address, 3) as far:
        before = counters(live, "lb-b")["packet_ins"]
        assert live.move(address, "lb-b")["state"] == "done"
        assert near.broken() == far.broken() == []
        assert counters(live, "lb-b")["packet_ins"] - before < 50
        assert live.move(address, "lb-a")["state"] == "done"
        assert near.broken() == far.broken() == []


@ADDRESSES
def test_datagrams_find_their_server_when_slices_change_hands(quiet_bed: Bed, address: str) -> None:
    """Nobody knows which is a connection's first."""
    bed, idle = quiet_bed, 4.0
    begin(bed, replace(site(), settings=replace(site().settings, udp_idle_timeout=idle)))
    server = bed.rest("GET", f"/v1/external-ips/{address}").json["services"][1]["servers"][0]
    path = f"/v1/external-ips/{address}/services/udp/80/servers/"
    path += f"[{server['address']}]:{server['port']}" if ":" in address else f"{server['address']}:{server['port']}"

    def changing() -> list[dict[str, Any]]:
        by_udp = bed.rest("GET", f"/v1/external-ips/{address}").json["services"][1]
        changes: list[dict[str, Any]] = by_udp["slice_changes"]
        return changes

    with ExitStack() as stack:
        plugs = [stack.enter_context(Plug(space, address)) for space in spaces(bed) for _ in range(15)]
        before = [who(plug) for plug in plugs]
        assert bed.rest("PATCH", path, {"drained": True}).status == 200
        bed.wait_until(changing, 5, "slices change hands")
        while changing():
            assert [who(plug) for plug in plugs] == before
        assert [who(plug) for plug in plugs] == before, "they have entries"
        with Plug(bed.remote, address) as late:
            assert who(late) != server["address"]


def who(plug: Plug) -> str:
    """The server that answers."""
    plug.send(b"?")
    return plug.socket.recv(1000).split()[0].decode()


@ADDRESSES
def test_a_client_may_always_have_the_same_server(quiet_bed: Bed, address: str) -> None:
    bed = quiet_bed
    by_client = site()
    begin(bed, replace(by_client, external_ips=tuple(
        replace(ip, services=tuple(replace(service, affinity="client") for service in ip.services))
        for ip in by_client.external_ips)))
    for space in (*bed.clients, bed.remote):
        assert len({request(space, address)["server"] for _ in range(12)}) == 1
    table = bed.rest("GET", f"/v1/load-balancers/lb-a/access-table?external_ip={address}&limit=1000").json["entries"]
    assert {entry["client_ports"] for entry in table} == {"any"} and len({entry["client"] for entry in table}) == 256
