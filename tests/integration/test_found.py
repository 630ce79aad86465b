"""Whatever a test does to its module's bed, and however it ends: the next test finds it as the first one did."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import pytest

from tests.bed import faults
from tests.bed.bed import Bed
from tests.bed.found import AsFound
from tests.integration.hands import own_server, server_space, who_answers
from tests.integration.moving import FIRST, assigned

SERVERS = {"10.0.0.11", "10.0.0.12"}
SERVICE = f"/v1/external-ips/{FIRST}/services/tcp/80"
BED = {"settings": {"grace": 0.2, "linger": 1}}


def drain_a_server(bed: Bed) -> None:
    assert bed.rest("PATCH", f"{SERVICE}/servers/10.0.0.11:8080", {"drained": True}).status == 200


def drain_an_lb(bed: Bed) -> None:
    assert bed.controller.cli("drain", "lb-a", "--wait").returncode == 0


def take_the_place_of_a_server(bed: Bed) -> None:
    with own_server(bed, "10.0.0.11", 8080):
        pass


def stop_a_server(bed: Bed) -> None:
    os.kill(bed.server_scripts["server-10.0.0.11"].process.pid, signal.SIGSTOP)


def leave_a_process(bed: Bed) -> None:
    bed.clients[1].popen("sleep", 1000)


def pin_a_neighbour(bed: Bed) -> None:
    bed.clients[0].ip("neigh", "replace", FIRST, "lladdr", "02:00:00:00:00:09", "dev", "eth0", "nud", "permanent")


def change_the_site_file(bed: Bed) -> None:
    bed.controller.reload(bed.controller.site_file.read_text() + "  idle_timeout: 9\n")


LEFT: dict[str, Callable[[Bed], object]] = {
    "a server drained": drain_a_server,
    "an LB drained": drain_an_lb,
    "an external IP moved": lambda bed: bed.move(FIRST, "lb-b"),
    "another site file": change_the_site_file,
    "the controller killed": lambda bed: bed.controller.kill(),
    "an LB killed": lambda bed: faults.kill(bed, "lb-a"),
    "an LB stopped": lambda bed: faults.freeze(bed, "lb-a"),
    "a link cut": lambda bed: faults.cut(bed, "lb-a", "external"),
    "a link cut silently": lambda bed: faults.cut_silently(bed, "lb-a", "internal"),
    "a server's place taken": take_the_place_of_a_server,
    "a server stopped": stop_a_server,
    "a process": leave_a_process,
    "a neighbour": pin_a_neighbour,
    "an address": lambda bed: bed.clients[0].ip("addr", "add", "198.51.100.77/32", "dev", "eth0"),
    "a route": lambda bed: bed.clients[0].ip("route", "add", "192.0.2.0/24", "dev", "eth0"),
    "a narrow link": lambda bed: server_space(bed, "10.0.0.11").ip("link", "set", "eth0", "mtu", 1300),
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_what_a_test_leaves_is_put_back(live: Bed, found: AsFound, left: Callable[[Bed], object]) -> None:
    left(live)
    found.restore()
    assert found.differences() == []
    check_well(found)


def test_what_nobody_can_name_is_built_anew(live: Bed, found: AsFound) -> None:
    """As after a test that failed."""
    live.clients[0].sysctl(ipv4__tcp_syn_retries=1)
    drain_a_server(live)
    faults.freeze(live, "lb-a")
    found.rebuild()
    assert found.differences() == []
    check_well(found)
    assert live.clients[0].run("sysctl", "-n", "net.ipv4.tcp_syn_retries").strip() != "1"


def test_twin_what_is_not_put_back_is_seen(live: Bed, found: AsFound) -> None:
    for number, leave in enumerate((drain_a_server, pin_a_neighbour, leave_a_process), 1):
        leave(live)
        live.wait_until(partial(differ, found, number), 5, leave.__name__)
    assert {who_answers(live.clients[1], FIRST) for _ in range(6)} == SERVERS - {"10.0.0.11"}


def differ(found: AsFound, at_least: int) -> bool:
    return len(found.differences()) >= at_least


def check_well(found: AsFound) -> None:
    bed = found.go_on()
    assert assigned(bed) == "lb-a"
    assert {who_answers(client, FIRST) for client in bed.clients for _ in range(6)} == SERVERS
