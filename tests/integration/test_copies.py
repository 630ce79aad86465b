"""Where the entries of a dead LB come from: each of the copies, alone and one after another (seed figures 13 and
14)."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.sites import simple_site, with_keepers
from tests.bed.traffic import request
from tests.integration.failing import SETTINGS, begin, copied, failover_of, with_copies
from tests.integration.moving import FIRST, Talks, assigned, move, wait_ended, wait_reached, wait_state

BED = {"site": with_keepers(simple_site(settings=SETTINGS), "keeper")}


@pytest.mark.parametrize("copy", ["controller", "keeper", "sockets"])
def test_each_copy_alone(quiet_bed: Bed, copy: str) -> None:
    bed = quiet_bed
    begin(bed, with_copies(bed.site, copy))
    with Talks(bed.clients[0], FIRST, 20) as near, Talks(bed.remote, FIRST, 20) as far:
        bed.wait_until(lambda: copied(bed), 5, "copied")
        faults.kill(bed, "lb-a")
        assert near.broken() == far.broken() == []
        assert failover_of(bed)["entries_from"] == {copy: 40}
        assert request(bed.clients[1], FIRST)["server"]


@pytest.mark.parametrize("copies", [("keeper",), ("controller", "sockets"), ("controller", "keeper")], ids="-".join)
def test_controller_and_lb_die_together(quiet_bed: Bed, copies: tuple[str, ...]) -> None:
    """The new controller never hears of the dead LB's switch: its entries come from the servers."""
    bed = quiet_bed
    begin(bed, with_copies(bed.site, *copies))
    with (
        Talks(bed.clients[0], FIRST, 10) as near,
        Talks(bed.remote, FIRST, 10) as far,
        Talks(bed.clients[0], "198.51.100.2", 5) as others,
    ):
        bed.wait_until(lambda: copied(bed), 5, "copied")
        bed.controller.kill()
        faults.kill(bed, "lb-a")
        bed.controller.start()
        record = failover_of(bed, timeout=30)
        assert record["entries_from"] == {copies[-1]: 20}
        assert near.broken() == far.broken() == others.broken() == []
        assert assigned(bed) == "lb-b" and assigned(bed, "198.51.100.2") == "lb-b"


def test_they_die_together_and_nobody_has_a_copy(quiet_bed: Bed) -> None:
    """The naive twin: each connection is told by a RST, and at once."""
    bed = quiet_bed
    begin(bed, with_copies(bed.site, "controller"))
    with Talks(bed.clients[0], FIRST, 5) as talks:
        bed.controller.kill()
        faults.kill(bed, "lb-a")
        bed.controller.start()
        failover_of(bed, timeout=30)
        problems = talks.broken()
        assert len(problems) == 5 and all("reset" in problem.lower() for problem in problems), problems


@pytest.mark.parametrize("copies", [("keeper",), ("controller", "sockets")], ids="-".join)
def test_controller_and_lb_restart_together(quiet_bed: Bed, copies: tuple[str, ...]) -> None:
    """The LB is back before anybody takes it for failed, and nobody knows its entries but the servers."""
    bed = quiet_bed
    begin(bed, with_copies(bed.site, *copies))
    with Talks(bed.clients[0], FIRST, 10) as near, Talks(bed.remote, FIRST, 10) as far:
        bed.wait_until(lambda: copied(bed), 5, "copied")
        bed.controller.kill()
        faults.kill(bed, "lb-a")
        bed.lbs["lb-a"].ovs.start_vswitchd()
        bed.controller.start()
        assert failover_of(bed, timeout=30, kind="restoration")["entries_from"][copies[-1]] >= 20, (
            "sockets may tell of earlier tests' too"
        )
        assert assigned(bed) == "lb-a"
        assert near.broken() == far.broken() == []
        assert request(bed.clients[1], FIRST)["server"]


def test_they_restart_together_and_nobody_has_a_copy(quiet_bed: Bed) -> None:
    """The naive twin."""
    bed = quiet_bed
    begin(bed, with_copies(bed.site, "controller"))
    with Talks(bed.clients[0], FIRST, 5) as talks:
        bed.controller.kill()
        faults.kill(bed, "lb-a")
        bed.lbs["lb-a"].ovs.start_vswitchd()
        bed.controller.start()
        wait_reached(bed)
        problems = talks.broken()
        assert len(problems) == 5 and all("reset" in problem.lower() for problem in problems), problems


def test_a_dead_keeper_is_passed_over(quiet_bed: Bed) -> None:
    """Each server's entries come from the first copy that can be had."""
    bed = quiet_bed
    begin(bed, with_copies(bed.site, "keeper", "controller"))
    with Talks(bed.clients[0], FIRST, 20) as talks:
        bed.wait_until(lambda: copied(bed), 5, "copied")
        first = next(keeper for server, keeper in bed.keepers.items() if str(server) == "10.0.0.11")
        first.kill()
        faults.kill(bed, "lb-a")
        assert talks.broken() == []
        assert failover_of(bed)["entries_from"] == {"keeper": 10, "controller": 10}


def test_a_keeper_comes_back(quiet_bed: Bed) -> None:
    """Killed and started again while connections come and go: its copy is whole again."""
    bed = quiet_bed
    begin(bed)
    with Talks(bed.clients[0], FIRST, 6) as before:
        bed.wait_until(lambda: copied(bed), 5, "copied")
        for keeper in bed.keepers.values():
            keeper.kill()
        with Talks(bed.remote, FIRST, 6) as meanwhile:
            bed.start_keepers()
            bed.wait_until(lambda: copied(bed), 15, "copied again")
            faults.kill(bed, "lb-a")
            assert before.broken() == meanwhile.broken() == []
            assert failover_of(bed)["entries_from"] == {"keeper": 12}


def test_a_planned_move_from_the_copies(quiet_bed: Bed) -> None:
    """Seed modification 11."""
    bed = quiet_bed
    begin(bed)
    with Talks(bed.clients[0], FIRST, 8) as talks:
        bed.wait_until(lambda: copied(bed), 5, "copied")
        reply = bed.rest("POST", f"/v1/external-ips/{FIRST}/move", {"to": "lb-b", "entries": "copy"})
        assert reply.status == 202, reply.text
        record = wait_ended(bed, reply.json["id"])
        assert (record["state"], record["entries_from"]) == ("done", {"keeper": 8})
        assert "fetch" in [step["name"] for step in record["steps"]]
        assert talks.broken() == []
        answer = bed.controller.cli("move", FIRST, "lb-a", "--entries", "copy", "--wait")
        assert answer.returncode == 0 and "8 from keeper" in answer.stdout
        assert talks.broken() == []
    assert move(bed, record["id"])["kind"] == "move"


def test_no_copies_to_move_from(quiet_bed: Bed) -> None:
    begin(quiet_bed, with_copies(quiet_bed.site, "controller"))
    reply = quiet_bed.rest("POST", f"/v1/external-ips/{FIRST}/move", {"to": "lb-b", "entries": "copy"})
    assert (reply.status, reply.json["title"]) == (409, "No copies")


def test_back_by_a_planned_move_while_it_is_fed(quiet_bed: Bed) -> None:
    """Fail-back, by order, without a second interruption."""
    bed = quiet_bed
    begin(bed)
    with Talks(bed.clients[0], FIRST, 8) as talks:
        bed.wait_until(lambda: copied(bed), 5, "copied")
        faults.kill(bed, "lb-a")
        failover_of(bed)
        bed.lbs["lb-a"].ovs.start_vswitchd()
        wait_state(bed, "lb-a", "ready", 20)
        wait_reached(bed)
        assert bed.move(FIRST, "lb-a")["state"] == "done"
        assert talks.broken() == []
        faults.kill(bed, "lb-a")
        assert talks.broken() == [], "and once more"


def test_a_keeper_that_hangs_slows_nobody(quiet_bed: Bed) -> None:
    """Its lag is told; new connections open as ever; and at a failover it is passed over."""
    bed = quiet_bed
    begin(
        bed, replace(with_copies(bed.site, "keeper", "controller"), settings=replace(bed.site.settings, copy_delay=0.5))
    )
    keeper = next(keeper for server, keeper in bed.keepers.items() if str(server) == "10.0.0.11")
    os.kill(keeper.process.pid, signal.SIGSTOP)
    try:
        with Talks(bed.clients[0], FIRST, 10) as talks:
            bed.wait_until(
                lambda: any(state["behind"] for state in bed.rest("GET", "/v1/keepers").json["keepers"]),
                5,
                "it is behind",
            )
            lag = next(line for line in bed.rest("GET", "/metrics").text.splitlines()
                       if line.startswith('lbctl_keeper_lag_seconds{server="10.0.0.11"}'))
            assert float(lag.split()[1]) > 0.5
            assert request(bed.clients[1], FIRST)["server"]
            faults.kill(bed, "lb-a")
            assert talks.broken() == []
            origin = failover_of(bed)["entries_from"]
            assert sum(origin.values()) >= 10 and origin["keeper"] == 5, "the request's may linger in the other's"
    finally:
        os.kill(keeper.process.pid, signal.SIGCONT)


def test_sockets_of_many_connections_after_both_died(quiet_bed: Bed) -> None:
    """Sockets don't tell next hops, and few packets without an entry reach the controller: one of each client is
    enough."""
    bed = quiet_bed
    begin(bed, with_copies(bed.site, "sockets"))
    with Talks(bed.clients[0], FIRST, 300) as near, Talks(bed.remote, FIRST, 300) as far:
        bed.controller.kill()
        faults.kill(bed, "lb-a")
        bed.controller.start()
        assert failover_of(bed, timeout=30)["entries_from"]["sockets"] >= 600, (
            "and what an earlier test has left at the servers"
        )
        assert near.broken() == far.broken() == []
