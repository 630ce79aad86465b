"""What is ordered is confirmed: a switch that holds something else than was ordered, or refuses it (docs/failover.md,
"What is ordered is confirmed")."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from lbctl.openflow.tables import number
from tests.bed.balancer import BalancerNode
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.sites import simple_site
from tests.bed.traffic import request
from tests.integration.hands import counters, metric
from tests.integration.moving import FIRST, SECOND, Talks
from tests.integration.test_lbctl_command import lbctl
from tests.integration.test_site_file import without_ip

SITE = simple_site(external_ips=2, servers=2, settings={"grace": 0.5, "linger": 1})
BED = {"site": SITE, "apps": ("tests/integration/hasty_audits.py", *APPS)}
MODE = f"table={number('transfer_mode')}"


def right(bed: Bed, lb: str = "lb-a") -> set[str]:
    """The flows that are no connection's, and that stay."""
    entries = "cookie=0x1b04", "cookie=0x1b05"
    return {line for line in bed.lbs[lb].dump_flows().splitlines()
            if "hard_timeout" not in line and not line.strip().startswith(entries)}


def held_meters(bed: Bed) -> list[str]:
    return sorted(bed.lbs["lb-a"].ovs.ofctl("dump-meters", "lb-a").splitlines())


def balancer(bed: Bed, lb: str) -> dict[str, Any]:
    found: dict[str, Any] = bed.rest("GET", f"/v1/load-balancers/{lb}").json
    return found


def put_right(bed: Bed) -> int:
    found: int = counters(bed)["other"].get("flows_put_right", 0)
    return found


CHANGES = {
    "some are deleted": ("del-flows", "lb-a", MODE),
    "all are deleted": ("del-flows", "lb-a"),
    "their actions are changed": ("mod-flows", "lb-a", f"{MODE},actions=drop"),
    "the meters are deleted": ("del-meters", "lb-a"),
}


@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES)
def test_what_somebody_changes_by_hand_is_put_right(live: Bed, command: tuple[str, ...]) -> None:
    before, told = right(live), put_right(live)
    meters = held_meters(live)
    looked = audits(live)
    live.wait_until(lambda: audits(live) >= looked + 2, 10, "what the flows look like is known")
    live.lbs["lb-a"].ovs.ofctl(*command)
    live.wait_until(lambda: put_right(live) > told, 15, "it is noticed")
    live.wait_until(lambda: right(live) >= before, 15, f"the flows are as before, without {before - right(live)}")
    assert right(live) == before
    assert held_meters(live) == meters
    request(live.clients[0], FIRST)
    assert live.controller.logged("flows were not as ordered, and are put right")
    live.wait_until(lambda: balancer(live, "lb-a")["state"] == "ready", 10, "and confirmed")


def audits(bed: Bed) -> float:
    """How often lb-a has been looked at."""
    return metric(bed, 'lbctl_events_total{dp_name="lb-a",event="audits"}')


def test_where_nobody_looks_it_stays_so(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_audits.py", *APPS)
    quiet_bed.start_controller()
    quiet_bed.lbs["lb-a"].ovs.ofctl("del-flows", "lb-a", MODE)
    with pytest.raises(OSError):
        request(quiet_bed.clients[0], FIRST, timeout=3.0)
    assert put_right(quiet_bed) == 0


def test_flows_of_others_are_told_and_left_alone(live: Bed) -> None:
    ovs = live.lbs["lb-a"].ovs
    ovs.ofctl("add-flow", "lb-a", "priority=9,tcp,tp_dst=9999,actions=drop")
    live.wait_until(lambda: balancer(live, "lb-a")["foreign_flows"] == 1, 15, "the flow is told of")
    assert "tp_dst=9999" in live.lbs["lb-a"].dump_flows()
    ovs.ofctl("del-flows", "lb-a", "cookie=0/-1,tcp,tp_dst=9999")
    live.wait_until(lambda: balancer(live, "lb-a")["foreign_flows"] == 0, 15, "it is gone")


def fill(bed: Bed, lb: str, table: str) -> None:
    """That table takes no flow more."""
    count = sum(line.strip().split(" ")[1].startswith(f"table={number(table)},")
                for line in bed.lbs[lb].dump_flows().splitlines())
    bed.lbs[lb].ovs.vsctl("--", "--id=@full", "create", "Flow_Table", f"flow_limit={count}", "overflow_policy=refuse",
                          "--", "set", "bridge", lb, f"flow_tables:{number(table)}=@full")


def make_room(bed: Bed, lb: str) -> None:
    bed.lbs[lb].ovs.vsctl("clear", "bridge", lb, "flow_tables")


def test_a_move_whose_flows_are_refused_is_rolled_back(bed: Bed) -> None:
    """And once there is room it is not."""
    with Talks(bed.clients[0], FIRST, 5) as talks:
        fill(bed, "lb-b", "arp")
        try:
            record = bed.move(FIRST, "lb-b")
            assert record["state"] == "rolled-back"
            assert "lb-b: it refuses a flow of table arp (1): that table is full" in record["reason"]
            assert talks.broken() == []
        finally:
            make_room(bed, "lb-b")
        bed.wait_until(lambda: balancer(bed, "lb-b")["state"] == "ready", 70, "it takes all that is ordered")
        assert bed.move(FIRST, "lb-b")["state"] == "done" and answers_for_first(bed.lbs["lb-b"])
        assert talks.broken() == []


def answers_for_first(node: BalancerNode) -> bool:
    """Has it the flow that answers ARP for that external IP?"""
    return f"arp_tpa={FIRST}," in node.dump_flows()


def test_a_naive_controller_moves_there(quiet_bed: Bed) -> None:
    """The twin: it takes an LB for one that does what it is told."""
    quiet_bed.controller.apps = ("tests/integration/naive_audits.py", *APPS)
    quiet_bed.start_controller()
    fill(quiet_bed, "lb-b", "arp")
    try:
        record = quiet_bed.move(FIRST, "lb-b")
        assert record["state"] == "done"
        assert not any(answers_for_first(node) for node in quiet_bed.lbs.values())
    finally:
        make_room(quiet_bed, "lb-b")


@contextlib.contextmanager
def with_one_that_refuses(bed: Bed) -> Iterator[None]:
    """lb-b has no room for an external IP that has come to it by the site file."""
    bed.controller.configure(without_ip(SITE, SECOND))
    bed.start_controller()
    fill(bed, "lb-b", "transfer_mode")
    try:
        bed.controller.kill()
        bed.controller.configure(SITE)
        bed.start_controller(wait=False)
        bed.wait_until(lambda: balancer(bed, "lb-b")["state"] == "unfit", 15, "it refuses what is new")
        yield
    finally:
        make_room(bed, "lb-b")


def test_a_switch_that_comes_back_is_ready_once_it_has_taken_all(quiet_bed: Bed) -> None:
    with with_one_that_refuses(quiet_bed):
        quiet_bed.wait_until(lambda: balancer(quiet_bed, "lb-a")["state"] == "ready", 15, "the other one is ready")
        assert "it refuses a flow of table transfer_mode" in balancer(quiet_bed, "lb-b")["reason"]
        assert metric(quiet_bed, 'lbctl_load_balancer_ready{dp_name="lb-b"}') == 0
        refused = quiet_bed.rest("POST", f"/v1/external-ips/{FIRST}/move", {"to": "lb-b"})
        assert refused.status == 409 and "is unfit" in refused.json["detail"]
        told = lbctl(quiet_bed, "doctor", status=1)
        assert "lb-b is unfit" in told and "flow_limit" in told
        assert "unfit" in lbctl(quiet_bed, "status")
    quiet_bed.wait_ready(70)
    request(quiet_bed.clients[0], SECOND)
    assert quiet_bed.move(FIRST, "lb-b")["state"] == "done"
