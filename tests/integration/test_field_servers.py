"""Faults that people reported of other load balancers (docs/field.md): what servers do, each as an experiment."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lbctl.site.model import HealthCheck, Service, Site
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.frames import ACK, SYN
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.bed.traffic import connect, request
from tests.integration.hands import (
    HandClient,
    entries_of,
    eventually,
    hand_client,
    metric,
    server_space,
    without,
)
from tests.integration.moving import Talks

EXTERNAL = "198.51.100.1"
SERVERS = "10.0.0.11", "10.0.0.12"
CHECK = HealthCheck("http", interval=0.5, timeout=0.5, rise=2, fall=3)
MISTYPED = replace(CHECK, path="/typo", status=((204, 204),))
"""The servers answer with 200."""
DRAINED = 2.0
OTHER_PORT, QUERIES = 81, 10
SETTINGS = {
    "linger": 1, "arp_interval": 1.0, "grace": 0.5, "udp_idle_timeout": 60.0, "udp_drain_timeout": DRAINED,
}


def site(**changes: Any) -> Site:
    """One external IP with TCP (checked) and UDP on port 80, not checked. changes: fields of the service by TCP."""
    plain = simple_site(servers=2, external_ips=1, settings=SETTINGS)
    first = plain.external_ips[0]
    tcp = replace(first.services[0], health_check=CHECK)
    services = replace(tcp, **changes), Service("udp", 80, servers=tcp.servers)
    return replace(plain, external_ips=(replace(first, services=services),))


BED = {"site": site()}


def prepare(bed: Bed) -> None:
    """UDP on every server, too."""
    for space in bed.servers:
        bed.serve(space, "udp_server.py", space.name.removeprefix("server-"), 8080)


def service(bed: Bed, protocol: str = "tcp") -> dict[str, Any]:
    services = bed.rest("GET", f"/v1/external-ips/{EXTERNAL}").json["services"]
    return next(each for each in services if each["protocol"] == protocol)


def states(bed: Bed) -> dict[str, str]:
    return {server["address"]: server["state"] for server in service(bed)["servers"]}


def served_by(bed: Bed, requests: int = 8, timeout: float = limit(5.0)) -> set[str]:
    return {request(bed.clients[0], EXTERNAL, timeout=timeout)["server"] for _ in range(requests)}


@contextlib.contextmanager
def stopped(bed: Bed, *addresses: str) -> Iterator[None]:
    """SIGSTOP to the processes of these servers: they accept connections, and say nothing."""
    pids = [bed.server_scripts[server_space(bed, address).name].process.pid for address in addresses]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def passed(bed: Bed) -> bool:
    """Do the servers pass their checks?"""
    return metric(bed, 'lbctl_health_checks_total{result="passed"}') > 4 and set(states(bed).values()) == {"up"}


# A health check that is wrong, or all servers slow at the same time (F4).

def test_a_mistyped_check_ends_nothing(fresh: Bed) -> None:
    eventually(fresh, lambda: passed(fresh), "checks pass")
    with Talks(fresh.clients[0], EXTERNAL, 4) as talks:
        fresh.controller.reload(site(health_check=MISTYPED))
        found = eventually(fresh, lambda: service(fresh)["fails_open"], "all have failed", 15.0)
        assert "status 200" in found and set(states(fresh).values()) == {"up"}
        assert metric(fresh, f'lbctl_service_fails_open{{external_ip="{EXTERNAL}",service="tcp/80"}}') == 1
        assert talks.broken() == [] and served_by(fresh) == set(SERVERS)
        assert "serves in spite of its health checks" in fresh.controller.cli("doctor").stdout
        fresh.controller.reload(site())
        eventually(fresh, lambda: service(fresh)["fails_open"] is None, "the check is right again", 15.0)
        assert talks.broken() == []


def test_servers_that_hang_at_the_same_time_lose_no_connection(fresh: Bed) -> None:
    eventually(fresh, lambda: passed(fresh), "checks pass")
    with Talks(fresh.clients[0], EXTERNAL, 6) as talks:
        with stopped(fresh, *SERVERS):
            eventually(fresh, lambda: set(states(fresh).values()) == {"down"}, "all are down", 15.0)
            connect(fresh.clients[0], EXTERNAL).close()
        assert talks.broken() == []
        eventually(fresh, lambda: set(states(fresh).values()) == {"up"}, "all are up again", 15.0)
        assert talks.broken() == [] and served_by(fresh) == set(SERVERS)


@pytest.mark.parametrize("fault", ["mistyped", "hanging"])
def test_where_every_verdict_is_believed_all_connections_end(quiet_bed: Bed, fault: str) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_checks.py", *APPS)
    quiet_bed.start_controller()
    eventually(quiet_bed, lambda: passed(quiet_bed), "checks pass")
    with Talks(quiet_bed.clients[0], EXTERNAL, 4) as talks, contextlib.ExitStack() as stack:
        if fault == "mistyped":
            quiet_bed.controller.reload(site(health_check=MISTYPED))
        else:
            stack.enter_context(stopped(quiet_bed, *SERVERS))
        eventually(quiet_bed, lambda: set(states(quiet_bed).values()) == {"down"}, "all are down", 15.0)
        with pytest.raises(ConnectionRefusedError):
            request(quiet_bed.clients[0], EXTERNAL)
        stack.close()
        eventually(quiet_bed, lambda: len(talks.broken()) == 4, "all are reset")


# What was down is down after a restart (F15).

def test_what_is_down_stays_down_over_a_restart(fresh: Bed) -> None:
    eventually(fresh, lambda: passed(fresh), "checks pass")
    with stopped(fresh, SERVERS[0]):
        eventually(fresh, lambda: states(fresh)[SERVERS[0]] == "down", "it is down", 15.0)
        eventually(fresh, lambda: SERVERS[0] in (fresh.controller.directory / "lbctl-state.json").read_text(), "saved")
        fresh.controller.kill()
        fresh.controller.start()
        fresh.wait_ready()
        assert served_by(fresh, 50) == {SERVERS[1]}
    eventually(fresh, lambda: set(states(fresh).values()) == {"up"}, "it is up by its checks", 15.0)


def test_what_is_down_is_up_where_results_are_forgotten(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_results.py", *APPS)
    quiet_bed.start_controller()
    eventually(quiet_bed, lambda: passed(quiet_bed), "checks pass")
    with stopped(quiet_bed, SERVERS[0]):
        eventually(quiet_bed, lambda: states(quiet_bed)[SERVERS[0]] == "down", "it is down", 15.0)
        saved = quiet_bed.controller.directory / "lbctl-state.json"
        eventually(quiet_bed, lambda: SERVERS[0] in saved.read_text(), "saved")
        quiet_bed.controller.kill()
        quiet_bed.controller.start()
        quiet_bed.wait_ready()
        with pytest.raises(TimeoutError):
            served_by(quiet_bed, 2, timeout=1.0)


# A UDP flow stays with a server that was removed (F8).

class Sender:
    """A client's UDP socket, that goes on to send from one port. A context manager."""

    def __init__(self, bed: Bed, port: int = 80) -> None:
        self.socket = bed.clients[0].call(lambda: socket.socket(type=socket.SOCK_DGRAM))
        self.socket.settimeout(0.5)
        self.socket.connect((EXTERNAL, port))

    def server(self) -> str | None:
        """Who answers the next datagram; None: nobody."""
        try:
            self.socket.send(b"still here")
            return self.socket.recv(100).split()[0].decode()
        except (TimeoutError, ConnectionRefusedError):
            return None

    def leaves(self, bed: Bed, server: str, timeout: float = 10.0) -> None:
        """Until another one answers, while it sends all the while."""
        eventually(bed, lambda: self.server() not in (server, None), f"another server than {server}", timeout)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@contextlib.contextmanager
def sender(bed: Bed, port: int = 80) -> Iterator[tuple[Sender, str]]:
    """A flow, and its server."""
    with Sender(bed, port) as flow:
        yield flow, eventually(bed, flow.server, "an answer")


def udp_server(server: str) -> str:
    return f"/v1/external-ips/{EXTERNAL}/services/udp/80/servers/{server}:8080"


def only(bed: Bed, server: str) -> Site:
    """The bed's site, where the service by UDP has that server alone."""
    first = bed.site.external_ips[0]
    tcp, udp = first.services
    udp = replace(udp, servers=tuple(each for each in udp.servers if str(each.address) == server))
    return replace(bed.site, external_ips=(replace(first, services=(tcp, udp)),))


def remove(bed: Bed, server: str) -> None:
    assert bed.rest("DELETE", udp_server(server)).status in (200, 204)


def take_out_of_the_file(bed: Bed, server: str) -> None:
    bed.controller.reload(only(bed, next(other for other in SERVERS if other != server)))


@pytest.mark.parametrize("how", [remove, take_out_of_the_file])
def test_a_udp_flow_leaves_a_server_that_is_removed(fresh: Bed, how: Callable[[Bed, str], None]) -> None:
    with sender(fresh) as (flow, server):
        how(fresh, server)
        flow.leaves(fresh, server)


def test_a_udp_flow_leaves_a_server_that_is_removed_while_no_controller_runs(fresh: Bed) -> None:
    with sender(fresh) as (flow, server):
        fresh.controller.kill()
        fresh.controller.write_site(only(fresh, next(other for other in SERVERS if other != server)))
        assert flow.server() == server
        fresh.controller.start()
        flow.leaves(fresh, server, 20.0)


def test_a_udp_flow_leaves_a_drained_server(fresh: Bed) -> None:
    """And `drain-server --wait` ends."""
    with sender(fresh) as (flow, server):
        asked = time.monotonic()
        assert fresh.rest("PATCH", udp_server(server), {"drained": True}).status == 200
        flow.leaves(fresh, server)
        assert time.monotonic() - asked > DRAINED * 0.9, "not before its time"
        waited = fresh.controller.cli("drain-server", f"{server}:8080", "--service", "udp/80", "--wait",
                                      "--timeout", "10")
        assert waited.returncode == 0, waited.stderr


def test_a_udp_flow_leaves_a_server_that_is_away(fresh: Bed) -> None:
    """Without any health check."""
    with sender(fresh) as (flow, server), without(fresh, server):
        flow.leaves(fresh, server, 15.0)


def test_where_an_entry_says_for_ever_where_packets_go_it_stays(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_departures.py", *APPS)
    quiet_bed.start_controller()
    with sender(quiet_bed) as (flow, server):
        remove(quiet_bed, server)
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            assert flow.server() in (server, None)
            time.sleep(0.1)


# A source port used again within seconds goes to the drained server (F11).

LINGERS = 30
"""Seconds: no entry ends by itself during a test."""


def lingering(bed: Bed) -> None:
    bed.controller.configure(replace(bed.site, settings=replace(bed.site.settings, linger=LINGERS)))
    bed.start_controller()


def server_now(bed: Bed, client: HandClient) -> str:
    [entry] = entries_of(bed, client.local)
    return entry["server"]


def drain(bed: Bed, server: str) -> None:
    assert bed.rest("PATCH", tcp_server(server), {"drained": True}).status == 200


def delete(bed: Bed, server: str) -> None:
    assert bed.rest("DELETE", tcp_server(server)).status in (200, 204)


def tcp_server(server: str) -> str:
    return f"/v1/external-ips/{EXTERNAL}/services/tcp/80/servers/{server}:8080"


def used_again(bed: Bed, client: HandClient, how: Callable[[Bed, str], None]) -> tuple[str, str]:
    """A connection is closed, its server takes no connections any more, and its port is used again: the servers before
    and after."""
    client.open()
    before = server_now(bed, client)
    client.close()
    how(bed, before)
    client.seq += 1_000_000
    client.ack = 0
    client.open()
    return before, server_now(bed, client)


@pytest.mark.parametrize("how", [drain, delete])
def test_a_port_that_is_used_again_leaves_such_a_server(quiet_bed: Bed, how: Callable[[Bed, str], None]) -> None:
    lingering(quiet_bed)
    with hand_client(quiet_bed) as client:
        before, after = used_again(quiet_bed, client, how)
        assert before != after and client.say(b"new").startswith(after.encode())


def test_a_port_that_is_used_again_stays_with_a_server_that_takes_connections(quiet_bed: Bed) -> None:
    lingering(quiet_bed)
    with hand_client(quiet_bed) as client:
        before, after = used_again(quiet_bed, client, lambda bed, server: None)
        assert before == after


def test_a_port_that_is_used_again_stays_where_only_the_entry_is_asked(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_reused.py", *APPS)
    lingering(quiet_bed)
    with hand_client(quiet_bed) as client:
        before, after = used_again(quiet_bed, client, drain)
        assert before == after


def test_a_port_that_is_used_again_leaves_a_server_that_is_gone(quiet_bed: Bed) -> None:
    """Its connection has ended unseen: there were no FINs."""
    lingering(quiet_bed)
    with hand_client(quiet_bed) as client:
        client.open()
        before = server_now(quiet_bed, client)
        with without(quiet_bed, before):
            delete(quiet_bed, before)
            client.seq += 1_000_000
            for pause in (1.0, 2.0, 4.0, 8.0):
                client.send(SYN)
                if answer := client.receive(SYN | ACK, pause):
                    break
            assert answer is not None and server_now(quiet_bed, client) != before


def test_a_forged_syn_takes_no_connection_from_a_drained_server(fresh: Bed) -> None:
    with hand_client(fresh) as client:
        client.open()
        server = server_now(fresh, client)
        drain(fresh, server)
        for number in range(1, 4):
            client.send(SYN, seq=client.seq + number * 2**28)
            assert client.say(b"mine").startswith(server.encode())
            time.sleep(0.5)
        for pause in (1.0, 2.0, 1.0):
            client.send(SYN, seq=client.seq + 2**29)  # as a client that repeats it
            time.sleep(pause)
        assert client.say(b"still mine").startswith(server.encode())


# Least-connections sends everything to the server that has just come (F18).

RAMP = 20.0


def one_server(slow_start: float) -> Site:
    """By least-connections, with the first server alone."""
    plain = site(scheduler="least-connections", slow_start=slow_start, health_check=None)
    first = plain.external_ips[0]
    tcp, udp = first.services
    return replace(plain, external_ips=(replace(first, services=(replace(tcp, servers=tcp.servers[:1]), udp)),))


def connections(bed: Bed, server: str) -> int:
    return next(each["connections"] for each in service(bed)["servers"] if each["address"] == server)


def add_second(bed: Bed) -> None:
    path = f"/v1/external-ips/{EXTERNAL}/services/tcp/80/servers"
    assert bed.rest("POST", path, {"address": SERVERS[1], "port": 8080}).status == 201
    eventually(bed, lambda: all(each["mac"] for each in service(bed)["servers"]), "both are found")


def test_a_server_that_comes_gets_its_share_little_by_little(quiet_bed: Bed) -> None:
    quiet_bed.controller.configure(one_server(RAMP))
    quiet_bed.start_controller()
    with Talks(quiet_bed.clients[0], EXTERNAL, 20) as old:
        add_second(quiet_bed)
        began = time.monotonic()
        with Talks(quiet_bed.clients[0], EXTERNAL, 12) as new:
            part = max((time.monotonic() - began) / RAMP, 0.1)
            assert connections(quiet_bed, SERVERS[1]) <= part * connections(quiet_bed, SERVERS[0]) + 2
            time.sleep(max(began + RAMP + 1.0 - time.monotonic(), 0.0))
            with Talks(quiet_bed.clients[0], EXTERNAL, 12) as late:
                assert connections(quiet_bed, SERVERS[1]) >= 12, "now it is filled"
                assert old.broken() == new.broken() == late.broken() == []


def test_without_slow_start_it_gets_all(quiet_bed: Bed) -> None:
    """The twin: the default."""
    quiet_bed.controller.configure(one_server(0.0))
    quiet_bed.start_controller()
    with Talks(quiet_bed.clients[0], EXTERNAL, 20):
        add_second(quiet_bed)
        with Talks(quiet_bed.clients[0], EXTERNAL, 12):
            assert connections(quiet_bed, SERVERS[1]) == 12


# One entry for each DNS query; a client that pauses (F17, F19).

def test_a_service_has_its_own_idle_timeout(quiet_bed: Bed) -> None:
    """Each query comes from a port of its own, as a resolver's. The twin is the service on the other port: it has the
    site's timeout, and keeps them all."""
    plain = site()
    first = plain.external_ips[0]
    tcp, udp = first.services
    short, long = replace(udp, idle_timeout=2.0), replace(udp, port=OTHER_PORT)
    quiet_bed.controller.configure(replace(plain, external_ips=(replace(first, services=(tcp, short, long)),)))
    quiet_bed.start_controller()

    def entries(protocol: str, port: int) -> int:
        return sum((entry["protocol"], entry["external_port"]) == (protocol, port)
                   for entry in quiet_bed.entries("lb-a"))

    with Talks(quiet_bed.clients[0], EXTERNAL, 1) as talks:
        for port in (OTHER_PORT, 80):
            with contextlib.ExitStack() as all_open:  # else two may have the same port
                for _ in range(QUERIES):
                    all_open.enter_context(sender(quiet_bed, port))
        eventually(quiet_bed, lambda: entries("udp", 80) == 0, "they are idle", 15.0)
        assert entries("udp", OTHER_PORT) == QUERIES
        assert talks.broken() == [] and entries("tcp", 80) == 1
