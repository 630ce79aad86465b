"""Full NAT (seed figures 11 and 12): the servers see an internal IP in the client's place, and need no route to any
client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import ACK, PSH, SYN
from tests.bed.namespaces import Namespace
from tests.bed.sites import SERVER_PORT, full_nat_site
from tests.bed.traffic import RawPort, connect, request
from tests.integration.hands import (
    counters,
    entries_of,
    external_mac,
    hand_client,
    internal_mac,
    metric,
    server_space,
    syns_sent_again,
)
from tests.integration.moving import FIRST, SECOND, Talks

THIRD, FOURTH = "198.51.100.3", "198.51.100.4"
SERVER, OTHER_SERVER = "10.0.0.11", "10.0.0.12"
INTERNAL = {FIRST: ("10.0.0.111", "10.0.0.112"), SECOND: ("10.0.0.121", "10.0.0.122")}
ROUTER, FAR_SERVERS = "10.0.0.250", ("172.16.5.11", "172.16.5.12")
SCARCE = (5000, 5002)
SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "time_wait": 2.0}


def site() -> Site:
    """.1 on lb-a and .2 on lb-b share their servers; those of .3 (lb-a) are behind a router; .4 (lb-b) has three ports
    for one server."""
    plain = full_nat_site(external_ips=4, settings=SETTINGS)
    one, two, three, four = plain.external_ips
    far = tuple(Server(IPv4Address(address), SERVER_PORT, next_hop=IPv4Address(ROUTER)) for address in FAR_SERVERS)
    three = replace(three, services=(Service("tcp", 80, servers=far),))
    four = replace(four, internal_ips=four.internal_ips[:1], port_range=SCARCE,
                   services=(Service("tcp", 80, servers=(Server(IPv4Address(SERVER), SERVER_PORT),)),))
    return replace(plain, external_ips=(one, two, three, four))


BED = {"site": site()}


def peers(server: Namespace) -> set[tuple[str, int]]:
    """Who is connected to the server there."""
    found = set()
    for line in server.run("ss", "-Htn", "state", "established").splitlines():
        local, remote = line.split()[2:4]
        if local.endswith(f":{SERVER_PORT}"):
            address, _, port = remote.rpartition(":")
            found.add((address.removeprefix("[::ffff:").removesuffix("]"), int(port)))
    return found


def place(entry: dict) -> tuple[str, int]:
    return entry["internal_ip"], entry["internal_port"]


# One connection.


def test_servers_have_no_way_to_any_client(live: Bed) -> None:
    """What the other tests of this file stand on."""
    for address in (SERVER, OTHER_SERVER, *FAR_SERVERS):
        space = server_space(live, address)
        for client in ("198.51.100.101", "203.0.113.1"):
            with pytest.raises(OSError, match="unreachable") if address not in FAR_SERVERS else pytest.raises(OSError):
                connect(space, client, 9, timeout=0.3)


def test_the_server_sees_an_internal_ip(live: Bed) -> None:
    for client in (live.clients[0], live.remote):
        with Talks(client, FIRST) as talk:
            [entry] = entries_of(live, talk.sockets[0].getsockname())
            assert entry["internal_ip"] in INTERNAL[FIRST] and 1024 <= entry["internal_port"] <= 65535
            assert place(entry) in peers(server_space(live, entry["server"]))
            assert talk.broken() == []
    answer = request(live.clients[0], FIRST)
    assert answer["client"][0] in INTERNAL[FIRST]


@pytest.mark.quick
def test_addresses_ports_macs_and_checksums_both_ways(live: Bed) -> None:
    server = server_space(live, SERVER)
    with hand_client(live) as client, RawPort(server, "eth0") as wire:
        for _ in range(2):  # one of two servers has the wire
            client.number += 1000
            wire.drain()
            client.send(SYN, ttl=40)
            seen = wire.receive(lambda frame: frame.flags == SYN and frame.dst_port == SERVER_PORT, 0.5)
            if seen:
                break
        assert seen is not None
        [entry] = entries_of(live, client.local)
        assert (str(seen.src), seen.src_port) == place(entry) and str(seen.dst) == SERVER
        assert seen.ttl == 39 and seen.checksums_right
        assert (seen.eth_src, seen.eth_dst) == (internal_mac(live, "lb-a"), server.mac("eth0"))
        answer = client.receive(SYN | ACK)
        assert answer is not None and answer.checksums_right and answer.ttl == 63
        assert (answer.eth_src, answer.eth_dst) == (external_mac(live, "lb-a"), client.mac)
        client.seq, client.ack = client.seq + 1, answer.seq + 1
        client.send(ACK | PSH, b"now by the entry\n", ttl=40)
        seen = wire.receive(lambda frame: frame.src_port == entry["internal_port"] and bool(frame.payload))
        assert seen is not None and (seen.ttl, seen.payload, seen.checksums_right) == (39, b"now by the entry\n", True)


def test_much_data_both_ways(live: Bed) -> None:
    assert request(live.clients[0], FIRST, method="POST", body=b"x" * 2_000_000)["received"] == 2_000_000
    with connect(live.remote, FIRST) as connection:
        connection.sendall(b"GET /bytes/2000000 HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = 0
        while part := connection.recv(65536):
            got += len(part)
    assert got > 2_000_000


def test_arp_for_internal_ips_is_answered_by_the_lb_that_serves(live: Bed) -> None:
    before = counters(live)["packet_ins"], counters(live, "lb-b")["packet_ins"]
    with RawPort(server_space(live, SERVER), "eth0") as port:
        for external, lb in ((FIRST, "lb-a"), (SECOND, "lb-b")):
            for address in INTERNAL[external]:
                assert arp_answers(port, SERVER, address) == [internal_mac(live, lb)]
        assert arp_answers(port, SERVER, FIRST) == [], "an external IP, asked for inside"
    with RawPort(live.clients[1], "eth0") as port:
        assert arp_answers(port, "198.51.100.102", INTERNAL[FIRST][0]) == [], "an internal IP, asked for outside"
    assert (counters(live)["packet_ins"], counters(live, "lb-b")["packet_ins"]) == before


def arp_answers(port: RawPort, sender: str, target: str) -> list[str]:
    """The MACs that answer."""
    port.drain()
    port.send(frames.arp_request(port.mac, sender, target))
    return [
        frame.arp_src_mac
        for frame in port.collect(lambda frame: frame.answers_arp and str(frame.src) == target, 0.25)
    ]


# Servers for several external IPs, servers elsewhere.


def test_one_server_for_two_external_ips_on_two_lbs(live: Bed) -> None:
    with Talks(live.clients[0], FIRST, 4) as first, Talks(live.remote, SECOND, 4) as second:
        by_server: dict[str, set[str]] = {}
        for lb, external, talks in (("lb-a", FIRST, first), ("lb-b", SECOND, second)):
            for talk in talks.sockets:
                [entry] = entries_of(live, talk.getsockname(), lb)
                assert entry["internal_ip"] in INTERNAL[external]
                assert place(entry) in peers(server_space(live, entry["server"]))
                by_server.setdefault(entry["server"], set()).add(external)
        assert by_server == {SERVER: {FIRST, SECOND}, OTHER_SERVER: {FIRST, SECOND}}
        assert first.broken() == second.broken() == []


def test_servers_behind_a_router_of_the_internal_network(live: Bed) -> None:
    with Talks(live.clients[0], THIRD, 2) as near, Talks(live.remote, THIRD, 2) as far:
        entries = [entries_of(live, talk.getsockname())[0] for talk in (*near.sockets, *far.sockets)]
        assert {entry["server"] for entry in entries} == set(FAR_SERVERS)
        assert all(place(entry) in peers(server_space(live, entry["server"])) for entry in entries)
        record = live.move(THIRD, "lb-b")
        assert record["state"] == "done" and record["packets_lost"] == 0
        assert near.broken() == far.broken() == []
        assert live.move(THIRD, "lb-a")["state"] == "done"
        assert near.broken() == far.broken() == []


# Ports that run out.


@pytest.fixture
def scarce(live: Bed) -> Iterator[Bed]:
    """All ports of .4 are free, and none rests."""
    live.wait_until(lambda: not entries_to(live, FOURTH), 10, "the entries of other tests have ended")
    time.sleep(SETTINGS["time_wait"])
    yield live


def entries_to(bed: Bed, external: str, lb: str = "lb-b") -> list[dict]:
    return [entry for entry in bed.entries(lb) if entry["external_ip"] == external]


def test_without_a_port_left_a_connection_is_refused_at_once(scarce: Bed) -> None:
    event = 'lbctl_events_total{dp_name="lb-b",event="ports_exhausted"}'
    before = metric(scarce, event)
    with Talks(scarce.clients[0], FOURTH, 3) as full, Talks(scarce.clients[0], SECOND, 2) as others:
        assert {entry["internal_port"] for entry in entries_to(scarce, FOURTH)} == {5000, 5001, 5002}
        for tried in range(1, 4):
            again = syns_sent_again(scarce.clients[1])
            with pytest.raises(ConnectionRefusedError):
                connect(scarce.clients[1], FOURTH)
            assert syns_sent_again(scarce.clients[1]) == again, "not at once"
            assert metric(scarce, event) == before + tried
        said = [line for line in scarce.controller.log_tail(2000).splitlines() if "no translated port left" in line]
        assert len(said) == 1 and FOURTH in said[0] and "port_range" in said[0], said
        assert full.broken() == others.broken() == []
        request(scarce.clients[1], SECOND)


def test_a_freed_port_rests_before_it_is_given_again(scarce: Bed) -> None:
    with Talks(scarce.clients[0], FOURTH, 2) as stay:
        with Talks(scarce.clients[0], FOURTH, 1) as going:
            [gone] = [entry for entry in entries_to(scarce, FOURTH) if entry["client_port"] in going.ports]
        scarce.wait_until(lambda: len(entries_to(scarce, FOURTH)) == 2, 6, "the entry has ended")
        ended = time.monotonic()
        with scarce.wait_until(lambda: refused_no_more(scarce), 8, "the port is given again") as again:
            assert time.monotonic() - ended > SETTINGS["time_wait"] - 0.5
            [entry] = entries_of(scarce, again.getsockname(), "lb-b")
            assert place(entry) == place(gone)
        assert stay.broken() == []


def refused_no_more(bed: Bed):
    try:
        return connect(bed.clients[1], FOURTH)
    except ConnectionRefusedError:
        return None
