"""Everybody behind the LBs is a client, too: servers and other hosts inside reach external IPs, and the outside."""

from __future__ import annotations

import socket

import pytest

from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.bed.traffic import connect, request
from tests.integration.hands import counters
from tests.integration.moving import FIRST, SECOND, STRATEGIES, Talks, assert_unharmed

SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "udp_idle_timeout": 3.0, "time_wait": 2.0}
BED = {"site": simple_site(external_ips=3, servers=2, settings=SETTINGS)}
THIRD = "198.51.100.3"
"""FIRST and THIRD begin at lb-a, SECOND at lb-b."""
S1, S2 = "10.0.0.11", "10.0.0.12"
OUTSIDE = "203.0.113.1"


def prepare(bed: Bed) -> None:
    """A host that is no server, whose default route is a gateway of the LBs."""
    bed.hosts.add("other", "internal", ["10.0.0.99/24"], ["10.0.0.1"])


def server(bed: Bed, address: str) -> Namespace:
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


def test_a_host_inside_that_is_no_server_is_served(live: Bed) -> None:
    host = live.spaces["other"]
    assert request(host, FIRST)["server"] in (S1, S2)
    assert request(host, SECOND)["server"] in ("10.0.0.21", "10.0.0.22")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_called_external_ip_moves_and_nothing_breaks(live: Bed, strategy: str) -> None:
    """To the LB that is not the caller's gateway, and back."""
    loads = [live.load(server(live, S1), THIRD, lines=4, requests=1, interval=0.03),
             live.load(server(live, "10.0.0.31"), THIRD, lines=2, requests=1, interval=0.03)]
    with Talks(server(live, S1), THIRD, 5) as quiet:
        for target in ("lb-b", "lb-a"):
            record = live.move(THIRD, target, strategy)
            assert record["state"] == "done" and record["packets_lost"] == 0, record
            assert quiet.broken() == []
    assert_unharmed(loads)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_callers_gateway_moves_and_nothing_breaks(live: Bed, strategy: str) -> None:
    load = live.load(server(live, S1), THIRD, lines=4, requests=1, interval=0.03)
    with Talks(server(live, S1), THIRD, 5) as quiet:
        for target in ("lb-b", "lb-a"):
            record = live.move(FIRST, target, strategy)
            assert record["state"] == "done" and record["packets_lost"] == 0, record
            assert quiet.broken() == []
    assert_unharmed([load])


def test_its_own_external_ip_moves_and_nothing_breaks(live: Bed) -> None:
    load = live.load(server(live, S1), FIRST, lines=4, requests=1, interval=0.03)
    for target in ("lb-b", "lb-a"):
        assert live.move(FIRST, target)["state"] == "done"
    assert_unharmed([load])


def test_an_external_ip_of_another_lb_is_reached(live: Bed) -> None:
    with Talks(server(live, S1), SECOND, 3) as talk:
        assert talk.broken() == []
        assert all(entry["internal_ip"] == "10.0.0.2" for entry in live.entries("lb-b"))
    live.wait_until(lambda: not live.entries("lb-b"), 10, "the entries ended")


def test_a_restarted_controller_knows_them(fresh: Bed) -> None:
    with Talks(server(fresh, S1), THIRD, 5) as talks:
        tables = fresh.lbs["lb-a"].tables_hash()
        before = places(fresh, "lb-a")
        fresh.controller.kill()
        fresh.start_controller()
        assert places(fresh, "lb-a") == before and fresh.lbs["lb-a"].tables_hash() == tables
        with Talks(server(fresh, S2), THIRD, 5):
            assert len(set(places(fresh, "lb-a").values())) == len(places(fresh, "lb-a"))
        assert talks.broken() == []


def test_who_has_no_nat_gateway_is_told(live: Bed) -> None:
    """A server by a RST or ICMP port unreachable, another host by ICMP host unreachable; and both are counted."""
    before = no_way(live)
    with pytest.raises(ConnectionRefusedError):
        connect(server(live, S1), OUTSIDE, 9)
    with pytest.raises(ConnectionRefusedError):
        ask(server(live, S1), OUTSIDE, 9)
    with pytest.raises(OSError, match="No route to host"):
        connect(live.spaces["other"], OUTSIDE, 9)
    assert no_way(live) >= before + 3


def ask(space: Namespace, address: str, port: int) -> bytes:
    with space.call(lambda: socket.socket(type=socket.SOCK_DGRAM)) as plug:
        plug.settimeout(limit(3))
        plug.connect((address, port))
        plug.send(b"anybody?")
        return plug.recv(100)


def no_way(bed: Bed) -> int:
    return bed.rest("GET", "/v1/load-balancers/lb-a").json["counters"]["other"].get("no_way_outside", 0)


@pytest.mark.parametrize("address", [FIRST, SECOND])
def test_a_client_inside_that_changes_its_mac_goes_on(live: Bed, address: str) -> None:
    """Whose gateway is at the external IP's LB, or at another one."""
    client = live.spaces["other"]
    mac = client.mac("eth0")
    with Talks(client, address, 3) as talks:
        try:
            client.ip("link", "set", "eth0", "address", "02:00:00:00:77:02")
            assert talks.broken() == []
        finally:
            client.ip("link", "set", "eth0", "address", mac)
        assert talks.broken() == []


def test_the_controller_sees_their_first_packet_alone(live: Bed) -> None:
    """Their MACs are known, as those of clients outside."""
    with Talks(server(live, S1), THIRD) as talk:
        assert talk.broken() == []
        before = counters(live)
        for _ in range(100):
            assert talk.broken() == []
        after = counters(live)
    assert after["packet_ins"] - before["packet_ins"] < 50, "some ARP"
    assert after["dropped"].get("wrong_side", 0) == before["dropped"].get("wrong_side", 0)


@pytest.mark.parametrize("address", [FIRST, SECOND, THIRD])
def test_servers_may_ping_external_ips(live: Bed, address: str) -> None:
    assert "1 received" in server(live, S1).run("ping", "-c", "1", "-W", "5", address)


def test_nobody_listens_on_that_port(live: Bed) -> None:
    for address in (FIRST, SECOND, THIRD):
        with pytest.raises(ConnectionRefusedError):
            connect(server(live, S1), address, 81)


def test_where_only_the_destination_is_translated_it_fails(quiet_bed: Bed) -> None:
    """The naive twin: the server answers its caller directly, which does not know it."""
    quiet_bed.controller.apps = ("tests/integration/naive_hairpin.py", *APPS)
    quiet_bed.start_controller()
    with pytest.raises(OSError):
        connect(server(quiet_bed, S1), THIRD, timeout=3.0)


def places(bed: Bed, lb: str) -> dict[tuple[str, int], tuple]:
    """Client -> what its server sees."""
    return {(e["client"], e["client_port"]): (e["internal_ip"], e["internal_port"], e["server"], e["server_port"])
            for e in bed.entries(lb)}
