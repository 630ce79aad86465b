"""LBs fail, and nobody orders anything: what notices it, and what becomes of the connections (docs/failover.md)."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest

from lbctl.site.model import Site
from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.ovs import PrivateOvs
from tests.bed.owners import Owners, Question
from tests.bed.traffic import request
from tests.integration.failing import failover_of, health, wait_watched
from tests.integration.hands import external_mac, internal_mac
from tests.integration.moving import FIRST, Talks, assert_unharmed, assigned, mixed_load, wait_reached, wait_state
from tests.integration.test_field_sources import packets

BED = {"lbs": 3, "external_ips": 3, "servers": 1,
       "settings": {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "relieve_after": 1.0, "hold_down": 1.0}}
GATEWAY = "10.0.0.1"
NOBODY, CONTROLLER = "tcp:198.18.0.1:1", "tcp:198.18.0.1:6653"


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """From every LB every server is reached, and all have answered probes."""
    wait_reached(bed)
    wait_watched(bed)
    return bed


def fenced(bed: Bed, lb: str) -> bool:
    """Does it hold the rules by which it answers for nobody?"""
    return "130,arp,arp_op=1" in bed.lbs[lb].dump_flows()


def test_probes_share_cached_flows(bed: Bed) -> None:
    """Each cached flow is looked at anew with each change of the flow tables. Of 40 on each network there are 80 at
    once, where each has its own."""
    ovs = bed.lbs["lb-a"].ovs
    ovs.purge()
    probes = CachedProbes(ovs)
    bed.wait_until(lambda: probes.count() >= 80, 10, "80 probes and answers have come")
    assert len(probes.flows) <= 8, probes.flows


class CachedProbes:
    """The cached flows by which an LB answers probes, and shows answers to the controller."""

    def __init__(self, ovs: PrivateOvs) -> None:
        self._ovs = ovs
        self.flows: list[str] = []

    def count(self) -> int:
        """How many packets they have taken."""
        lines = self._ovs.appctl("dpctl/dump-flows", "-m").splitlines()
        self.flows = [line for line in lines if re.search(r"arp\(sip=0\.0\..*op=[12],.*userspace", line)]
        return sum(map(packets, self.flows))


def state(bed: Bed, lb: str) -> str:
    return bed.rest("GET", f"/v1/load-balancers/{lb}").json["state"]


def questions(bed: Bed) -> list[Question]:
    """Who has the first external IP, and its gateway?"""
    return [Question(bed.clients[1], "198.51.100.102", FIRST), Question(bed.servers[1], "10.0.0.21", GATEWAY)]


def ask(bed: Bed, seconds: float) -> Owners:
    """For so long."""
    with Owners(questions(bed)) as owners:
        time.sleep(seconds)
    return owners


@pytest.mark.parametrize("space", ["near", "far"])
@pytest.mark.quick
def test_a_killed_lb(bed: Bed, space: str) -> None:
    client = bed.clients[0] if space == "near" else bed.remote
    with Talks(client, FIRST, 20) as talks:
        faults.kill(bed, "lb-a")
        assert talks.broken() == []
        move = failover_of(bed)
        assert "no probe" in move["cause"] and move["entries_from"] == {"controller": 20}
        assert request(bed.clients[1], FIRST)["server"]
    assert health(bed, "lb-a") == "failed"
    assert assigned(bed) in ("lb-b", "lb-c")


def test_nobody_looks(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.configure(with_settings(quiet_bed, automatic_failover=False))
    quiet_bed.start_controller()
    with Talks(quiet_bed.clients[0], FIRST, 3) as talks:
        faults.kill(quiet_bed, "lb-a")
        assert len(talks.broken(timeout=2)) == 3


def with_settings(bed: Bed, **settings) -> Site:
    return replace(bed.site, settings=replace(bed.site.settings, **settings))


@pytest.mark.parametrize("failover", ["copy-first", "transition"])
def test_both_ways_of_the_seed(quiet_bed: Bed, failover: str) -> None:
    bed = quiet_bed
    bed.controller.configure(with_settings(bed, failover=failover))
    bed.start_controller()
    wait_reached(bed)
    bed.wait_until(lambda: health(bed, "lb-a") == "well", 5, "watched")
    with Talks(bed.clients[0], FIRST, 10) as near, Talks(bed.remote, FIRST, 10) as far:
        faults.kill(bed, "lb-a")
        assert near.broken() == far.broken() == []
        steps = [step["name"] for step in failover_of(bed)["steps"]]
    assert steps == {"copy-first": ["withdraw", "fetch", "copy", "route"],
                     "transition": ["withdraw", "transition", "route", "fetch", "copy", "normal"]}[failover]


@pytest.mark.parametrize("side", ["external", "internal"])
def test_a_link_is_cut(bed: Bed, side: str) -> None:
    with Talks(bed.clients[0], FIRST, 5) as near, Talks(bed.remote, FIRST, 5) as far:
        faults.cut(bed, "lb-a", side)
        assert near.broken() == far.broken() == []
        assert "is down" in failover_of(bed)["cause"]
        faults.mend(bed, "lb-a", side)
        bed.wait_until(lambda: health(bed, "lb-a") == "well", 5, "well again")
        assert assigned(bed) != "lb-a", "it comes back by order only"
        assert bed.move(FIRST, "lb-a")["state"] == "done"
        assert near.broken() == far.broken() == []


@pytest.mark.parametrize("side", ["external", "internal"])
def test_a_cut_that_the_lb_does_not_see(bed: Bed, side: str) -> None:
    """Its ports are up, and it does what it is told: only that no frame reaches it tells it from the LBs that miss
    it."""
    loads = mixed_load(bed, "198.51.100.2")
    with Talks(bed.clients[0], FIRST, 5) as near, Talks(bed.remote, FIRST, 5) as far:
        faults.cut_silently(bed, "lb-a", side)
        assert near.broken() == far.broken() == []
        assert f"no frame reaches its {side} port" in failover_of(bed)["cause"]
        faults.mend(bed, "lb-a", side)
    assert_unharmed(loads)
    assert {move["from"] for move in bed.rest("GET", "/v1/moves").json["moves"]} == {"lb-a"}, (
        "the others are not taken for cut off"
    )


def test_a_frozen_lb(bed: Bed) -> None:
    """As by loss of power: nothing is closed. When it goes on, it answers for nobody."""
    with Talks(bed.clients[0], FIRST, 5) as talks:
        faults.freeze(bed, "lb-a")
        try:
            assert talks.broken() == []
            move = failover_of(bed)
        finally:
            faults.thaw(bed, "lb-a")
        # What had waited in its queues may come before what it has been told meanwhile.
        bed.wait_until(lambda: fenced(bed, "lb-a") or state(bed, "lb-a") == "ready", 10, "it has been told")
        assert ask(bed, 1.0).turns(FIRST) == [external_mac(bed, move["to"])]
        assert talks.broken() == []


def test_a_lost_control_connection_alone(bed: Bed) -> None:
    """It forwards on; then it is fenced over the data path and relieved. Never do two answer for one address."""
    loads = mixed_load(bed, FIRST, requests=0)
    faults.cut(bed, "lb-a", "management")
    with Owners(questions(bed)) as owners:
        with Talks(bed.clients[0], "198.51.100.2", 2):
            wait_state(bed, "lb-a", "disconnected", 20)
            bed.wait_until(lambda: assigned(bed) != "lb-a", 20, "it is relieved")
        move = failover_of(bed)
        time.sleep(0.5)
    assert "has had no OpenFlow connection" in move["cause"]
    assert move["steps"][0]["name"] == "withdraw" and move["state"] == "done"
    for address, mac in ((FIRST, external_mac), (GATEWAY, internal_mac)):
        assert owners.turns(address) == [mac(bed, "lb-a"), mac(bed, move["to"])], "one after the other, and not back"
    faults.mend(bed, "lb-a", "management")
    wait_state(bed, "lb-a", "ready", 20)
    assert ask(bed, 1.0).turns(FIRST) == [external_mac(bed, move["to"])], "with its old rules it may not answer"
    assert bed.rest("GET", "/v1/load-balancers/lb-a/transfer-modes").json["transfer_modes"] == {}
    assert_unharmed(loads, succeeded=0)


def test_a_short_loss_of_the_control_connection(quiet_bed: Bed) -> None:
    bed = quiet_bed
    bed.controller.configure(with_settings(bed, relieve_after=30.0))
    bed.start_controller()
    node = bed.lbs["lb-a"]
    with Talks(bed.clients[0], FIRST, 3) as talks:
        node.ovs.set_controller(node.bridge, NOBODY)
        wait_state(bed, "lb-a", "disconnected")
        bed.wait_until(lambda: health(bed, "lb-a") == "unmanaged", 5, "it is seen to forward")
        assert talks.broken() == []
        node.ovs.set_controller(node.bridge, CONTROLLER)
        wait_state(bed, "lb-a", "ready", 20)
        assert talks.broken() == [] and assigned(bed) == "lb-a"
    assert bed.rest("GET", "/v1/moves").json["moves"] == []


def test_cut_off_altogether_and_back_with_old_rules(bed: Bed) -> None:
    """Its data path comes back before its control connection: the first frame that reaches it fences it."""
    node = bed.lbs["lb-a"]
    with Talks(bed.clients[0], FIRST, 3) as talks:
        node.ovs.set_controller(node.bridge, NOBODY)
        for side in ("external", "internal"):
            faults.cut_silently(bed, "lb-a", side)
        assert talks.broken() == []
        move = failover_of(bed)
        for side in ("external", "internal"):
            faults.mend(bed, "lb-a", side)
        bed.wait_until(lambda: fenced(bed, "lb-a"), 5, "it has been told")
        owners = ask(bed, 1.5)
        assert owners.turns(FIRST) == [external_mac(bed, move["to"])]
        assert owners.turns(GATEWAY) == [internal_mac(bed, move["to"])]
        assert fenced(bed, "lb-a")
        node.ovs.set_controller(node.bridge, CONTROLLER)
        wait_state(bed, "lb-a", "ready", 20)
        assert ask(bed, 0.5).turns(FIRST) == [external_mac(bed, move["to"])]
        assert talks.broken() == []
        wait_reached(bed)
        bed.wait_until(lambda: health(bed, "lb-a") == "well", 5, "well again")
        assert bed.move(FIRST, "lb-a")["state"] == "done"
        assert ask(bed, 2.0).turns(FIRST) == [external_mac(bed, "lb-a")], "not fenced any more"


def test_who_has_just_failed_takes_nothing_over(bed: Bed) -> None:
    """lb-b's link flaps; then lb-a dies: lb-c takes over, though it has more."""
    for _ in range(3):
        faults.cut(bed, "lb-b", "external")
        bed.wait_until(lambda: health(bed, "lb-b") == "failed", 5, "failed")
        faults.mend(bed, "lb-b", "external")
        bed.wait_until(lambda: health(bed, "lb-b") == "well", 5, "well")
    failover_of(bed, "198.51.100.2")
    held = {ip: assigned(bed, ip) for ip in (FIRST, "198.51.100.2", "198.51.100.3")}
    assert "lb-b" not in held.values()
    faults.kill(bed, "lb-a")
    bed.wait_until(lambda: set(assigned(bed, ip) for ip in held) == {"lb-c"}, 5, "all at lb-c")


def test_a_standby_lb_takes_over(quiet_bed: Bed) -> None:
    """Active/standby, as in the seed's figure 2."""
    bed = quiet_bed
    site = bed.site
    standby = replace(site, load_balancers=(*site.load_balancers[:2], replace(site.load_balancers[2], standby=True)),
                      external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in site.external_ips))
    bed.controller.configure(standby)
    bed.start_controller()
    wait_reached(bed)
    bed.wait_until(lambda: health(bed, "lb-a") == "well", 5, "watched")
    assert bed.rest("GET", "/v1/load-balancers/lb-c").json["standby"] is True
    with Talks(bed.clients[0], FIRST, 5) as talks:
        faults.kill(bed, "lb-a")
        assert talks.broken() == []
        failover_of(bed)
    assert "lb-c" in {assigned(bed, str(ip.address)) for ip in site.external_ips}


def test_nobody_is_left(bed: Bed) -> None:
    """The last LB serves on alone, and what comes back takes over what was orphaned."""
    for lb in ("lb-a", "lb-b"):
        faults.kill(bed, lb)
    bed.wait_until(lambda: assigned(bed) == "lb-c", 8, "lb-c has it")
    with Talks(bed.clients[0], FIRST, 3) as talks:
        bed.lbs["lb-a"].ovs.start_vswitchd()
        wait_state(bed, "lb-a", "ready", 20)
        faults.kill(bed, "lb-c")
        bed.wait_until(lambda: assigned(bed) == "lb-a", 8, "lb-a takes it back, though it has failed lately")
        assert talks.broken() == []


def test_connections_opened_all_the_while(bed: Bed) -> None:
    """Under load: what is established lives on; requests meanwhile are late at most."""
    loads = mixed_load(bed, FIRST)
    time.sleep(0.3)
    faults.kill(bed, "lb-a")
    failover_of(bed)
    assert_unharmed(loads)

