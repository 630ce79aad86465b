"""External IPs are assigned anew by what they carry: by order, by draining an LB, and by itself; and when they are
not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lbctl.site.model import Rebalance, Site
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.sites import simple_site
from tests.bed.traffic import Load
from tests.integration.gate import gates
from tests.integration.injection import APP, Injection
from tests.integration.moving import assert_unharmed, assigned, mixed_load, wait_reached

ADDRESSES = tuple(f"198.51.100.{number}" for number in range(1, 5))
PLAIN = simple_site(
    external_ips=4, servers=1, settings={"load_period": 0.5, "grace": 0.5, "linger": 1, "arp_interval": 2.0}
)
ALL_ON_A = replace(PLAIN, external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in PLAIN.external_ips))
BED = {"site": ALL_ON_A}
RATE = 10_000.0
"""Packets a second: so much that it does not count that connections are opened."""
ALIKE = dict.fromkeys(ADDRESSES, RATE)
COOLDOWN = 1.5
LONG = 10
"""Periods in which by itself more than one plan could be made, were there a reason."""


def begin(bed: Bed, site: Site = ALL_ON_A) -> None:
    bed.controller.configure(site)
    bed.start_controller()
    wait_reached(bed)


@pytest.fixture
def carried(quiet_bed: Bed) -> Injection:
    """The test says what the external IPs carry. The connections of load_all() are there to see that none is harmed."""
    quiet_bed.controller.apps = (APP, *APPS)
    return Injection(quiet_bed, ALIKE)


def load_all(bed: Bed) -> list[Load]:
    loads = [load for address in ADDRESSES for load in mixed_load(bed, address, lines=2, requests=0, interval=0.02)]
    bed.wait_until(lambda: min(measured(bed)) > 50, 8, "all are loaded")
    return loads


def measured(bed: Bed) -> list[float]:
    """What each external IP carries, packets a second, as the controller says."""
    ips = bed.rest("GET", "/v1/external-ips").json["external_ips"]
    return [ip["load"]["packets_per_second"] for ip in ips]


def last_plan(bed: Bed) -> dict:
    return bed.rest("GET", "/v1/rebalance").json


def shares(bed: Bed) -> dict[str, int]:
    where = [assigned(bed, address) for address in ADDRESSES]
    return {lb: where.count(lb) for lb in bed.lbs}


def test_a_plan_and_its_execution(quiet_bed: Bed) -> None:
    """By what was measured."""
    bed = quiet_bed
    begin(bed)
    loads = load_all(bed)
    bed.wait_until(lambda: max(measured(bed)) < 1.5 * min(measured(bed)), 20, "what they carry is alike, or nearly")
    plan = bed.rest("POST", "/v1/rebalance", {"dry_run": True})
    assert plan.status == 200 and plan.json["state"] == "dry-run", plan.text
    assert len(plan.json["moves"]) == 2
    assert max(plan.json["after"].values()) < 0.7 * max(plan.json["before"].values())
    assert shares(bed) == {"lb-a": 4, "lb-b": 0}, "a dry run moves nothing"
    answer = bed.controller.cli("rebalance", "--wait", "--json")
    done = json.loads(answer.stdout)
    assert (answer.returncode, done["state"], len(done["started_moves"])) == (0, "done", 2), answer.stderr
    assert shares(bed) == {"lb-a": 2, "lb-b": 2}
    assert_unharmed(loads, succeeded=0)


def test_an_lb_is_drained(quiet_bed: Bed) -> None:
    bed = quiet_bed
    begin(bed, PLAIN)
    loads = load_all(bed)
    answer = bed.controller.cli("drain", "lb-a", "--wait")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert shares(bed) == {"lb-a": 0, "lb-b": 4}
    bed.restart_controller()
    assert bed.rest("GET", "/v1/load-balancers/lb-a").json["drained"] is True, "also after a restart"
    refused = bed.rest("POST", "/v1/load-balancers/lb-b/drain", {})
    assert refused.status == 409 and "no load balancer is left" in refused.json["detail"]
    assert bed.rest("GET", "/v1/load-balancers/lb-b").json["drained"] is False, "what is refused changes nothing"
    assert bed.controller.cli("drain", "lb-a", "--undo").returncode == 0
    assert shares(bed) == {"lb-a": 0, "lb-b": 4}, "nothing moves back by that"
    assert_unharmed(loads, succeeded=0)


def test_by_itself(quiet_bed: Bed, carried: Injection) -> None:
    """Until it has settled, and then never again under the same load."""
    bed = quiet_bed
    begin(bed)
    loads = load_all(bed)
    automatic = Rebalance("automatic", threshold=0.5, cooldown=COOLDOWN)
    bed.controller.reload(replace(ALL_ON_A, rebalance=automatic))
    bed.wait_until(lambda: all(shares(bed).values()), 15, "some have moved")
    bed.wait_until(lambda: last_plan(bed)["state"] == "done", 8, "done")
    settled, where = last_plan(bed), shares(bed)
    assert where == {"lb-a": 2, "lb-b": 2}
    assert max(settled["after"].values()) < 0.6 * max(settled["before"].values()), "half, and what connections weigh"
    carried.say(ALIKE)
    carried.wait(LONG)
    assert (shares(bed), last_plan(bed)) == (where, settled)
    assert_unharmed(loads, succeeded=0)


def test_after_a_step_of_load_it_settles_in_one_round(quiet_bed: Bed, carried: Injection) -> None:
    bed = quiet_bed
    begin(bed, replace(PLAIN, rebalance=Rebalance("automatic", threshold=0.5, cooldown=COOLDOWN)))
    loads = load_all(bed)
    carried.say(ALIKE)
    carried.wait(LONG)
    assert bed.rest("GET", "/v1/rebalance").status == 404, "two and two, alike: nothing to do"
    hot = ADDRESSES[0], ADDRESSES[2]
    step = ALIKE | dict.fromkeys(hot, 5 * RATE)
    carried.say(step)
    bed.wait_until(lambda: assigned(bed, hot[0]) != assigned(bed, hot[1]), 20, "those with the load are apart")
    bed.wait_until(lambda: last_plan(bed)["state"] == "done", 8, "done")
    where = shares(bed)
    carried.say(step)
    carried.wait(LONG)
    assert (shares(bed), last_plan(bed)["id"]) == (where, "1"), "one plan, and nothing afterwards"
    assert_unharmed(loads, succeeded=0)


NOISE = Rebalance("automatic", threshold=0.3, cooldown=COOLDOWN)


def test_under_noise_nothing_moves(quiet_bed: Bed, carried: Injection) -> None:
    """A load that would be worth a plan if it stayed goes from one LB to the other and back, all the time."""
    bed = quiet_bed
    begin(bed, replace(PLAIN, rebalance=NOISE))
    loads = load_all(bed)
    hops = [ALIKE | {ADDRESSES[hop % 4]: 4 * RATE} for hop in range(LONG + 6)]
    carried.say(*hops)
    carried.wait(len(hops))
    assert bed.rest("GET", "/v1/rebalance").status == 404
    assert_unharmed(loads, succeeded=0)


def test_twin_of_noise_a_load_that_stays_is_worth_a_plan(quiet_bed: Bed, carried: Injection) -> None:
    bed = quiet_bed
    begin(bed, replace(PLAIN, rebalance=NOISE))
    loads = load_all(bed)
    carried.say(ALIKE | {ADDRESSES[0]: 4 * RATE})
    bed.wait_until(lambda: bed.rest("GET", "/v1/rebalance").status == 200, 10, "a plan")
    bed.wait_until(lambda: last_plan(bed)["state"] == "done", 8, "done")
    assert shares(bed) == {"lb-a": 1, "lb-b": 3}
    assert_unharmed(loads, succeeded=0)


def test_a_plan_is_stopped_when_a_move_fails(quiet_bed: Bed) -> None:
    bed = quiet_bed
    bed.controller.configure(replace(ALL_ON_A, rebalance=Rebalance(at_once=1)))
    with gates(bed) as gate:
        loads = load_all(bed)
        gate["lb-b"].shut()  # so the move has not come far when it is to be aborted
        (first,) = bed.rest("POST", "/v1/rebalance", {}).json["started_moves"]
        assert bed.rest("DELETE", f"/v1/moves/{first}").status == 202
        gate["lb-b"].open()
        bed.wait_until(lambda: last_plan(bed)["state"] == "stopped", 8, "stopped")
        assert "on request" in last_plan(bed)["reason"] and last_plan(bed)["started_moves"] == [first]
        assert shares(bed) == {"lb-a": 4, "lb-b": 0}
        assert_unharmed(loads, succeeded=0)


def test_a_plan_is_stopped_when_the_load_has_changed(quiet_bed: Bed, carried: Injection) -> None:
    """Both that are to move become four times as heavy while the first one moves: the second one would only turn the
    tables."""
    bed = quiet_bed
    begin(bed, replace(ALL_ON_A, settings=replace(PLAIN.settings, grace=6.0), rebalance=Rebalance(at_once=1)))
    loads = load_all(bed)
    plan = bed.rest("POST", "/v1/rebalance", {}).json
    assert len(plan["moves"]) == 2
    carried.say(ALIKE | {move["external_ip"]: 5 * RATE for move in plan["moves"]})
    bed.wait_until(lambda: last_plan(bed)["state"] != "running", 20, "over")
    assert last_plan(bed)["state"] == "stopped" and "the load has changed" in last_plan(bed)["reason"]
    assert shares(bed) == {"lb-a": 3, "lb-b": 1}, "what has been done stays"
    assert_unharmed(loads, succeeded=0)


def test_what_cannot_be(quiet_bed: Bed) -> None:
    bed = quiet_bed
    together = tuple(
        replace(ip, not_with=frozenset(other.address for other in ALL_ON_A.external_ips if other is not ip))
        for ip in ALL_ON_A.external_ips
    )
    begin(bed, replace(ALL_ON_A, external_ips=together))
    refused = bed.rest("POST", "/v1/rebalance", {})
    assert refused.status == 409 and "not_with" in refused.json["detail"]
    assert bed.rest("GET", "/v1/rebalance").status == 404
    assert bed.rest("POST", "/v1/rebalance", {"algorithm": "magic"}).status == 422
    assert bed.rest("POST", "/v1/load-balancers/lb-x/drain", {}).status == 404


def test_what_is_refused_changes_nothing(quiet_bed: Bed) -> None:
    """Neither a site file that makes no sense, nor pins that can't be met: the old plan stays, and so does the
    assignment."""
    bed = quiet_bed
    begin(bed)
    loads = load_all(bed)
    assert bed.rest("POST", "/v1/rebalance?wait=true", {}).json["state"] == "done"
    before = last_plan(bed), shares(bed)
    text = bed.controller.site_file.read_text()
    for line, more, reason in (("name: lb-b\n", "  capacity: 0\n", "capacity must be a number above 0"),
                               ("gateway: 10.0.0.1\n", "  only_on: [lb-x]\n", "unknown load balancer 'lb-x'")):
        wrong = text.replace(line, line + more, 1)
        assert wrong != text
        bed.controller.reload(wrong)
        bed.wait_until(lambda reason=reason: reason in bed.controller.log_tail(), 5, f"refused: {reason}")
        assert bed.rest("GET", "/v1/load-balancers/lb-b").json["capacity"] == 1.0
    pinned = tuple(replace(ip, not_with=frozenset(other.address for other in ALL_ON_A.external_ips if other is not ip))
                   for ip in ALL_ON_A.external_ips)
    bed.controller.reload(replace(ALL_ON_A, external_ips=pinned))
    bed.wait_until(
        lambda: bed.rest("POST", "/v1/rebalance", {"dry_run": True}).status == 409, 5, "the new site file counts"
    )
    assert "not_with" in bed.rest("POST", "/v1/rebalance", {}).json["detail"]
    assert (last_plan(bed), shares(bed)) == before
    assert_unharmed(loads, succeeded=0)
