"""Moves that succeed: nothing is lost, and the naive orders lose in the same bed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import Frame
from tests.bed.traffic import RawPort, connect, request
from tests.integration.gate import gates
from tests.integration.hands import Listening, announced
from tests.integration.moving import (
    FIRST,
    SECOND,
    STEPS,
    STRATEGIES,
    Talks,
    assert_unharmed,
    assigned,
    entry_flows,
    mixed_load,
    pinned,
    serves_alone,
    start_with_errors,
    wait_ended,
    wait_reached,
    wait_state,
    wait_step,
)
from tests.integration.slow_moves import harm_by_a_slow_lb, opened_while_entries_are_copied

BED = {
    "external_ips": 3,
    "settings": {"grace": 0.5, "barrier_timeout": 3.0, "linger": 1, "arp_interval": 2.0, "held_packets": 40},
}
THIRD = "198.51.100.3"


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """From every LB, every server is reached."""
    wait_reached(bed)
    return bed


# Under load

def to_and_fro(bed: Bed, times: int, *strategies: str) -> list[dict]:
    records = []
    for n in range(times):
        records.append(bed.move(FIRST, ("lb-b", "lb-a")[n % 2], strategies[n % len(strategies)]))
        assert records[-1]["state"] == "done", records[-1]
        time.sleep(0.1)
    return records


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_breaks_under_load(bed: Bed, strategy: str) -> None:
    loads = mixed_load(bed, FIRST)
    for record in to_and_fro(bed, 2, strategy):
        assert [step["name"] for step in record["steps"]] == STEPS[strategy]
        assert record["entries_copied"] == record["entries_total"] >= 12
        assert record["packets_lost"] == 0 and record["packets_held"] == record["packets_released"]
    assert_unharmed(loads)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.quick
def test_nothing_breaks_when_the_new_lb_is_slow(quiet_bed: Bed, strategy: str) -> None:
    assert harm_by_a_slow_lb(quiet_bed, FIRST, strategy) == 0


@pytest.mark.parametrize("naive_bed", ["route-first"], indirect=True)
@pytest.mark.quick
def test_route_first_breaks_connections(naive_bed: Bed) -> None:
    assert harm_by_a_slow_lb(naive_bed, FIRST, "precopy") > 0


def test_to_and_fro_ten_times(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    to_and_fro(bed, 10, "precopy", "precopy", "buffered", "buffered")
    assert_unharmed(loads)


@pytest.mark.parametrize("naive_bed", ["table-first"], indirect=True)
def test_table_first_breaks_what_was_opened_meanwhile(naive_bed: Bed) -> None:
    assert opened_while_entries_are_copied(naive_bed) != []


def test_what_is_opened_while_entries_are_copied_lives(quiet_bed: Bed) -> None:
    assert opened_while_entries_are_copied(quiet_bed) == []


def test_several_external_ips_at_once_in_both_directions(bed: Bed) -> None:
    loads = [load for address in (FIRST, SECOND, THIRD) for load in mixed_load(bed, address, lines=3)]
    orders = [(FIRST, "lb-b", "precopy"), (SECOND, "lb-a", "buffered"), (THIRD, "lb-b", "buffered")]
    ids = [bed.move(*order, wait=False)["id"] for order in orders]
    records = [wait_ended(bed, move_id) for move_id in ids]
    assert [record["state"] for record in records] == ["done"] * 3
    assert max(record["started"] for record in records) < min(record["ended"] for record in records), (
        "they did not overlap"
    )
    assert_unharmed(loads, 1)
    serves_alone(bed, "lb-b", "lb-a", FIRST)
    serves_alone(bed, "lb-a", "lb-b", SECOND)


# What stays behind

def test_entries_of_the_old_lb_are_gone_and_those_of_others_stay(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 4) as first, Talks(bed.remote, THIRD, 3) as third:
        others = entry_flows(bed, "lb-a", THIRD)
        verbatim = entry_flows(bed, "lb-a", FIRST)
        assert len(verbatim) == 8 and len(others) == 6
        bed.move(FIRST, "lb-b")
        serves_alone(bed, "lb-b", "lb-a")
        assert entry_flows(bed, "lb-b", FIRST) == verbatim, "entries are not the same on both LBs"
        assert entry_flows(bed, "lb-a", THIRD) == others
        assert first.broken() == third.broken() == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_connections_that_ended_just_before_the_move_end_at_the_new_lb_too(bed: Bed, strategy: str) -> None:
    """Their FINs went through the old LB only."""
    for _ in range(5):
        request(bed.clients[0], FIRST)
    assert len(entry_flows(bed, "lb-a")) > 0, "the entries have ended too soon for this test"
    bed.move(FIRST, "lb-b", strategy)
    bed.wait_until(lambda: entry_flows(bed, "lb-b") == [], 6, "the entries that have seen their FINs have ended")
    assert bed.entries("lb-b") == []


# Late packets

@pytest.mark.parametrize("strategy", STRATEGIES)
def test_packets_to_the_old_lb_go_through_in_the_grace_step(quiet_bed: Bed, strategy: str) -> None:
    """Neighbours that have not heard the announcement, on both sides: data both ways, and a SYN."""
    bed = quiet_bed
    with gates(bed) as gate, connect(bed.clients[0], FIRST) as talk, contextlib.ExitStack() as deaf:
        node = bed.lbs["lb-a"]
        gate["lb-a"].shut()  # the grace step cannot begin before normal-source is confirmed
        ordered = bed.move(FIRST, "lb-b", strategy, wait=False)
        gate["lb-a"].step()
        wait_step(bed, ordered["id"], "normal")
        deaf.enter_context(pinned(bed.clients[0], FIRST, node.space.mac(node.lb.external_port)))
        for server in bed.servers[:2]:
            deaf.enter_context(pinned(server, "10.0.0.1", node.space.mac(node.lb.internal_port)))
        talk.sendall(b"normal\n")
        assert talk.recv(100).endswith(b" normal\n")
        gate["lb-a"].open()
        wait_step(bed, ordered["id"], "grace")
        talk.sendall(b"grace\n")
        assert talk.recv(100).endswith(b" grace\n")
        with Talks(bed.clients[0], FIRST) as new:
            assert new.broken() == []
        record = wait_ended(bed, ordered["id"])
        assert record["state"] == "done" and record["packets_lost"] == 0


def test_after_the_grace_step_late_packets_are_lost(quiet_bed: Bed) -> None:
    """The naive twin: without grace, and where they are not passed on, what is on its way to the old LB gets no
    answer."""
    bed = start_with_errors(quiet_bed)
    with connect(bed.clients[0], FIRST, timeout=1.0) as talk:
        node = bed.lbs["lb-a"]
        bed.move(FIRST, "lb-b")
        serves_alone(bed, "lb-b", "lb-a")
        with pinned(bed.clients[0], FIRST, node.space.mac(node.lb.external_port)):
            talk.sendall(b"late\n")
            with pytest.raises(OSError):
                talk.recv(100)


# Announcements

@pytest.mark.parametrize("operation", [1, 2], ids=["requests", "replies"])
def test_gratuitous_arp_on_both_sides_again_and_again(bed: Bed, operation: int) -> None:
    node = bed.lbs["lb-b"]
    outside = FIRST, node.space.mac(node.lb.external_port)
    inside = "10.0.0.1", node.space.mac(node.lb.internal_port)

    def gratuitous(address: str, mac: str) -> Callable[[Frame], bool]:
        return lambda frame: (frame.arp_operation, str(frame.src), str(frame.dst), frame.arp_src_mac) == (
            operation, address, address, mac)

    with RawPort(bed.clients[1], "eth0") as out, RawPort(bed.servers[0], "eth0") as in_, \
            Listening(out, gratuitous(*outside)) as external, Listening(in_, gratuitous(*inside)) as internal:
        bed.move(FIRST, "lb-b")
        announced(bed, external, internal)
    for (_, mac), side in ((outside, external), (inside, internal)):
        assert all((frame.eth_dst, frame.eth_src) == (frames.BROADCAST, mac) for frame in side.heard)


# Refusals

def refusal(bed: Bed, address: str, to: object, status: int, **more) -> str:
    reply = bed.rest("POST", f"/v1/external-ips/{address}/move", {"to": to, **more})
    assert reply.status == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.text


def test_refusals(bed: Bed) -> None:
    assert "198.51.100.99" in refusal(bed, "198.51.100.99", "lb-b", 404)
    assert "lb-x" in refusal(bed, FIRST, "lb-x", 422)
    assert "assigned to lb-a already" in refusal(bed, FIRST, "lb-a", 409)
    assert "strategy" in refusal(bed, FIRST, "lb-b", 422, strategy="naive")
    assert bed.rest("GET", "/v1/moves").json["moves"] == []
    assert bed.rest("DELETE", "/v1/moves/77").status == 404


def test_refused_while_an_lb_is_not_connected_or_a_port_is_down(quiet_bed: Bed) -> None:
    bed = quiet_bed
    with gates(bed) as gate:
        target = bed.lbs["lb-b"]
        target.space.set_link(target.lb.internal_port, False)
        bed.wait_until(
            lambda: bed.rest("GET", "/v1/load-balancers/lb-b").json["reason"], 5, "the port is seen to be down"
        )
        assert "lbb-int is down" in refusal(bed, FIRST, "lb-b", 409)
        target.space.set_link(target.lb.internal_port, True)
        gate["lb-b"].cut()
        wait_state(bed, "lb-b", "disconnected")
        assert "lb-b is disconnected" in refusal(bed, FIRST, "lb-b", 409)
        gate["lb-b"].mend()
        bed.wait_ready()
        gate["lb-a"].cut()
        wait_state(bed, "lb-a", "disconnected")
        assert "lb-a is disconnected" in refusal(bed, FIRST, "lb-b", 409)


def test_refused_while_the_target_has_not_found_a_server(bed: Bed) -> None:
    """It would drop that server's connections. The target comes back without knowing any, and its internal side is cut
    off."""
    node = bed.lbs["lb-b"]
    bed.switch.ip("link", "set", plug_of(bed, node, node.lb.internal_port), "nomaster")
    try:
        bed.controller.kill()
        node.ovs.restart_vswitchd()
        bed.start_controller(wait=False)
        for lb in ("lb-a", "lb-b"):
            wait_state(bed, lb, "ready")
        text = refusal(bed, FIRST, "lb-b", 409)
        assert "no ARP answer" in text
        assert "10.0.0.11" in text and "10.0.0.12" in text
    finally:
        bed.switch.ip("link", "set", plug_of(bed, node, node.lb.internal_port), "master", "internal")


def plug_of(bed: Bed, node, device: str) -> str:
    """The other end of an LB's cable, in the namespace of the segments."""
    peer = node.space.ip("-o", "link", "show", device).partition("@if")[2].partition(":")[0]
    return next(
        line.split(": ")[1].partition("@")[0]
        for line in bed.switch.ip("-o", "link").splitlines()
        if line.startswith(f"{peer}: ")
    )


def test_one_move_at_a_time_and_it_can_be_aborted_until_the_route_has_changed(quiet_bed: Bed) -> None:
    bed = quiet_bed
    with gates(bed) as gate:
        loads = mixed_load(bed, FIRST, interval=0.05)
        for strategy, before_step in (("precopy", 0), ("precopy", 1), ("precopy", 2), ("buffered", 1)):
            gate["lb-b"].shut()
            gate["lb-a"].shut()
            ordered = bed.move(FIRST, "lb-b", strategy, wait=False)
            for _ in range(before_step):
                gate["lb-b"].step()
            wait_step(bed, ordered["id"], STEPS[strategy][before_step])
            assert "is being moved to lb-b" in refusal(bed, FIRST, "lb-b", 409)
            reply = bed.rest("DELETE", f"/v1/moves/{ordered['id']}")
            assert (reply.status, reply.json["state"]) == (202, "aborted"), reply.text
            for each in gate.values():
                each.open()
            serves_alone(bed, "lb-a", "lb-b")
            assert "has ended" in bed.rest("DELETE", f"/v1/moves/{ordered['id']}").text
        gate["lb-b"].shut()
        ordered = bed.move(FIRST, "lb-b", "buffered", wait=False)
        gate["lb-b"].step()
        gate["lb-b"].wait()  # route-target: the route has begun to change
        reply = bed.rest("DELETE", f"/v1/moves/{ordered['id']}")
        assert reply.status == 409 and "past its route step" in reply.text
        gate["lb-b"].open()
        assert wait_ended(bed, ordered["id"])["state"] == "done"
        assert_unharmed(loads)


# Bounds

def test_an_overflow_of_held_packets_is_counted_and_the_move_ends(quiet_bed: Bed) -> None:
    """held_packets is 40: TCP repeats what is lost, so nothing breaks."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 60) as talks:
        gate["lb-b"].shut()
        ordered = bed.move(FIRST, "lb-b", "buffered", wait=False)
        gate["lb-b"].step()  # transition
        gate["lb-b"].step()  # route-target; now it waits in the copy step
        gate["lb-b"].wait()
        problems: list[str] = []
        asked = threading.Thread(target=lambda: problems.extend(talks.broken()))
        before = packet_ins(bed, "lb-b")
        asked.start()
        bed.wait_until(lambda: packet_ins(bed, "lb-b") >= before + 60, 5, "60 packets have come to lb-b")
        gate["lb-b"].open()
        record = wait_ended(bed, ordered["id"])
        asked.join()
        assert problems == []
        assert record["state"] == "done"
        assert record["packets_held"] == record["packets_released"] == 40
        assert record["packets_lost"] >= 20
    assert assigned(bed) == "lb-b"


def packet_ins(bed: Bed, lb: str) -> int:
    return bed.rest("GET", f"/v1/load-balancers/{lb}").json["counters"].get("packet_ins", 0)


def test_the_record_of_a_move(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 7):
        record = bed.move(FIRST, "lb-b")
        assert (record["entries_copied"], record["entries_total"]) == (7, 7)
        assert (record["from"], record["to"], record["reason"]) == ("lb-a", "lb-b", None)
        assert all(step["seconds"] >= 0 for step in record["steps"])
        assert record["steps"][-1]["name"] == "grace" and record["steps"][-1]["seconds"] >= 0.5
        assert bed.rest("GET", "/v1/moves").json["moves"] == [record]
