"""An LB is dead, or taken for dead: its external IPs go to others with all their connections (seed, third
embodiment)."""

from __future__ import annotations

import json

import pytest

from tests.bed.bed import Bed
from tests.bed.patience import limit
from tests.bed.traffic import request
from tests.integration.moving import (
    FIRST,
    SECOND,
    Talks,
    assert_unharmed,
    assigned,
    mixed_load,
    wait_reached,
    wait_state,
)

BED = {"lbs": 3, "external_ips": 6, "servers": 1, "settings": {"grace": 0.5, "linger": 1, "arp_interval": 2.0}}


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """From every LB, every server is reached."""
    wait_reached(bed)
    return bed


def fail_over(bed: Bed, lb: str) -> list[dict]:
    reply = bed.rest("POST", f"/v1/load-balancers/{lb}/failover?wait=true", timeout=limit(20))
    assert reply.status == 200, reply.text
    return reply.json["moves"]


@pytest.mark.quick
def test_the_connections_of_a_killed_lb_live_on(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 20) as near, Talks(bed.remote, FIRST, 20) as far:
        bed.lbs["lb-a"].ovs.kill()
        wait_state(bed, "lb-a", "disconnected")
        moves = fail_over(bed, "lb-a")
        assert {(move["kind"], move["state"]) for move in moves} == {("failover", "done")}
        assert sum(move["entries_copied"] for move in moves) == 40
        assert near.broken() == [] and far.broken() == []
        assert request(bed.clients[0], FIRST)["server"]
    where = {assigned(bed, f"198.51.100.{number}") for number in (1, 4)}
    assert where == {"lb-b", "lb-c"}, "they are spread"


def test_an_lb_that_comes_back_has_nothing(bed: Bed) -> None:
    with Talks(bed.clients[0], FIRST, 5) as talks:
        bed.lbs["lb-a"].ovs.kill()
        wait_state(bed, "lb-a", "disconnected")
        fail_over(bed, "lb-a")
        bed.lbs["lb-a"].ovs.start_vswitchd()
        wait_state(bed, "lb-a", "ready", 20)
        assert bed.rest("GET", "/v1/load-balancers/lb-a/transfer-modes").json["transfer_modes"] == {}
        assert talks.broken() == []
        # Back by a planned move, which nobody notices.
        assert bed.move(FIRST, "lb-a")["state"] == "done"
        assert talks.broken() == [] and assigned(bed) == "lb-a"


def test_a_live_lb_is_freed_under_load(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    fail_over(bed, "lb-a")
    assert bed.rest("GET", "/v1/load-balancers/lb-a").json["external_ips"] == []
    assert bed.move(FIRST, "lb-a")["state"] == "done"
    fail_over(bed, "lb-a")
    assert_unharmed(loads)


def test_refusals_and_the_command(bed: Bed) -> None:
    assert bed.rest("POST", "/v1/load-balancers/lb-x/failover").status == 404
    answer = bed.controller.cli("failover", "lb-b", "--wait", "--json")
    assert {move["state"] for move in json.loads(answer.stdout)["moves"]} == {"done"}
    assert assigned(bed, SECOND) != "lb-b"
    # Alone, lb-b can't be freed again.
    assert bed.move(SECOND, "lb-b")["state"] == "done"
    for lb in ("lb-a", "lb-c"):
        bed.lbs[lb].ovs.kill()
        wait_state(bed, lb, "disconnected")
    refused = bed.rest("POST", "/v1/load-balancers/lb-b/failover")
    assert (refused.status, refused.json["title"]) == (409, "No other load balancer")
    answer = bed.controller.cli("failover", "lb-b")
    assert answer.returncode == 1 and "no load balancer but lb-b is ready" in answer.stderr
    assert request(bed.clients[0], SECOND)["server"], "it serves on"
