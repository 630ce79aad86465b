"""External IPs are assigned anew by what they carry: by order, by draining an LB, and by itself; and when they are not."""

from __future__ import annotations

import json
from dataclasses import replace

from lbctl.site.model import Rebalance, Site
from tests.bed.bed import Bed
from tests.bed.sites import simple_site
from tests.integration.hands import metric
from tests.integration.moving import assert_unharmed, assigned, mixed_load, wait_reached

ADDRESSES = tuple(f"198.51.100.{number}" for number in range(1, 5))
PLAIN = simple_site(external_ips=4, servers=1, settings={"load_period": 0.5, "grace": 0.5, "linger": 1, "arp_interval": 2.0})
ALL_ON_A = replace(PLAIN, external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in PLAIN.external_ips))
BED = {"site": ALL_ON_A}


def begin(bed: Bed, site: Site = ALL_ON_A) -> None:
    bed.controller.configure(site)
    bed.start_controller()
    wait_reached(bed)


def load_all(bed: Bed) -> list:
    loads = [load for address in ADDRESSES for load in mixed_load(bed, address, lines=2, requests=0, interval=0.02)]
    bed.wait_until(lambda: all(bed.rest("GET", f"/v1/external-ips/{address}").json["load"]["packets_per_second"] > 50
                               for address in ADDRESSES), 8, "all are loaded")
    return loads


def carry_on(bed: Bed, seconds: float) -> None:
    """Returns when the first external IP has carried as many packets again as in so many seconds."""
    def carried() -> float:
        return sum(metric(bed, f'lbctl_external_ip_packets_total{{dp_name="{lb}",external_ip="{ADDRESSES[0]}"}}') for lb in bed.lbs)

    rate = bed.rest("GET", f"/v1/external-ips/{ADDRESSES[0]}").json["load"]["packets_per_second"]
    enough = carried() + rate * seconds
    bed.wait_until(lambda: carried() >= enough, 3 * seconds + 5, f"{enough:.0f} packets carried")


def heavier(bed: Bed, *addresses: str, lines: int = 8) -> list:
    return [load for address in addresses for load in mixed_load(bed, address, lines=lines, requests=0, interval=0.02)]


def last_plan(bed: Bed) -> dict:
    return bed.rest("GET", "/v1/rebalance").json


def shares(bed: Bed) -> dict[str, int]:
    where = [assigned(bed, address) for address in ADDRESSES]
    return {lb: where.count(lb) for lb in bed.lbs}


def test_a_plan_and_its_execution(quiet_bed: Bed) -> None:
    bed = quiet_bed
    begin(bed)
    loads = load_all(bed)
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


def test_by_itself(quiet_bed: Bed) -> None:
    """Until it has settled, and then never again under the same load."""
    bed = quiet_bed
    begin(bed, replace(ALL_ON_A, rebalance=Rebalance("automatic", threshold=0.5, cooldown=3.0)))
    loads = load_all(bed)
    bed.wait_until(lambda: all(shares(bed).values()), 15, "some have moved")
    bed.wait_until(lambda: last_plan(bed)["state"] == "done", 8, "done")
    settled, where = last_plan(bed), shares(bed)
    assert max(settled["after"].values()) < 0.8 * max(settled["before"].values()), "half each, or nearly: a busy machine loads them unlike"
    carry_on(bed, 8.0)
    assert (shares(bed), last_plan(bed)) == (where, settled)
    assert_unharmed(loads, succeeded=0)


def test_after_a_step_of_load_it_settles_in_one_round(quiet_bed: Bed) -> None:
    bed = quiet_bed
    begin(bed, replace(PLAIN, rebalance=Rebalance("automatic", threshold=0.5, cooldown=3.0)))
    loads = load_all(bed)
    carry_on(bed, 4.0)
    assert bed.rest("GET", "/v1/rebalance").status == 404, "two and two, alike: nothing to do"
    hot = ADDRESSES[0], ADDRESSES[2]
    loads += heavier(bed, *hot)
    bed.wait_until(lambda: assigned(bed, hot[0]) != assigned(bed, hot[1]), 20, "those with the load are apart")
    bed.wait_until(lambda: last_plan(bed)["state"] == "done", 8, "done")
    where = shares(bed)
    carry_on(bed, 8.0)
    assert (shares(bed), last_plan(bed)["id"]) == (where, "1"), "one plan, and nothing afterwards"
    assert_unharmed(loads, succeeded=0)


def test_under_noise_nothing_moves(quiet_bed: Bed) -> None:
    """A load that would be worth a plan if it stayed goes from one LB to the other and back, all the time."""
    bed = quiet_bed
    begin(bed, replace(PLAIN, rebalance=Rebalance("automatic", threshold=0.3, cooldown=1.0)))
    loads = load_all(bed)
    for hop in range(12):
        noise = heavier(bed, ADDRESSES[hop % 4], lines=6)
        carry_on(bed, 0.6)
        assert_unharmed(noise, succeeded=0)
    assert bed.rest("GET", "/v1/rebalance").status == 404
    assert_unharmed(loads, succeeded=0)


def test_a_plan_is_stopped_when_a_move_fails(quiet_bed: Bed) -> None:
    bed = quiet_bed
    begin(bed, replace(ALL_ON_A, rebalance=Rebalance(at_once=1)))
    loads = load_all(bed)
    (first,) = bed.rest("POST", "/v1/rebalance", {}).json["started_moves"]
    assert bed.rest("DELETE", f"/v1/moves/{first}").status == 202
    bed.wait_until(lambda: last_plan(bed)["state"] == "stopped", 8, "stopped")
    assert "on request" in last_plan(bed)["reason"] and last_plan(bed)["started_moves"] == [first]
    assert shares(bed) == {"lb-a": 4, "lb-b": 0}
    assert_unharmed(loads, succeeded=0)


def test_a_plan_is_stopped_when_the_load_has_changed(quiet_bed: Bed) -> None:
    """Both that are to move become four times as heavy while the first one moves: the second one would only turn the tables."""
    bed = quiet_bed
    begin(bed, replace(ALL_ON_A, settings=replace(PLAIN.settings, grace=6.0), rebalance=Rebalance(at_once=1)))
    loads = load_all(bed)
    plan = bed.rest("POST", "/v1/rebalance", {}).json
    assert len(plan["moves"]) == 2
    loads += heavier(bed, *(move["external_ip"] for move in plan["moves"]))
    bed.wait_until(lambda: last_plan(bed)["state"] != "running", 20, "over")
    assert last_plan(bed)["state"] == "stopped" and "the load has changed" in last_plan(bed)["reason"]
    assert shares(bed) == {"lb-a": 3, "lb-b": 1}, "what has been done stays"
    assert_unharmed(loads, succeeded=0)


def test_what_cannot_be(quiet_bed: Bed) -> None:
    bed = quiet_bed
    together = tuple(replace(ip, not_with=frozenset(other.address for other in ALL_ON_A.external_ips if other is not ip))
                     for ip in ALL_ON_A.external_ips)
    begin(bed, replace(ALL_ON_A, external_ips=together))
    refused = bed.rest("POST", "/v1/rebalance", {})
    assert refused.status == 409 and "not_with" in refused.json["detail"]
    assert bed.rest("GET", "/v1/rebalance").status == 404
    assert bed.rest("POST", "/v1/rebalance", {"algorithm": "magic"}).status == 422
    assert bed.rest("POST", "/v1/load-balancers/lb-x/drain", {}).status == 404


def test_what_is_refused_changes_nothing(quiet_bed: Bed) -> None:
    """Neither a site file that makes no sense, nor pins that can't be met: the old plan stays, and so does the assignment."""
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
    bed.wait_until(lambda: bed.rest("POST", "/v1/rebalance", {"dry_run": True}).status == 409, 5, "the new site file counts")
    assert "not_with" in bed.rest("POST", "/v1/rebalance", {}).json["detail"]
    assert (last_plan(bed), shares(bed)) == before
    assert_unharmed(loads, succeeded=0)
