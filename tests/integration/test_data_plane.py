"""The data plane on real switches: issue 2, point 3. What has a controller dead in it has a twin that shows what would
break."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import ACK, PSH, SYN
from tests.bed.sites import simple_site
from tests.bed.traffic import RawPort, connect, request
from tests.integration.hands import (
    HandClient,
    Talk,
    counters,
    entries_of,
    entry_flows_of,
    eventually,
    external_mac,
    hand_client,
    internal_mac,
    server_space,
    who_answers,
)


def site() -> Site:
    """lb-a has .1 (two services, two servers) and .3 (weights 1 and 3), lb-b has .2."""
    plain = simple_site(
        external_ips=3, servers=2, ports={80: 8080, 81: 9081}, settings={"linger": 1, "arp_interval": 1.0}
    )
    one, two, three = plain.external_ips
    servers = tuple(Server(server.address, server.port, weight)
                    for server, weight in zip(three.services[0].servers, (1, 3), strict=True))
    weighted = replace(three, services=(Service("tcp", 80, "weighted-round-robin", servers),))
    return replace(plain, external_ips=(one, two, weighted))


BED = {"site": site()}
FIRST, OTHER_LBS, WEIGHTED = "198.51.100.1", "198.51.100.2", "198.51.100.3"
SERVER = "10.0.0.11"
STRANGE_MAC = "02:00:00:00:77:01"


# ARP.


def arp_answers(port: RawPort, sender: str, target: str, timeout: float = 0.25) -> list[tuple[str, str]]:
    """(claimed MAC, Ethernet source) of each answer to who has `target`."""
    port.drain()
    port.send(frames.arp_request(port.mac, sender, target))
    found = port.collect(lambda frame: frame.answers_arp and str(frame.src) == target, timeout)
    assert all(frame.arp_dst_mac == frame.eth_dst == port.mac and str(frame.dst) == sender for frame in found)
    return [(frame.arp_src_mac, frame.eth_src) for frame in found]


def check_arp(bed: Bed) -> None:
    """Each external IP and each gateway is answered for by its LB, and by that alone, with its port's MAC."""
    outside = {"198.51.100.1": "lb-a", "198.51.100.2": "lb-b", "198.51.100.3": "lb-a"}
    inside = {"10.0.0.1": "lb-a", "10.0.0.2": "lb-b", "10.0.0.3": "lb-a"}
    with RawPort(bed.clients[1], "eth0") as port:
        for address, lb in outside.items():
            assert arp_answers(port, "198.51.100.102", address) == [(external_mac(bed, lb),) * 2], address
        assert arp_answers(port, "198.51.100.102", "198.51.100.4") == [], "an address that is no external IP"
        assert arp_answers(port, "198.51.100.102", "10.0.0.1") == [], "a gateway, asked for outside"
    with RawPort(server_space(bed, SERVER), "eth0") as port:
        for address, lb in inside.items():
            assert arp_answers(port, SERVER, address) == [(internal_mac(bed, lb),) * 2], address
        assert arp_answers(port, SERVER, FIRST) == [], "an external IP, asked for inside"


def test_arp_is_answered_in_the_switch(live: Bed) -> None:
    before = counters(live)["packet_ins"], counters(live, "lb-b")["packet_ins"]
    check_arp(live)
    assert (counters(live)["packet_ins"], counters(live, "lb-b")["packet_ins"]) == before


# Addresses, ports, TTL.


@pytest.mark.quick
def test_addresses_ports_and_ttl_are_changed_both_ways(live: Bed) -> None:
    server = server_space(live, SERVER)
    with hand_client(live) as client, RawPort(server, "eth0") as wire:
        client.external = (FIRST, 81)
        for _ in range(2):  # one of two servers has the wire
            client.number += 1000
            wire.drain()
            client.send(SYN, ttl=40)
            seen = wire.receive(lambda frame: frame.src_port == client.number, 0.5)
            if seen:
                break
        assert seen is not None
        assert (str(seen.src), str(seen.dst), seen.dst_port) == (client.address, SERVER, 9081)
        assert seen.ttl == 39 and seen.checksums_right
        assert (seen.eth_src, seen.eth_dst) == (internal_mac(live, "lb-a"), server.mac("eth0"))
        answer = client.receive(SYN | ACK)
        assert answer is not None and answer.checksums_right
        assert (str(answer.src), answer.src_port, str(answer.dst)) == (FIRST, 81, client.address)
        assert answer.ttl == 63, "Linux sends with 64"
        assert (answer.eth_src, answer.eth_dst) == (external_mac(live, "lb-a"), client.mac)
        client.seq, client.ack = client.seq + 1, answer.seq + 1
        client.send(ACK | PSH, b"now by the entry\n", ttl=40)
        seen = wire.receive(lambda frame: frame.src_port == client.number and bool(frame.payload))
        assert seen is not None and (seen.ttl, seen.payload, seen.checksums_right) == (39, b"now by the entry\n", True)


def test_a_packet_whose_ttl_ends_is_not_sent_on(live: Bed) -> None:
    with hand_client(live) as client, RawPort(server_space(live, SERVER), "eth0") as wire:
        for ttl in (1, 0):
            client.send(SYN, ttl=ttl)
            assert wire.receive(lambda frame: frame.src_port == client.number, 0.3) is None
    assert live.controller.running


def test_every_service_of_every_external_ip(live: Bed) -> None:
    for external, port, server_port in [
        (FIRST, 80, 8080),
        (FIRST, 81, 9081),
        (WEIGHTED, 80, 8080),
        (OTHER_LBS, 80, 8080),
        (OTHER_LBS, 81, 9081),
    ]:
        for client in (live.clients[0], live.remote):
            answer = request(client, external, port)
            assert answer["port"] == server_port
            assert answer["server"].startswith(f"10.0.0.{external[-1]}")
            assert answer["client"][0] == client.ip("-4", "-o", "addr", "show", "eth0").split()[3].partition("/")[0]


def test_much_data_both_ways(live: Bed) -> None:
    assert request(live.clients[0], FIRST, method="POST", body=b"x" * 2_000_000)["received"] == 2_000_000
    with connect(live.remote, FIRST) as connection:
        connection.sendall(b"GET /bytes/2000000 HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = 0
        while part := connection.recv(65536):
            got += len(part)
    assert got > 2_000_000


# The way back.


def test_clients_are_answered_through_the_mac_that_their_packets_came_from(live: Bed) -> None:
    with connect(live.clients[0], FIRST) as near, connect(live.remote, FIRST) as far:
        [entry] = entries_of(live, near.getsockname())
        assert entry["next_hop"] == live.clients[0].mac("eth0")
        [entry] = entries_of(live, far.getsockname())
        assert entry["next_hop"] == live.router.mac("eth0")
    with RawPort(live.clients[0], "eth0") as port:  # a second router, of whom no route and no ARP tells
        client = HandClient(port, external_mac(live, "lb-a"), address="203.0.113.200", mac=STRANGE_MAC).open()
        assert client.say(b"hello").endswith(b"hello\n")
        client.send(ACK | PSH, b"again\n")
        answer = port.receive(lambda frame: client.mine(frame) and bool(frame.payload))
        assert answer is not None and answer.eth_dst == STRANGE_MAC


# Servers whose MAC changes.


def change_mac(bed: Bed, mac: str) -> None:
    """The server gets another card: same address. Its kernel announces nothing (arp_notify is 0)."""
    space = server_space(bed, SERVER)
    space.ip("link", "set", "eth0", "address", mac)


def talk_to(bed: Bed, server: str, patience: float = 1.5) -> Talk:
    """A connection to that server."""
    while True:
        talk = Talk(bed.clients[0], FIRST, patience=patience)
        if entries_of(bed, talk.local)[0]["server"] == server:
            return talk
        talk.close()


def delivered_to(bed: Bed, lb: str = "lb-a") -> str:
    """The MAC that this LB sends the server's packets to."""
    flows = bed.lbs[lb].dump_flows().splitlines()
    [flow] = [line for line in flows if "table=40" in line and f"nw_dst={SERVER} " in line]
    return flow.partition("->eth_dst")[0].rpartition("set_field:")[2]


@pytest.mark.parametrize("operation", [1, 2], ids=["request", "reply"])
def test_a_servers_new_mac_is_learnt_from_gratuitous_arp(fresh: Bed, operation: int) -> None:
    """By every LB, at once (not by the probe: it is far off here), and the connection goes on."""
    fresh.controller.reload(replace(BED["site"], settings=replace(BED["site"].settings, arp_interval=600.0)))
    time.sleep(1.2)  # the last probe of the old settings
    old, new = server_space(fresh, SERVER).mac("eth0"), f"02:00:00:00:88:0{operation}"
    with talk_to(fresh, SERVER) as talk:
        change_mac(fresh, new)
        try:
            with RawPort(server_space(fresh, SERVER), "eth0") as port:
                target = (frames.BROADCAST, SERVER) if operation == 2 else ("00:00:00:00:00:00", SERVER)
                port.send(frames.arp((new, frames.BROADCAST), operation, (new, SERVER), target))
            eventually(
                fresh, lambda: {delivered_to(fresh, lb) for lb in ("lb-a", "lb-b")} == {new}, "both LBs know", 1.5
            )
            assert talk.goes_on()
        finally:
            change_mac(fresh, old)


def test_a_servers_new_mac_is_found_by_the_probe(live: Bed) -> None:
    """Nobody announces it: within arp_interval (1 s here) it is asked for."""
    old, new = server_space(live, SERVER).mac("eth0"), "02:00:00:00:88:99"
    with talk_to(live, SERVER, patience=5.0) as talk:
        change_mac(live, new)
        try:
            eventually(live, lambda: delivered_to(live) == new, "the new MAC is known", 3.0)
            assert talk.goes_on(20), talk.error
        finally:
            change_mac(live, old)
    eventually(live, lambda: delivered_to(live) == old, "the old MAC is known again", 3.0)


def test_twin_nobody_asks_for_the_new_mac(fresh: Bed) -> None:
    """The same with the controller dead: the connection stalls, so it was the controller that kept it."""
    old = server_space(fresh, SERVER).mac("eth0")
    with talk_to(fresh, SERVER) as talk:
        fresh.controller.kill()
        assert talk.goes_on()
        change_mac(fresh, "02:00:00:00:88:98")
        try:
            assert talk.breaks(4.0)
        finally:
            change_mac(fresh, old)


# Shares.


def shares(bed: Bed, external: str, count: int) -> Counter[str]:
    return Counter(who_answers(bed.clients[number % 2], external) for number in range(count))


def test_round_robin_shares_are_equal(live: Bed) -> None:
    assert shares(live, FIRST, 20) == {"10.0.0.11": 10, "10.0.0.12": 10}


def test_weighted_shares_are_those_of_the_weights(live: Bed) -> None:
    assert shares(live, WEIGHTED, 20) == {"10.0.0.31": 5, "10.0.0.32": 15}


def test_services_take_turns_on_their_own(live: Bed) -> None:
    """Requests to port 81 don't disturb the turns of port 80."""
    seen: list[str] = []
    for _ in range(6):
        seen.append(who_answers(live.clients[0], FIRST))
        who_answers(live.clients[0], FIRST, 81)
    assert all(one != next_ for one, next_ in zip(seen, seen[1:], strict=False)), seen


# Without a controller.


def test_without_a_controller_established_connections_go_on(fresh: Bed) -> None:
    """fail_mode=secure: the flows stay; ARP is answered; only new connections must wait."""
    with Talk(fresh.clients[0], FIRST) as near, Talk(fresh.remote, OTHER_LBS) as far:
        fresh.controller.kill()
        for name, node in fresh.lbs.items():
            eventually(fresh, lambda name=name, node=node: not node.ovs.is_connected(name), "the switch knows")
        fresh.clients[0].ip("neigh", "flush", "all")
        check_arp(fresh)
        assert near.goes_on(50) and far.goes_on(50)
        with pytest.raises(TimeoutError):
            connect(fresh.clients[1], FIRST, timeout=0.5)


def test_twin_without_their_flows_they_break(fresh: Bed) -> None:
    """What keeps them alive is in the switch: without the controller, and without these flows, they stall."""
    with Talk(fresh.clients[0], FIRST) as talk:
        fresh.controller.kill()
        node = fresh.lbs["lb-a"]
        for table in (20, 21):
            node.ovs.ofctl("del-flows", "lb-a", f"table={table},tcp")
        assert entry_flows_of(fresh, talk.local) == []
        assert talk.breaks(4.0)


def test_flows_deleted_behind_the_controllers_back_are_put_back(live: Bed) -> None:
    """The same while it lives: the first packet without its flow brings it back."""
    with Talk(live.clients[0], FIRST) as talk:
        for table in (20, 21):
            live.lbs["lb-a"].ovs.ofctl("del-flows", "lb-a", f"table={table},tcp")
        assert talk.goes_on(20)
        assert len(entry_flows_of(live, talk.local)) == 2
