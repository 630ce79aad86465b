"""Moves of external IPs with full NAT: entries, ports and internal IPs go to the other LB, and nothing is lost."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.sites import SERVER_PORT, full_nat_site
from tests.bed.traffic import RawPort, connect
from tests.integration.gate import gates
from tests.integration.hands import Listening, server_space
from tests.integration.moving import (
    FIRST,
    SECOND,
    STEPS,
    STRATEGIES,
    Talks,
    assert_unharmed,
    entry_flows,
    mixed_load,
    pinned,
    serves_alone,
    start_with_errors,
    stop_in,
    wait_ended,
    wait_reached,
    wait_state,
    wait_step,
)
from tests.integration.slow_moves import harm_by_a_slow_lb, opened_while_entries_are_copied

INTERNAL = {FIRST: ("10.0.0.111", "10.0.0.112"), SECOND: ("10.0.0.121", "10.0.0.122")}
SERVER, ROUTER, FAR_SERVER = "10.0.0.11", "10.0.0.250", "172.16.5.11"
SETTINGS = {"automatic_failover": False, "grace": 0.5, "barrier_timeout": 3.0, "linger": 1, "arp_interval": 2.0}


def site() -> Site:
    """.1 and .2 share three servers, one of them behind a router."""
    plain = full_nat_site(settings=SETTINGS)
    far = Server(IPv4Address(FAR_SERVER), SERVER_PORT, next_hop=IPv4Address(ROUTER))
    services = (Service("tcp", 80, servers=(*plain.external_ips[0].services[0].servers, far)),)
    return replace(plain, external_ips=tuple(replace(ip, services=services) for ip in plain.external_ips))


BED = {"site": site()}


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """From every LB, every server is reached."""
    wait_reached(bed)
    return bed


# Under load


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_breaks_under_load(bed: Bed, strategy: str) -> None:
    loads = mixed_load(bed, FIRST)
    for target in ("lb-b", "lb-a"):
        record = bed.move(FIRST, target, strategy)
        assert record["state"] == "done" and [step["name"] for step in record["steps"]] == STEPS[strategy]
        assert record["entries_copied"] == record["entries_total"] >= 12
        assert record["packets_lost"] == 0 and record["packets_held"] == record["packets_released"]
    assert_unharmed(loads)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_breaks_when_the_new_lb_is_slow(quiet_bed: Bed, strategy: str) -> None:
    assert harm_by_a_slow_lb(quiet_bed, FIRST, strategy) == 0


@pytest.mark.parametrize("naive_bed", ["route-first"], indirect=True)
def test_route_first_breaks_connections(naive_bed: Bed) -> None:  # noqa: F811
    assert harm_by_a_slow_lb(naive_bed, FIRST, "precopy") > 0


def test_what_is_opened_while_entries_are_copied_lives(quiet_bed: Bed) -> None:
    assert opened_while_entries_are_copied(quiet_bed) == []


@pytest.mark.parametrize("naive_bed", ["table-first"], indirect=True)
def test_table_first_breaks_what_was_opened_meanwhile(naive_bed: Bed) -> None:  # noqa: F811
    assert opened_while_entries_are_copied(naive_bed) != []


def test_two_external_ips_with_the_same_servers_change_places(bed: Bed) -> None:
    loads = [load for address in (FIRST, SECOND) for load in mixed_load(bed, address, lines=4)]
    ids = [bed.move(address, lb, strategy, wait=False)["id"]
           for address, lb, strategy in ((FIRST, "lb-b", "precopy"), (SECOND, "lb-a", "buffered"))]
    assert [wait_ended(bed, move_id)["state"] for move_id in ids] == ["done", "done"]
    assert_unharmed(loads, 5)
    serves_alone(bed, "lb-b", "lb-a", FIRST)
    serves_alone(bed, "lb-a", "lb-b", SECOND)


def test_entries_are_the_same_on_both_lbs_and_keep_their_ports(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 6) as talks, Talks(bed.remote, SECOND, 3):
        flows, entries, others = entry_flows(bed, "lb-a"), places(bed, "lb-a"), entry_flows(bed, "lb-b", SECOND)
        assert len(flows) == 12 and len(entries) == 6
        bed.move(FIRST, "lb-b")
        serves_alone(bed, "lb-b", "lb-a")
        assert entry_flows(bed, "lb-b") == flows and places(bed, "lb-b") == entries
        assert entry_flows(bed, "lb-b", SECOND) == others
        assert talks.broken() == []


def places(bed: Bed, lb: str, external: str = FIRST) -> dict[tuple, tuple]:
    """Client -> internal IP and port, server and its port."""
    names = ("internal_ip", "internal_port", "server", "server_port")
    return {(entry["client"], entry["client_port"]): tuple(entry[name] for name in names)
            for entry in bed.entries(lb) if entry["external_ip"] == external}


# Who answers for the internal IPs.


def test_internal_ips_move_with_gratuitous_arp(bed: Bed) -> None:
    """And nothing of the other external IP's is announced."""
    node = bed.lbs["lb-b"]
    outside = (FIRST, node.space.mac(node.lb.external_port))
    inside = {(address, node.space.mac(node.lb.internal_port)) for address in INTERNAL[FIRST]}
    with RawPort(bed.clients[1], "eth0") as out, RawPort(server_space(bed, SERVER), "eth0") as in_:
        time.sleep(0.2), out.drain(), in_.drain()
        with Listening(out, gratuitous) as external, Listening(in_, gratuitous) as internal:
            assert bed.move(FIRST, "lb-b")["state"] == "done"
            bed.wait_until(lambda: all(said(internal).count(each) >= 2 for each in inside), 8, "announced again inside")
            bed.wait_until(lambda: outside in said(external), 4, "announced outside")
    assert not {address for address, _ in said(external)} & set(INTERNAL[FIRST])
    with RawPort(server_space(bed, SERVER), "eth0") as port:
        for address, mac in inside:
            assert arp_answers(port, SERVER, address) == [mac], "the old LB, or none"


def gratuitous(frame: frames.Frame) -> bool:
    return frame.ethertype == 0x0806 and frame.src == frame.dst and frame.eth_dst == frames.BROADCAST


def said(listening: Listening) -> list[tuple[str, str]]:
    """(address, MAC) of each."""
    return [(str(frame.src), frame.arp_src_mac) for frame in listening.heard]


def arp_answers(port: RawPort, sender: str, target: str) -> list[str]:
    port.drain()
    port.send(frames.arp_request(port.mac, sender, target))
    return [
        frame.arp_src_mac
        for frame in port.collect(lambda frame: frame.answers_arp and str(frame.src) == target, 0.25)
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_packets_to_the_old_lb_go_through_in_the_grace_step(quiet_bed: Bed, strategy: str) -> None:
    """Neighbours that have not heard the announcement, on both sides: the client, the servers, the router in front of
    one."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as talks, contextlib.ExitStack() as deaf:
        node = bed.lbs["lb-a"]
        gate["lb-a"].shut()  # the grace step cannot begin before normal-source is confirmed
        ordered = bed.move(FIRST, "lb-b", strategy, wait=False)
        gate["lb-a"].step()
        wait_step(bed, ordered["id"], "normal")
        deaf.enter_context(pinned(bed.clients[0], FIRST, node.space.mac(node.lb.external_port)))
        for space in (*bed.servers[:2], *bed.inner_routers.values()):
            for address in INTERNAL[FIRST]:
                deaf.enter_context(pinned(space, address, node.space.mac(node.lb.internal_port)))
        assert talks.broken() == []
        gate["lb-a"].open()
        wait_step(bed, ordered["id"], "grace")
        assert talks.broken() == []
        with Talks(bed.clients[0], FIRST) as new:
            assert new.broken() == []
        record = wait_ended(bed, ordered["id"])
        assert record["state"] == "done" and record["packets_lost"] == 0


def test_after_the_grace_step_late_packets_are_lost(quiet_bed: Bed) -> None:
    """The naive twin, on the side of the servers: without grace, and where they are not passed on, what is on its way
    to the old LB gets no answer."""
    bed = start_with_errors(quiet_bed)
    with Talks(bed.clients[0], FIRST) as talks, contextlib.ExitStack() as deaf:
        node = bed.lbs["lb-a"]
        for space in (*bed.servers[:2], *bed.inner_routers.values()):
            for address in INTERNAL[FIRST]:
                deaf.enter_context(pinned(space, address, node.space.mac(node.lb.internal_port)))
        bed.move(FIRST, "lb-b")
        serves_alone(bed, "lb-b", "lb-a")
        assert talks.broken(timeout=1) != []


# Moves in which something breaks.


@pytest.mark.parametrize(
    ("strategy", "confirmations", "step"), [("precopy", 1, "copy"), ("precopy", 3, "normal"), ("buffered", 2, "copy")]
)
def test_the_target_is_killed(quiet_bed: Bed, strategy: str, confirmations: int, step: str) -> None:
    """The move is rolled back: internal IPs and connections are the old LB's again, and new ones get other ports."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 4) as near, Talks(bed.remote, FIRST, 4) as far:
        before = places(bed, "lb-a")
        move_id = stop_in(bed, gate, FIRST, strategy, confirmations, step)
        bed.lbs["lb-b"].ovs.kill()
        record = wait_ended(bed, move_id)
        assert (record["state"], record["reason"]) == ("rolled-back", "lb-b was lost")
        assert near.broken() == far.broken() == []
        with Talks(bed.clients[1], FIRST, 3) as new:
            now = places(bed, "lb-a")
            assert before.items() <= now.items() and len(set(now.values())) == 11
            gate["lb-b"].open()
            bed.lbs["lb-b"].ovs.start_vswitchd()
            wait_state(bed, "lb-b", "ready")
            wait_reached(bed)
            serves_alone(bed, "lb-a", "lb-b")
            assert bed.move(FIRST, "lb-b", strategy)["state"] == "done"
            assert near.broken() == far.broken() == new.broken() == []
            assert places(bed, "lb-b") == now


def test_killed_after_the_move_its_connections_are_dead(bed: Bed) -> None:
    """The naive twin: nobody rolls anything back."""
    with Talks(bed.clients[0], FIRST, 2) as talks:
        assert bed.move(FIRST, "lb-b")["state"] == "done"
        bed.lbs["lb-b"].ovs.kill()
        assert len(talks.broken(timeout=1)) == 2


def test_the_source_is_killed_after_the_route_has_changed(quiet_bed: Bed) -> None:
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 4) as talks, contextlib.closing(connect(bed.remote, SECOND)):
        before = places(bed, "lb-a")
        move_id = stop_in(bed, gate, FIRST, "buffered", 2, "copy")
        bed.lbs["lb-a"].ovs.kill()
        gate["lb-b"].open()
        assert talks.broken() == []
        assert wait_ended(bed, move_id)["state"] == "done"
        assert places(bed, "lb-b") == before
