"""Moves in which something breaks: the LB that serves afterwards has every connection."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import pytest

from tests.bed.bed import Bed
from tests.bed.patience import limit
from tests.bed.traffic import request
from tests.integration.gate import gates
from tests.integration.moving import (
    FIRST,
    STRATEGIES,
    Talks,
    assert_unharmed,
    assigned,
    entry_flows,
    mixed_load,
    move,
    serves_alone,
    stop_in,
    wait_ended,
    wait_reached,
    wait_state,
    wait_step,
)

BED = {
    "settings": {"automatic_failover": False, "grace": 0.8, "barrier_timeout": 2.5, "linger": 1, "arp_interval": 2.0}
}
PHASES = [
    # (strategy, confirmations of the target let through, the step that the move is in then)
    ("precopy", 0, "transition"),
    ("precopy", 1, "copy"),
    ("precopy", 2, "route"),
    ("precopy", 3, "normal"),
    ("buffered", 1, "route"),
    ("buffered", 2, "copy"),
]


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """From every LB, every server is reached."""
    wait_reached(bed)
    return bed


# The target dies

def test_the_target_is_killed(quiet_bed: Bed) -> None:
    """In each step before grace. Connections opened meanwhile are not forgotten."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 4) as near, Talks(bed.remote, FIRST, 4) as far:
        for strategy, confirmations, step in PHASES:
            move_id = stop_in(bed, gate, FIRST, strategy, confirmations, step)
            routed = step not in ("transition", "copy") or strategy == "buffered"
            with contextlib.nullcontext(near) if routed else Talks(bed.clients[1], FIRST, 2) as meanwhile:
                bed.lbs["lb-b"].ovs.kill()
                record = wait_ended(bed, move_id)
                assert (record["state"], record["reason"]) == ("rolled-back", "lb-b was lost"), f"{strategy}, {step}"
                assert near.broken() == far.broken() == meanwhile.broken() == [], f"{strategy}, {step}"
                assert request(bed.clients[1], FIRST)["server"].startswith("10.0.0.1")
                gate["lb-b"].open()
                bed.lbs["lb-b"].ovs.start_vswitchd()
                wait_state(bed, "lb-b", "ready")
                wait_reached(bed)
                serves_alone(bed, "lb-a", "lb-b")
        assert near.broken() == far.broken() == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_target_is_killed_in_the_grace_step_under_load(bed: Bed, strategy: str) -> None:
    """With connections that were opened when it served already."""
    loads = mixed_load(bed, FIRST, interval=0.05, requests=0)
    move_id = bed.move(FIRST, "lb-b", strategy, wait=False)["id"]
    wait_step(bed, move_id, "grace")
    with Talks(bed.clients[1], FIRST, 3) as new:
        bed.lbs["lb-b"].ovs.kill()
        record = wait_ended(bed, move_id)
        assert (record["state"], record["reason"]) == ("rolled-back", "lb-b was lost")
        assert new.broken() == []
        time.sleep(0.3)
        assert_unharmed(loads, 0)
        assert assigned(bed) == "lb-a"


def test_killed_after_the_move_its_connections_are_dead(bed: Bed) -> None:
    """The naive twin of the tests above: nobody rolls anything back."""
    with Talks(bed.clients[0], FIRST, 2) as talks:
        assert bed.move(FIRST, "lb-b")["state"] == "done"
        bed.lbs["lb-b"].ovs.kill()
        assert len(talks.broken(timeout=1)) == 2


# The target does not answer

@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_target_is_stopped(bed: Bed, strategy: str) -> None:
    """Its barrier does not come. When it goes on, it must not attract the clients."""
    loads = mixed_load(bed, FIRST, interval=0.05)
    pid = bed.lbs["lb-b"].ovs.vswitchd_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        move_id = bed.move(FIRST, "lb-b", strategy, wait=False)["id"]
        assert "is being moved" in bed.rest("POST", f"/v1/external-ips/{FIRST}/move", {"to": "lb-b"}).text
        record = wait_ended(bed, move_id)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert record["state"] == "rolled-back"
    assert "lb-b did not confirm the transition step within 2.5 s" in record["reason"]
    assert record["steps"][0]["seconds"] >= 2.5
    bed.wait_ready()
    serves_alone(bed, "lb-a", "lb-b")
    assert_unharmed(loads)
    assert bed.move(FIRST, "lb-b", strategy)["state"] == "done"


def test_a_confirmation_of_the_target_does_not_come(quiet_bed: Bed) -> None:
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 4) as near, Talks(bed.remote, FIRST, 4) as far:
        for strategy, confirmations, step in (PHASES[1], PHASES[2], PHASES[5]):
            move_id = stop_in(bed, gate, FIRST, strategy, confirmations, step)
            record = wait_ended(bed, move_id)
            assert record["state"] == "rolled-back" and f"did not confirm the {step} step" in record["reason"], record
            gate["lb-b"].open()
            assert near.broken() == far.broken() == []
            serves_alone(bed, "lb-a", "lb-b")


def test_the_target_refuses_entries(bed: Bed) -> None:
    """Its table is full."""
    node = bed.lbs["lb-b"]
    node.ovs.vsctl(
        "--", "--id=@t", "create", "Flow_Table", "flow_limit=3", "--", "set", "bridge", node.bridge, "flow_tables:20=@t"
    )
    try:
        with Talks(bed.clients[0], FIRST, 5) as talks:
            record = bed.move(FIRST, "lb-b")
            assert record["state"] == "rolled-back" and "that table is full" in record["reason"], record
            assert talks.broken() == []
            serves_alone(bed, "lb-a", "lb-b")
    finally:
        node.ovs.vsctl("clear", "bridge", node.bridge, "flow_tables")


def test_the_state_cannot_be_saved(bed: Bed) -> None:
    """The route must not change then: a restarted controller would think that the source serves."""
    state_file = bed.controller.directory / "lbctl-state.json"
    bed.wait_until(state_file.exists, 3, "the first state is saved")
    state_file.unlink()
    state_file.mkdir()
    try:
        with Talks(bed.clients[0], FIRST, 3) as talks:
            record = bed.move(FIRST, "lb-b")
            assert record["state"] == "rolled-back" and "can't be written" in record["reason"], record
            assert talks.broken() == []
            serves_alone(bed, "lb-a", "lb-b")
    finally:
        state_file.rmdir()


# The source dies

def test_the_source_is_killed_before_the_route_has_changed(quiet_bed: Bed) -> None:
    """No failover yet: it comes back, and has every connection."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 4) as near:
        move_id = stop_in(bed, gate, FIRST, "precopy", 1, "copy")
        bed.lbs["lb-a"].ovs.kill()
        record = wait_ended(bed, move_id)
        assert record["state"] == "rolled-back" and "lb-a was lost before the route had changed" in record["reason"]
        gate["lb-b"].open()
        bed.lbs["lb-a"].ovs.start_vswitchd()
        wait_state(bed, "lb-a", "ready")
        assert near.broken(timeout=limit(10)) == []
        serves_alone(bed, "lb-a", "lb-b")


def test_the_source_is_killed_after_the_route_has_changed(quiet_bed: Bed) -> None:
    """The target has or gets everything."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 4) as near, Talks(bed.remote, FIRST, 4) as far:
        for strategy, confirmations, step in (PHASES[2], PHASES[3], PHASES[5]):
            move_id = stop_in(bed, gate, FIRST, strategy, confirmations, step)
            bed.lbs["lb-a"].ovs.kill()
            gate["lb-b"].open()
            assert near.broken() == far.broken() == [], f"{strategy}, {step}"
            assert wait_ended(bed, move_id)["state"] == "done"
            bed.lbs["lb-a"].ovs.start_vswitchd()
            wait_state(bed, "lb-a", "ready")
            serves_alone(bed, "lb-b", "lb-a")
            wait_reached(bed)
            assert bed.move(FIRST, "lb-a")["state"] == "done"
            serves_alone(bed, "lb-a", "lb-b")
        assert near.broken() == far.broken() == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_source_does_not_confirm_that_it_is_normal_no_more(quiet_bed: Bed, strategy: str) -> None:
    """The move goes on without it after barrier_timeout."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 4) as near, Talks(bed.remote, FIRST, 4) as far:
        gate["lb-a"].shut()
        move_id = bed.move(FIRST, "lb-b", strategy, wait=False)["id"]
        gate["lb-a"].step()  # route-source
        gate["lb-a"].wait()
        wait_step(bed, move_id, "normal")
        if strategy == "precopy":
            assert near.broken() == far.broken() == [], "the target forwards what it knows"
        record = wait_ended(bed, move_id)
        assert record["state"] == "done" and record["packets_lost"] == 0, record
        gate["lb-a"].open()
        serves_alone(bed, "lb-b", "lb-a")
        assert near.broken() == far.broken() == []


# An LB without a controller

def test_the_target_is_cut_off_while_it_has_the_entries_and_some_end_meanwhile(quiet_bed: Bed) -> None:
    """What it holds of the external IP is deleted when it returns, not taken for connections."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as stay:
        with Talks(bed.clients[1], FIRST, 3):
            move_id = stop_in(bed, gate, FIRST, "precopy", 2, "route")
            gate["lb-b"].cut()
            assert wait_ended(bed, move_id)["state"] == "rolled-back"
            assert len(entry_flows(bed, "lb-b")) == 12
        bed.wait_until(lambda: len(bed.entries("lb-a")) == 3, 6, "three connections have ended")
        gate["lb-b"].open()
        gate["lb-b"].mend()
        wait_state(bed, "lb-b", "ready")
        serves_alone(bed, "lb-a", "lb-b")
        assert len(bed.entries("lb-a")) == 3
        assert stay.broken() == []


def test_the_source_is_cut_off_in_the_grace_step_and_entries_end_meanwhile(quiet_bed: Bed) -> None:
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as stay:
        with Talks(bed.clients[1], FIRST, 3):
            move_id = bed.move(FIRST, "lb-b", wait=False)["id"]
            wait_step(bed, move_id, "grace")
            gate["lb-a"].cut()
            wait_state(bed, "lb-a", "disconnected")
        assert wait_ended(bed, move_id)["state"] == "done"
        assert len(entry_flows(bed, "lb-a")) == 12
        bed.wait_until(lambda: len(bed.entries("lb-b")) == 3, 6, "three connections have ended")
        gate["lb-a"].mend()
        wait_state(bed, "lb-a", "ready")
        serves_alone(bed, "lb-b", "lb-a")
        assert len(bed.entries("lb-b")) == 3 and stay.broken() == []
        assert move(bed, move_id)["state"] == "done"
