"""The controller or a switch goes and comes back: rules that were right stay, and connections live."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from functools import partial

import pytest

from lbctl.connections.recovery import IN_FLIGHT
from tests.bed.bed import Bed
from tests.bed.controller import ControllerError
from tests.bed.patience import limit
from tests.bed.traffic import connect
from tests.integration.gate import gates, restart, start_again
from tests.integration.moving import (
    FIRST,
    SECOND,
    STRATEGIES,
    Talks,
    assert_unharmed,
    assigned,
    entry_flows,
    mixed_load,
    move,
    serves_alone,
    wait_ended,
    wait_reached,
    wait_state,
    wait_step,
)

BED = {
    "settings": {"automatic_failover": False, "grace": 1.0, "barrier_timeout": 3.0, "linger": 1, "arp_interval": 2.0}
}


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """From every LB, every server is reached."""
    wait_reached(bed)
    return bed


def hashes(bed: Bed) -> dict[str, str]:
    return {name: node.tables_hash() for name, node in bed.lbs.items()}


def age(entry: dict) -> float:
    return time.time() - datetime.fromisoformat(entry["created"]).replace(tzinfo=UTC).timestamp()


def columns(entries: list[dict]) -> list[tuple]:
    names = ("protocol", "client", "client_port", "external_ip", "external_port", "server", "server_port", "next_hop")
    return sorted(tuple(entry[name] for name in names) for entry in entries)


# The controller

def test_killed_twice_nothing_changes(bed: Bed) -> None:
    """Long connections under load, on both LBs and through the router; another has an entry but is quiet."""
    with connect(bed.clients[0], FIRST) as quiet:
        loads = [bed.load(space, address, lines=8, interval=0.05)
                 for space, address in ((bed.clients[0], FIRST), (bed.remote, FIRST), (bed.clients[1], SECOND))]
        before, entries = hashes(bed), {lb: columns(bed.entries(lb)) for lb in bed.lbs}
        assert [len(found) for found in entries.values()] == [17, 8]
        for _ in range(2):
            oldest = max(age(entry) for entry in bed.entries("lb-a"))
            bed.restart_controller()
            wait_reached(bed)
            assert hashes(bed) == before
            assert {lb: columns(bed.entries(lb)) for lb in bed.lbs} == entries
            for entry in bed.entries("lb-a"):
                assert (
                    entry["state"] == "open" and -1 < age(entry) < limit(60) and entry["created"] <= entry["last_seen"]
                )
            assert max(age(entry) for entry in bed.entries("lb-a")) >= oldest - 1.5, "entries have become younger"
            assert bed.rest("GET", f"/v1/external-ips/{FIRST}").json["connections"] == 17
        for load in loads:
            assert load.stop().broken == []
        quiet.sendall(b"still\n")
        assert quiet.recv(100).endswith(b" still\n")
        quiet.close()
        bed.wait_until(
            lambda: bed.entries("lb-a") == [] and entry_flows(bed, "lb-a") == [],
            8,
            "entries taken over end like any other",
        )


def test_a_restart_that_finds_no_flows_breaks_connections(bed: Bed) -> None:
    """The naive twin: a controller that begins with empty switches."""
    with Talks(bed.clients[0], FIRST, 3) as talks:
        bed.controller.kill()
        for node in bed.lbs.values():
            node.ovs.ofctl("del-flows", node.bridge)
        bed.start_controller()
        assert len(talks.broken(timeout=3)) == 3


def test_restarted_with_new_connections_all_the_while(quiet_bed: Bed) -> None:
    """What is asked for while nobody can choose a server waits; nothing fails."""
    bed = quiet_bed
    with gates(bed) as gate:
        loads = mixed_load(bed, FIRST)
        time.sleep(0.3)
        restart(bed, gate)
        time.sleep(0.3)
        bed.controller.stop()  # in an orderly way
        start_again(bed, gate)
        time.sleep(0.3)
        assert_unharmed(loads)


def test_what_was_deleted_meanwhile_is_put_back_and_what_is_not_ours_stays(bed: Bed) -> None:
    node = bed.lbs["lb-a"]
    with Talks(bed.clients[0], FIRST, 3) as talks:
        before = node.dump_flows()
        bed.controller.kill()
        node.ovs.ofctl("--strict", "del-flows", node.bridge, "table=30,priority=110,icmp")  # one rule
        node.ovs.ofctl("del-flows", node.bridge, "table=10")  # a table
        node.ovs.ofctl("del-flows", node.bridge, "table=40,ip,nw_dst=10.0.0.11")  # how to reach a server
        foreign = ["table=0,cookie=0xbeef,priority=7,udp,tp_dst=9,actions=drop", "table=77,priority=7,actions=drop"]
        for flow in foreign:
            node.ovs.ofctl("add-flow", node.bridge, flow)
        stale = (
            "table=10,cookie=0x1b03123400000000,priority=100,ip,in_port=1,nw_dst=198.51.100.99,actions=goto_table:15"
        )
        node.ovs.ofctl("add-flow", node.bridge, stale)  # with our mark: an older site file's
        bed.start_controller()
        after = node.dump_flows().splitlines()
        ours = [line for line in after if "cookie=0xbeef" not in line and "table=77" not in line]
        assert "".join(line + "\n" for line in ours) == before
        assert len(after) - len(ours) == len(foreign)
        assert talks.broken() == []


def test_a_deleted_meter_is_put_back(bed: Bed) -> None:
    node = bed.lbs["lb-a"]
    before = node.tables_hash()
    bed.controller.kill()
    node.ovs.ofctl("del-meters", node.bridge)
    bed.start_controller()
    assert node.tables_hash() == before


def test_the_assignment_survives_whatever_the_site_file_says(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 3) as talks:
        assert bed.move(FIRST, "lb-b")["state"] == "done"
        serves_alone(bed, "lb-b", "lb-a")
        assert "load_balancer: lb-a" in bed.controller.site_file.read_text()
        before = hashes(bed)
        bed.restart_controller()
        assert hashes(bed) == before
        serves_alone(bed, "lb-b", "lb-a")
        assert talks.broken() == []
        bed.controller.kill()
        text = bed.controller.site_file.read_text()
        lines = "address: 198.51.100.2\n  load_balancer: "
        assert f"{lines}lb-b" in text
        bed.controller.write_site(text.replace(f"{lines}lb-b", f"{lines}lb-a"))
        bed.start_controller()
        assert assigned(bed, SECOND) == "lb-b", "an edited site file has moved an external IP"
        assert hashes(bed) == before and talks.broken() == []


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"format": 99}',
        '{"format": 1, "assigned": {"198.51.100.1": "lb-a"}',
        '{"format": 1, "assigned": {"x": "lb-a"}, "unfinished": {}}',
        "\\xff\\xfe",
    ],
)
def test_a_damaged_state_file_is_one_clear_line(quiet_bed: Bed, damage: str) -> None:
    state_file = quiet_bed.controller.directory / "lbctl-state.json"
    state_file.write_bytes(damage.encode("latin-1").decode("unicode_escape").encode("latin-1"))
    with pytest.raises(ControllerError):
        quiet_bed.start_controller(wait=False)
    log = quiet_bed.controller.log_file.read_text().rpartition("--- started")[2]
    told = [line for line in log.splitlines() if "lbctl-state.json" in line]
    assert (
        len(told) == 1
        and told[0].startswith("lbctl: ")
        and "remove it to start from the assignment in the site file" in told[0]
    )
    assert "Traceback" not in log


# The controller, in the middle of a move

def test_killed_before_the_route_step_the_source_serves_on(quiet_bed: Bed) -> None:
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as near, Talks(bed.remote, FIRST, 3) as far:
        before = hashes(bed)
        for strategy, confirmations, step in (("precopy", 1, "copy"), ("buffered", 0, "transition")):
            gate["lb-b"].shut()
            move_id = bed.move(FIRST, "lb-b", strategy, wait=False)["id"]
            for _ in range(confirmations):
                gate["lb-b"].step()
            gate["lb-b"].wait()
            wait_step(bed, move_id, step)
            bed.controller.kill()
            assert near.broken() == far.broken() == [], "without a controller"
            gate["lb-b"].open()
            start_again(bed, gate)
            serves_alone(bed, "lb-a", "lb-b")
            assert hashes(bed) == before
            assert near.broken() == far.broken() == []
        assert bed.move(FIRST, "lb-b")["state"] == "done", "it can be moved again"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("step", ["route", "normal", "grace"])
def test_killed_after_the_route_has_changed_the_move_is_finished(quiet_bed: Bed, strategy: str, step: str) -> None:
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as near, Talks(bed.remote, FIRST, 3) as far:
        if step == "route":
            gate["lb-b"].shut()
        if step == "normal":
            gate["lb-a"].shut()
        move_id = bed.move(FIRST, "lb-b", strategy, wait=False)["id"]
        if step == "route":
            gate["lb-b"].step()
            if strategy == "precopy":
                gate["lb-b"].step()
            gate["lb-b"].wait()
        if step == "normal":
            gate["lb-a"].step()
            gate["lb-a"].wait()
        wait_step(bed, move_id, step)
        bed.controller.kill()
        for each in gate.values():
            each.open()
        if strategy == "precopy":
            assert near.broken() == far.broken() == [], "without a controller"
        start_again(bed, gate)
        record = bed.rest("GET", "/v1/moves").json["moves"][0]
        assert (record["from"], record["to"], record["strategy"]) == ("lb-a", "lb-b", strategy)
        assert near.broken() == far.broken() == []
        assert wait_ended(bed, record["id"])["state"] == "done"
        serves_alone(bed, "lb-b", "lb-a")
        assert near.broken() == far.broken() == []
        assert len(bed.entries("lb-b")) == 6
        file = bed.controller.directory / "lbctl-state.json"
        bed.wait_until(lambda: json.loads(file.read_text())["unfinished"] == {}, 2, "its end is kept")
        assert json.loads(file.read_text())["assigned"][FIRST] == "lb-b"


def test_killed_in_a_move_under_load_again_and_again(quiet_bed: Bed) -> None:
    """At moments that differ each time: whoever serves in the end, the connections live and one LB serves alone."""
    bed = quiet_bed
    with gates(bed) as gate:
        loads, resumed = mixed_load(bed, FIRST, interval=0.05), 0
        for n in range(4):
            source = assigned(bed)
            move_id = bed.move(FIRST, other(source), STRATEGIES[n % 2], wait=False)["id"]
            if n < 2:
                time.sleep(bed.site.settings.settle + 0.01 * n)  # the route step begins then, on a quick machine
            else:
                bed.wait_until(partial(past_route, bed, move_id), 5, "the route has changed")
            restart(bed, gate)
            for record in bed.rest("GET", "/v1/moves").json["moves"]:
                assert wait_ended(bed, record["id"])["state"] == "done"
                resumed += 1
            serves_alone(bed, assigned(bed), other(assigned(bed)))
        assert resumed >= 2, "it was never killed in a move"
        assert_unharmed(loads)


def past_route(bed: Bed, move_id: str) -> bool:
    return move(bed, move_id)["step"] in ("normal", "grace")


def other(lb: str) -> str:
    return "lb-b" if lb == "lb-a" else "lb-a"


def test_a_target_that_does_not_come_back_after_the_restart(quiet_bed: Bed) -> None:
    """The move cannot be finished: after some seconds the source serves."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as near:
        gate["lb-b"].shut()
        bed.move(FIRST, "lb-b", wait=False)
        gate["lb-b"].step()
        gate["lb-b"].step()
        gate["lb-b"].wait()
        bed.controller.kill()
        bed.lbs["lb-b"].ovs.kill()
        bed.start_controller(wait=False)
        gate["lb-a"].reconnect()
        record = wait_ended(bed, "1", timeout=20)
        assert record["state"] == "rolled-back" and "lb-b" in record["reason"]
        assert near.broken(timeout=limit(10)) == []
        gate["lb-b"].open()
        bed.lbs["lb-b"].ovs.start_vswitchd()
        bed.wait_ready()
        serves_alone(bed, "lb-a", "lb-b")


# A switch

def test_a_switch_that_is_killed_gets_everything_back(bed: Bed) -> None:
    node = bed.lbs["lb-a"]
    loads = [bed.load(space, FIRST, lines=5, interval=0.05) for space in (bed.clients[0], bed.remote)]
    with Talks(bed.clients[1], FIRST, 3) as quiet:
        before, entries = node.tables_hash(), columns(bed.entries("lb-a"))
        for _ in range(2):
            node.ovs.kill()
            wait_state(bed, "lb-a", "disconnected")
            node.ovs.start_vswitchd()
            wait_state(bed, "lb-a", "ready")
            bed.wait_ready()
            bed.wait_until(lambda: node.tables_hash() == before, 3, "the tables are as before")
            assert columns(bed.entries("lb-a")) == entries
        assert quiet.broken(timeout=limit(10)) == []
        for load in loads:
            assert load.stop().broken == []


def test_a_switch_that_stays_empty_has_lost_its_connections(bed: Bed) -> None:
    """The naive twin."""
    node = bed.lbs["lb-a"]
    with Talks(bed.clients[0], FIRST, 3) as talks:
        node.ovs.vsctl("del-controller", node.bridge)
        node.ovs.kill()
        node.ovs.start_vswitchd()
        assert len(talks.broken(timeout=2)) == 3


def test_connections_that_end_while_the_switch_is_cut_off(quiet_bed: Bed) -> None:
    """Its flow-removed messages are lost; those that stay, stay."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as stay:
        with Talks(bed.clients[1], FIRST, 4):
            time.sleep(IN_FLIGHT)  # what is younger is put back: its flows might not have arrived before the cut
            gate["lb-a"].cut()
            wait_state(bed, "lb-a", "disconnected")
            assert stay.broken() == [], "fail_mode secure"
        bed.wait_until(lambda: len(entry_flows(bed, "lb-a")) == 6, 8, "the flows of four connections have run out")
        assert len(bed.entries("lb-a")) == 7, "the controller cannot know"
        gate["lb-a"].mend()
        wait_state(bed, "lb-a", "ready")
        assert len(bed.entries("lb-a")) == 3
        assert stay.broken() == []


def test_half_of_an_entry_runs_out_while_the_switch_is_cut_off(quiet_bed: Bed) -> None:
    """The client has sent its FIN; the server's side ends when the switch is back. Then the entry ends."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 1) as talks:
        owner = entry_flows(bed, "lb-a")
        inward = next(line for line in owner if "table=20" in line)
        gate["lb-a"].cut()
        wait_state(bed, "lb-a", "disconnected")
        match = inward.partition("priority=100,")[2].partition(" actions")[0]
        bed.lbs["lb-a"].ovs.ofctl("del-flows", "lb-a", f"table=20,{match}")  # as if it had run out
        gate["lb-a"].mend()
        wait_state(bed, "lb-a", "ready")
        assert [entry["state"] for entry in bed.entries("lb-a")] == ["half-closed"]
        talks.close()
        bed.wait_until(lambda: bed.entries("lb-a") == [], 8, "the entry has ended")


def test_the_external_ip_moves_on_while_its_former_lb_is_cut_off(quiet_bed: Bed) -> None:
    """The former LB must not answer for it when it returns."""
    bed = quiet_bed
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as talks:
        move_id = bed.move(FIRST, "lb-b", wait=False)["id"]
        wait_step(bed, move_id, "grace")
        gate["lb-a"].cut()
        assert wait_ended(bed, move_id)["state"] == "done"
        gate["lb-a"].mend()
        wait_state(bed, "lb-a", "ready")
        serves_alone(bed, "lb-b", "lb-a")
        assert "arp_tpa=198.51.100.1," not in bed.lbs["lb-a"].dump_flows()
        assert talks.broken() == [] and move(bed, move_id)["state"] == "done"
