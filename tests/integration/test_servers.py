"""The life of servers: draining, limits, coming and going at run time, with real connections all the while."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from lbctl.site.model import SCHEDULERS, Service, Site
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.bed.traffic import connect
from tests.integration.hands import Talk, counters, eventually, who_answers
from tests.integration.moving import FIRST, SECOND, assigned, wait_reached

SETTINGS = {
    "linger": 1,
    "grace": 0.5,
    "arp_interval": 1.0,
    "udp_idle_timeout": 2.0,
    "time_wait": 1.0,
    "idle_timeout": 6.0,
}
"""The load's kernel uses ports again within seconds; such an entry ends by idle_timeout only (docs/architecture.md,
known limits)."""
SERVERS = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
ONE, TWO, THREE = (f"{server}:8080" for server in SERVERS)
NAME = "no server takes connections: clients are refused"


def site() -> Site:
    """Both external IPs at lb-a, with TCP and UDP on port 80: the first one with destination NAT, the second one with
    full NAT."""
    plain = simple_site(servers=3, settings=SETTINGS)
    first, second = (
        replace(ip, load_balancer="lb-a", services=(*ip.services, Service("udp", 80, servers=ip.services[0].servers)))
        for ip in plain.external_ips
    )
    return replace(
        plain,
        external_ips=(first, replace(second, nat="full", gateway=None, internal_ips=(IPv4Address("10.0.0.102"),))),
    )


SITE = site()
BED = {"site": SITE}


def with_servers(count: int) -> Site:
    """The first external IP has so many servers."""
    first, *rest = SITE.external_ips
    services = tuple(replace(service, servers=service.servers[:count]) for service in first.services)
    return replace(SITE, external_ips=(replace(first, services=services), *rest))


def prepare(bed: Bed) -> None:
    """UDP on every server, too."""
    for space in bed.servers:
        bed.serve(space, "udp_server.py", space.name.removeprefix("server-"), 8080)


@pytest.fixture
def bed(bed: Bed) -> Bed:
    wait_reached(bed)
    return bed


def path(service: str = "tcp", address: str = FIRST) -> str:
    return f"/v1/external-ips/{address}/services/{service}/80/servers"


def change(bed: Bed, server: str, body: dict[str, Any], service: str = "tcp", address: str = FIRST) -> dict[str, Any]:
    reply = bed.rest("PATCH", f"{path(service, address)}/{server}", body)
    assert reply.status == 200, reply
    return reply.json


def state(bed: Bed, server: str, service: str = "tcp", address: str = FIRST) -> dict[str, Any]:
    return bed.rest("GET", f"{path(service, address)}/{server}").json


def answering(bed: Bed, count: int = 12, address: str = FIRST) -> set[str]:
    """The servers of so many new connections."""
    return {who_answers(bed.clients[1], address) for _ in range(count)}


def server_of(bed: Bed, talk: Talk, address: str = FIRST) -> str:
    return next(
        entry["server"]
        for entry in bed.entries(assigned(bed, address))
        if (entry["client"], entry["client_port"]) == talk.local
    )


def to_server(bed: Bed, server: str, address: str = FIRST) -> Talk:
    """A connection that goes there, and talks all the while."""
    for _ in range(30):
        talk = Talk(bed.clients[0], address)
        if server_of(bed, talk, address) == server:
            return talk
        talk.close()
    raise AssertionError(f"{server} gets no connection")


class Datagrams:
    """A client's connected UDP socket. A context manager."""

    def __init__(self, space: Namespace, address: str = FIRST) -> None:
        self.socket = space.call(lambda: socket.socket(type=socket.SOCK_DGRAM))
        self.socket.settimeout(limit(3.0))
        self.socket.connect((address, 80))

    def ask(self) -> str:
        """Who has answered. Raises OSError, as for any connected socket."""
        self.socket.send(b"who?")
        return self.socket.recv(100).decode().split()[0]

    def __enter__(self) -> Datagrams:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Waiting:
    """lbctl drain-server --wait, in a thread."""

    def __init__(self, bed: Bed, *arguments: str) -> None:
        self.run: subprocess.CompletedProcess[str] | None = None
        self._thread = threading.Thread(target=self._call, args=(bed, arguments), daemon=True)
        self._thread.start()

    def _call(self, bed: Bed, arguments: tuple[str, ...]) -> None:
        self.run = bed.controller.cli("drain-server", *arguments, "--wait")

    def end(self) -> subprocess.CompletedProcess[str]:
        self._thread.join(limit(20))
        assert self.run is not None, "it waits still"
        return self.run


# Draining.

@pytest.mark.parametrize("address, server", [(FIRST, SERVERS[1]), (SECOND, "10.0.0.22")], ids=["destination", "full"])
def test_a_drained_server_finishes_what_it_has_and_gets_nothing_new(live: Bed, address: str, server: str) -> None:
    """While requests come all the time, none of which fails."""
    load = live.load(live.clients[1], address, requests=2, at_least=51)
    others = {f"10.0.0.{number}" for number in ((11, 13) if address == FIRST else (21, 23))}
    with to_server(live, server, address) as talk:
        assert "is drained, " in live.controller.cli("drain-server", f"{server}:8080", "--service", "tcp/80").stdout
        assert answering(live, address=address) == others and talk.goes_on()
        gave_up = live.controller.cli("drain-server", server, "--service", "tcp/80", "--wait", "--timeout", "2.5")
        assert gave_up.returncode == 1 and "still has 1 connection. It stays drained" in gave_up.stderr, gave_up
        waiting = Waiting(live, server, "--service", "tcp/80")
        assert talk.goes_on() and waiting.run is None
    done = waiting.end()
    assert done.returncode == 0 and "is drained, 0 connections left" in done.stdout, done
    live.controller.cli("drain-server", server, "--undo")
    assert server in answering(live, address=address)
    result = load.stop()
    assert not result.failures and result.succeeded > 50, result


def test_udp_is_drained_by_its_idle_timeout(live: Bed) -> None:
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(Datagrams(live.clients[0])) for _ in range(3)]
        by_server = {one.ask(): one for one in open_ones}
        assert sorted(by_server) == SERVERS
        change(live, ONE, {"drained": True}, "udp")
        assert {stack.enter_context(Datagrams(live.clients[0])).ask() for _ in range(6)} == set(SERVERS[1:])
        assert by_server[SERVERS[0]].ask() == SERVERS[0], "it has an entry"
    done = Waiting(live, ONE, "--service", "udp/80").end()
    assert done.returncode == 0 and "0 connections left" in done.stdout, done
    assert change(live, ONE, {"drained": False}, "udp")["state"] == "up"


def test_when_all_are_drained_clients_are_told_at_once(live: Bed) -> None:
    before = counters(live)["other"].get("servers_drained", 0)
    for service in ("tcp", "udp"):
        for server in (ONE, TWO, THREE):
            change(live, server, {"drained": True}, service)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect(live.clients[0], FIRST)
    with Datagrams(live.clients[0]) as one, pytest.raises(ConnectionRefusedError):
        one.ask()
    assert counters(live)["other"]["servers_drained"] == before + 4
    told = [line for line in live.controller.log_tail(2000).splitlines() if NAME in line and "tcp/80" in line]
    assert len(told) == 1 and "lbctl drain-server --undo" in told[0], told
    for service in ("tcp", "udp"):
        for server in (ONE, TWO, THREE):
            change(live, server, {"drained": False}, service)
    assert answering(live) == set(SERVERS)


# Limits.

@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_full_service_refuses_at_once_and_serves_again_when_a_connection_has_ended(live: Bed, scheduler: str) -> None:
    live.rest("PATCH", f"/v1/external-ips/{FIRST}/services/tcp/80", {"scheduler": scheduler})
    eventually(
        live,
        lambda: not any(state(live, server)["connections"] for server in (ONE, TWO, THREE)),
        "what was before has gone",
        20,
    )
    for server in (ONE, TWO, THREE):
        assert change(live, server, {"max_connections": 2})["max_connections"] == 2
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talk(live.clients[0], FIRST)) for _ in range(6)]
        assert {state(live, server)["connections"] for server in (ONE, TWO, THREE)} == {2}, (
            "so many each, with any scheduler"
        )
        assert {state(live, server)["state"] for server in (ONE, TWO, THREE)} == {"full"}
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                connect(live.clients[0], FIRST)
        left = server_of(live, talks[0])
        talks[0].close()
        eventually(live, lambda: state(live, f"{left}:8080")["state"] == "up", "its entry has gone")
        assert who_answers(live.clients[1], FIRST) == left
        assert all(talk.goes_on() for talk in talks[1:])
    for server in (ONE, TWO, THREE):
        change(live, server, {"max_connections": None})
    assert live.rest("GET", f"/v1/external-ips/{FIRST}").json["services"][0]["servers_ordered"] is False


def test_a_datagram_beyond_the_limit_is_answered(live: Bed) -> None:
    for server in (ONE, TWO, THREE):
        change(live, server, {"max_connections": 1}, "udp")
    with contextlib.ExitStack() as stack:
        assert sorted(stack.enter_context(Datagrams(live.clients[0])).ask() for _ in range(3)) == SERVERS
        with pytest.raises(ConnectionRefusedError):
            stack.enter_context(Datagrams(live.clients[0])).ask()
    for server in (ONE, TWO, THREE):
        change(live, server, {"max_connections": None}, "udp")


# Coming and going.

def few(quiet_bed: Bed) -> Bed:
    """The bed, with a site file of two servers for the first external IP."""
    quiet_bed.controller.configure(with_servers(2))
    quiet_bed.start_controller()
    wait_reached(quiet_bed, SERVERS[2])
    return quiet_bed


def test_servers_come_and_go_under_traffic(quiet_bed: Bed) -> None:
    """By the command; a new one is found by ARP, gets its share at both LBs, and what a removed one has goes on."""
    bed = few(quiet_bed)
    load = bed.load(bed.clients[1], FIRST, lines=4, requests=2, at_least=51)
    assert answering(bed) == set(SERVERS[:2])
    with to_server(bed, SERVERS[0]) as talk:
        added = bed.controller.cli("server", "add", FIRST, "tcp/80", THREE)
        assert added.returncode == 0, added
        listed = [
            line.split() for line in bed.controller.cli("server", "list", "--service", "tcp/80").stdout.splitlines()
        ]
        assert [FIRST, "tcp/80", THREE, "up"] in [row[:4] for row in listed], listed
        eventually(bed, lambda: SERVERS[2] in answering(bed, 3), "it has been found")
        removed = bed.controller.cli("server", "remove", FIRST, "tcp/80", ONE)
        assert removed.returncode == 0 and "go on until they end" in removed.stdout, removed
        assert answering(bed) == set(SERVERS[1:]) and talk.goes_on()
        former = bed.rest("GET", f"/v1/external-ips/{FIRST}").json["former_servers"]
        assert not former, "UDP still has it"
        assert bed.rest("DELETE", f"{path('udp')}/{ONE}").status == 200
        former = bed.rest("GET", f"/v1/external-ips/{FIRST}").json["former_servers"]
        assert [server["address"] for server in former] == [SERVERS[0]] and former[0]["connections"] >= 1
        asked = bed.controller.cli("where", ":".join(map(str, talk.local)), f"{FIRST}:80").stdout
        assert f"goes to server {ONE} by its entry" in asked, asked
        listed = [line.split() for line in bed.controller.cli("server", "list").stdout.splitlines()]
        assert [FIRST, "-", SERVERS[0], "removed"] in [row[:4] for row in listed], listed
        assert talk.goes_on()
        bed.move(FIRST, "lb-b")
        assert answering(bed) == set(SERVERS[1:]) and talk.goes_on()
    result = load.stop()
    assert not result.failures and not result.broken and result.succeeded > 50, result
    assert {SERVERS[0], SERVERS[2]} <= set(result.servers), "both were used"


def test_twin_a_server_that_is_forgotten_with_its_connections_breaks_them(quiet_bed: Bed) -> None:
    quiet_bed.controller.apps = ("tests/integration/naive_removal.py", *APPS)
    bed = few(quiet_bed)
    with to_server(bed, SERVERS[0]) as talk:
        for service in ("tcp", "udp"):
            assert bed.rest("DELETE", f"{path(service)}/{ONE}").status == 200
        assert talk.breaks()


@pytest.mark.parametrize("strategy", ["precopy", "buffered"])
def test_servers_change_while_the_external_ip_moves(quiet_bed: Bed, strategy: str) -> None:
    bed = few(quiet_bed)
    load = bed.load(bed.clients[1], FIRST, lines=4, requests=2, at_least=51)
    with to_server(bed, SERVERS[0]) as talk:
        move = bed.move(FIRST, "lb-b", strategy, wait=False)
        assert bed.rest("POST", path(), {"address": SERVERS[2], "port": 8080}).status == 201
        assert bed.rest("DELETE", f"{path()}/{ONE}").status == 200
        eventually(bed, lambda: bed.rest("GET", f"/v1/moves/{move['id']}").json["state"] == "done", "moved")
        eventually(bed, lambda: SERVERS[2] in answering(bed, 3), "it has been found")
        assert answering(bed) == set(SERVERS[1:]) and talk.goes_on()
    result = load.stop()
    assert not result.failures and not result.broken, result


def test_orders_last_over_a_restart_until_the_file_says_something_else(quiet_bed: Bed) -> None:
    bed = few(quiet_bed)
    assert bed.rest("POST", path(), {"address": SERVERS[2], "port": 8080, "max_connections": 50}).status == 201
    change(bed, ONE, {"drained": True})
    with to_server(bed, SERVERS[1]) as talk:
        bed.restart_controller()
        wait_reached(bed)
        assert answering(bed) == set(SERVERS[1:]) and talk.goes_on()
        assert state(bed, THREE)["max_connections"] == 50 and state(bed, ONE)["state"] == "drained"
        bed.controller.reload(replace(with_servers(2), settings=replace(SITE.settings, linger=2)))
        assert bed.controller.wait_log(lambda line: "site applied" in line)
        assert answering(bed) == set(SERVERS[1:]), "the file says nothing about servers"
        bed.controller.reload(SITE)
        eventually(bed, lambda: state(bed, THREE)["max_connections"] is None, "the file says that there are three")
        assert state(bed, ONE)["state"] == "drained" and talk.goes_on(), "of that it says nothing"
        bed.controller.reload(with_servers(2))
        eventually(bed, lambda: bed.rest("GET", f"{path()}/{THREE}").status == 404, "and then two")
        assert talk.goes_on()


def test_what_a_site_file_may_not_say_is_refused(live: Bed) -> None:
    before = live.lbs["lb-a"].tables_hash()
    reply = live.rest("POST", path(), {"address": "10.0.0.102", "port": 8080})
    assert (
        reply.status == 422
        and "can't be a gateway or internal IP as well (external IP 198.51.100.2)" in reply.json["detail"]
    )
    refused = live.controller.cli("server", "add", FIRST, "tcp/80", "192.0.2.1:80")
    assert refused.returncode == 1 and "address 192.0.2.1 is outside internal_network 10.0.0.0/24" in refused.stderr
    assert live.lbs["lb-a"].tables_hash() == before and answering(live) == set(SERVERS)


def test_with_full_nat_a_server_may_be_added_that_another_external_ip_has(live: Bed) -> None:
    assert live.rest("POST", path(address=SECOND), {"address": SERVERS[0], "port": 8080}).status == 201
    assert answering(live, address=SECOND) == {SERVERS[0], "10.0.0.21", "10.0.0.22", "10.0.0.23"} and answering(
        live
    ) == set(SERVERS)
    assert live.rest("DELETE", f"{path(address=SECOND)}/{ONE}").status == 200
