"""Outbound NAT (seed modifications 3 and 6): inside hosts open connections to the outside through an external IP."""

from __future__ import annotations

import socket

import pytest

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import SYN
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site, with_nat_gateway
from tests.bed.traffic import RawPort, connect
from tests.integration.hands import counters, external_mac
from tests.integration.moving import STRATEGIES, Talks, assert_unharmed
from tests.integration.slow_moves import harm_by_a_slow_lb

GATEWAY, OUTSIDE, PORT = "198.51.100.200", "203.0.113.1", 8000
INSIDE = ("10.0.0.201", "10.0.0.202")
SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "udp_idle_timeout": 3.0, "time_wait": 2.0}
BED = {"site": with_nat_gateway(simple_site(external_ips=1, settings=SETTINGS)), "inside": INSIDE}


def prepare(bed: Bed) -> None:
    """A server in the outside, which says who its clients are."""
    bed.serve(bed.remote, "echo_server.py", "outside", PORT)


@pytest.fixture
def outside(built_bed: Bed) -> Namespace:
    return built_bed.remote


def entry_of(bed: Bed, host: str, port: int, lb: str = "lb-a") -> dict:
    """The entry of that inside host's port."""
    return next(entry for entry in bed.entries(lb) if (entry["server"], entry["server_port"]) == (host, port))


def test_the_outside_sees_the_external_ip(live: Bed, outside) -> None:
    with Talks(live.inside[0], OUTSIDE, port=PORT) as talk:
        host, port = talk.sockets[0].getsockname()
        entry = entry_of(live, host, port)
        assert (entry["client"], entry["client_port"], entry["external_ip"]) == (OUTSIDE, PORT, GATEWAY)
        assert 1024 <= entry["external_port"] <= 65535
        assert peers(outside) == {(GATEWAY, entry["external_port"])}
        assert talk.broken() == []


def peers(outside) -> set[tuple[str, int]]:
    """Who is connected to the server there."""
    found = set()
    for line in outside.run("ss", "-Htn", "state", "established").splitlines():
        local, remote = line.split()[2:4]
        if local.endswith(f":{PORT}"):
            address, _, port = remote.rpartition(":")
            found.add((address, int(port)))
    return found


def test_a_forged_syn_from_outside_comes_to_the_controller_once(live: Bed, outside) -> None:
    """And the inside host, which gets it, ignores it."""
    def put_back() -> int:
        return counters(live)["other"].get("entries_put_back", 0)

    with Talks(live.inside[0], OUTSIDE, port=PORT) as talk, RawPort(live.clients[0], "eth0") as port:
        ends = (OUTSIDE, PORT), (GATEWAY, entry_of(live, *talk.sockets[0].getsockname())["external_port"])
        before = put_back()
        port.send(frames.tcp((port.mac, external_mac(live, "lb-a")), *ends, SYN, seq=2**30))
        live.wait_until(lambda: put_back() > before, 5, "it has come")
        assert talk.broken() == [] and put_back() == before + 1


def test_two_hosts_with_the_same_port_are_kept_apart(live: Bed, outside) -> None:
    with Talks(live.inside[0], OUTSIDE, port=PORT) as one:
        port = one.sockets[0].getsockname()[1]
        other = live.inside[1].call(lambda: socket.socket())
        with other:
            other.bind(("0.0.0.0", port))
            other.settimeout(limit(3))
            other.connect((OUTSIDE, PORT))
            other.sendall(b"hello\n")
            assert other.recv(100).endswith(b"hello\n")
            first, second = (entry_of(live, host, port) for host in INSIDE)
            assert first["external_port"] != second["external_port"]
            assert one.broken() == []


def test_udp_goes_out_and_its_answer_comes_back(live: Bed, outside) -> None:
    server = outside.call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    client = live.inside[0].call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    with server, client:
        server.bind(("0.0.0.0", 5353))
        server.settimeout(limit(3)), client.settimeout(limit(3))
        for text in (b"one", b"two", b"three"):
            client.sendto(text, (OUTSIDE, 5353))
            got, peer = server.recvfrom(100)
            assert got == text and peer[0] == GATEWAY
            server.sendto(got.upper(), peer)
            assert client.recv(100) == text.upper()
        port = client.getsockname()[1]
        assert entry_of(live, INSIDE[0], port)["protocol"] == "udp"
        live.wait_until(
            lambda: not [e for e in live.entries("lb-a") if e["protocol"] == "udp"], 12, "the entry is idle"
        )


def test_what_nobody_inside_asked_for_is_refused(live: Bed) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(live.clients[0], GATEWAY, 22)
    probe = live.clients[0].call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    with probe:
        probe.settimeout(limit(3))
        probe.connect((GATEWAY, 53))
        probe.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            probe.recv(10)


def test_a_connection_ends_and_its_port_rests(live: Bed, outside) -> None:
    with connect(live.inside[0], OUTSIDE, PORT) as talk:
        port = talk.getsockname()[1]
        entry_of(live, INSIDE[0], port)
    live.wait_until(lambda: not [e for e in live.entries("lb-a") if e["server_port"] == port], 10, "the entry ended")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_moves_with_its_connections(live: Bed, outside, strategy: str) -> None:
    loads = [live.load(space, OUTSIDE, PORT, lines=4, requests=1, interval=0.03) for space in live.inside]
    with Talks(live.inside[0], OUTSIDE, 5, port=PORT) as quiet:
        for target in ("lb-b", "lb-a"):
            record = live.move(GATEWAY, target, strategy)
            assert record["state"] == "done" and record["packets_lost"] == 0, record
            assert quiet.broken() == []
    assert_unharmed(loads)


def outward_load(bed: Bed) -> list:
    return [bed.load(space, OUTSIDE, PORT, lines=4, requests=1, interval=0.05) for space in bed.inside]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_breaks_when_the_new_lb_is_slow(quiet_bed: Bed, outside, strategy: str) -> None:
    assert harm_by_a_slow_lb(quiet_bed, GATEWAY, strategy, lambda: outward_load(quiet_bed)) == 0


@pytest.mark.parametrize("naive_bed", ["route-first"], indirect=True)
def test_route_first_breaks_connections(naive_bed: Bed, outside) -> None:
    assert harm_by_a_slow_lb(naive_bed, GATEWAY, "precopy", lambda: outward_load(naive_bed)) > 0


def test_a_restarted_controller_knows_every_port(live: Bed, outside) -> None:
    with Talks(live.inside[0], OUTSIDE, 20, port=PORT) as talks:
        live.wait_until(lambda: len(places(live)) == 20, 10, "the entries of other tests have ended")
        before, tables = places(live), live.lbs["lb-a"].tables_hash()
        live.controller.kill()
        live.start_controller()
        assert places(live) == before and len(set(before.values())) == 20
        assert live.lbs["lb-a"].tables_hash() == tables
        with Talks(live.inside[1], OUTSIDE, 20, port=PORT):
            assert len(set(places(live).values())) == 40
        assert talks.broken() == []


def places(bed: Bed) -> dict[tuple[str, int], int]:
    """Inside host and port -> the external IP's port."""
    return {
        (e["server"], e["server_port"]): e["external_port"] for e in bed.entries("lb-a") if e["external_ip"] == GATEWAY
    }
