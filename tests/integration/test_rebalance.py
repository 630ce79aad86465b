"""External IPs are assigned anew by what they carry: by order, by draining an LB, and by itself."""

from __future__ import annotations

import json
from dataclasses import replace

from lbctl.model import Rebalance, Site
from testbed.bed import Bed
from testbed.sites import simple_site
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
    """Once, and then never again under the same load."""
    bed = quiet_bed
    begin(bed, replace(ALL_ON_A, rebalance=Rebalance("automatic", threshold=0.5, cooldown=3.0)))
    loads = load_all(bed)
    bed.wait_until(lambda: shares(bed) == {"lb-a": 2, "lb-b": 2}, 15, "half of them have moved")
    bed.wait_until(lambda: bed.rest("GET", "/v1/rebalance").json["state"] == "done", 8, "done")
    moves = len(bed.rest("GET", "/v1/moves").json["moves"])
    assert moves == 2
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
