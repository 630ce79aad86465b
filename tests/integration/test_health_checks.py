"""Health checks of servers (issue 5, part 5): what takes a server out, what brings it back, and that nothing else
does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import pytest

from lbctl.site.model import CHECK_PORTS, ExternalIp, HealthCheck, Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.patience import limit
from tests.bed.sites import behind_tunnels, simple_site, together
from tests.bed.traffic import connect, request
from tests.integration.hands import metric, server_space, syns_sent_again
from tests.integration.moving import STRATEGIES, Talks, assert_unharmed, mixed_load, wait_reached

FIRST, FULL, TUNNEL, ROUTED, IPV6 = "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "2001:db8:1::5"
ALL = (FIRST, FULL, TUNNEL, ROUTED, IPV6)
LEAVES, UDP, BY_STATUS = 81, 53, 82
"""Ports of more services of FIRST: whose connections are left when a server goes down, and refused when all are;
checked by UDP; with own HTTP servers."""
STATUS_PORT = 8082
INTERVAL, TIMEOUT, RISE, FALL = 0.3, 0.3, 2, 3
CHECK = HealthCheck("http", INTERVAL, TIMEOUT, RISE, FALL)
NOTICED = INTERVAL * FALL + TIMEOUT
"""Seconds in which a server is down at the latest, on a machine that does nothing else."""
SLACK = 4.0
SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0, "settle": 0.3}


def checked(ip: ExternalIp, check: HealthCheck | None = CHECK) -> ExternalIp:
    return replace(ip, services=tuple(replace(service, health_check=check) for service in ip.services))


def site(check: HealthCheck | None = CHECK) -> Site:
    """Two servers each, all starting at lb-a: destination NAT, full NAT, by vxlan, behind an inner router, IPv6."""
    plain = simple_site(external_ips=4, settings=SETTINGS)
    tunneled = behind_tunnels(plain, "vxlan", internal_mtu=1450)
    ipv6 = simple_site(external_ips=5, version=6)
    both = together(tunneled, replace(ipv6, external_ips=ipv6.external_ips[4:]))
    first, full, _, routed = plain.external_ips
    servers = first.services[0].servers
    if check:
        http = replace(check, port=8080)
        first = replace(
            first,
            services=(
                replace(first.services[0], health_check=check),
                Service(
                    "tcp",
                    LEAVES,
                    servers=servers,
                    health_check=replace(http, when_down="leave", when_all_down="refuse"),
                ),
                Service(
                    "udp",
                    UDP,
                    servers=servers,
                    health_check=replace(check, type="udp", request=b"are you there", answer=b"10.0.0.1"),
                ),
                Service(
                    "tcp",
                    BY_STATUS,
                    servers=servers,
                    health_check=replace(check, port=STATUS_PORT, path="/state?of=it", status=((200, 299),)),
                ),
            ),
        )
    full = checked(replace(full, nat="full", gateway=None, internal_ips=(ip_address("10.0.0.102"),)), check)
    far = tuple(Server(ip_address(f"172.16.5.1{number}"), 8080, next_hop=ip_address("10.0.0.250")) for number in (1, 2))
    routed = checked(replace(routed, services=(replace(routed.services[0], servers=far),)), check)
    ips = (first, full, checked(both.external_ips[2], check), routed, checked(both.external_ips[4], check))
    return replace(both, external_ips=tuple(replace(ip, load_balancer="lb-a") for ip in ips))


BED = {"site": site()}


def prepare(bed: Bed) -> None:
    """UDP echo and HTTP servers of FIRST, besides the bed's own."""
    for address in servers_of(FIRST):
        space = server_space(bed, address)
        bed.serve(space, "udp_server.py", address, 8080)
        status_file(bed, address).write_text("204")
        bed.serve(space, "status_server.py", address, status_file(bed, address), STATUS_PORT)


@pytest.fixture
def well(live: Bed) -> Bed:
    """The bed with a controller that goes on from test to test; all servers are up."""
    for address in servers_of(FIRST):
        status_file(live, address).write_text("204")
    wait_all_up(live)
    return live


def status_file(bed: Bed, address: str):
    return bed.directory / f"status-of-{address}"


def servers_of(address: str) -> list[str]:
    return [str(server) for ip in site().external_ips if str(ip.address) == address for server in ip.server_addresses()]


def down(bed: Bed, address: str, port: int = 80) -> dict[str, str]:
    """Server -> why it is down, of that service."""
    services = bed.rest("GET", f"/v1/external-ips/{address}").json["services"]
    [service] = [service for service in services if service["port"] == port]
    return {server["address"]: server["reason"] for server in service["servers"] if server["state"] == "down"}


def wait_all_up(bed: Bed) -> None:
    def all_up() -> bool:
        services = [
            service for ip in bed.rest("GET", "/v1/external-ips").json["external_ips"] for service in ip["services"]
        ]
        return all(server["state"] == "up" for service in services for server in service["servers"])

    bed.wait_until(all_up, 10.0, "all servers up")


def wait_down(bed: Bed, address: str, server: str, reason: str, port: int = 80) -> None:
    """Until it is down for that reason."""
    bed.wait_until(lambda: down(bed, address, port).get(server) == reason, NOTICED + SLACK, f"{server} down: {reason}")


def end_server(bed: Bed, address: str) -> None:
    """kill -9 of its echo server."""
    bed.server_scripts[server_space(bed, address).name].kill()


@contextlib.contextmanager
def stopped(bed: Bed, address: str) -> Iterator[None]:
    """SIGSTOP to its echo server: the kernel goes on to accept connections."""
    pid = bed.server_scripts[server_space(bed, address).name].process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def failures(bed: Bed, address: str, count: int = 20, port: int = 80, timeout: float = limit(0.5)) -> int:
    """Of so many requests, each on a connection of its own."""
    failed = 0
    for _ in range(count):
        try:
            request(bed.clients[0], address, port, timeout=timeout)
        except OSError:
            failed += 1
    return failed


# A server goes, and comes back.


@pytest.mark.parametrize("address", ALL, ids=["destination", "full", "tunnel", "behind a router", "ipv6"])
def test_a_server_that_has_died(well: Bed, address: str) -> None:
    gone, other = servers_of(address)
    assert {request(well.clients[0], address)["server"] for _ in range(4)} == {gone, other}
    end_server(well, gone)
    wait_down(well, address, gone, "connection refused")
    assert failures(well, address) == 0
    assert {request(well.remote, address)["server"] for _ in range(4)} == {other}
    well.start_servers()
    well.wait_until(lambda: down(well, address) == {}, RISE * INTERVAL + SLACK, "up again")
    assert {request(well.clients[0], address)["server"] for _ in range(4)} == {gone, other}


def test_without_checks_requests_go_on_to_fail(quiet_bed: Bed) -> None:
    """The same bed; so the other tests can fail."""
    quiet_bed.controller.configure(site(None))
    quiet_bed.start_controller()
    end_server(quiet_bed, servers_of(FIRST)[0])
    time.sleep(NOTICED + 1.0)
    assert failures(quiet_bed, FIRST) == 10


def test_a_server_that_hangs(well: Bed) -> None:
    gone, other = servers_of(FIRST)
    with stopped(well, gone):
        wait_down(well, FIRST, gone, f"no HTTP status within {TIMEOUT:g} s")
        assert failures(well, FIRST) == 0
    well.wait_until(lambda: down(well, FIRST) == {}, RISE * INTERVAL + SLACK, "up again")
    said = [
        line
        for line in well.controller.log_tail(200).splitlines()
        if gone in line and "tcp/80" in line and "no HTTP" in line
    ]
    assert len(said) == 1, "each change once"
    assert "service=tcp/80" in said[0] and f"external_ip={FIRST}" in said[0]


def test_a_server_whose_packets_are_lost(well: Bed) -> None:
    gone, other = servers_of(FIRST)
    well.switch.ip("link", "set", well.plugs[server_space(well, gone).name, "eth0"].port, "nomaster")
    try:
        wait_down(well, FIRST, gone, f"no answer within {TIMEOUT:g} s")
        assert failures(well, FIRST) == 0
    finally:
        well.switch.ip("link", "set", well.plugs[server_space(well, gone).name, "eth0"].port, "master", "internal")


def test_a_wrong_status(well: Bed) -> None:
    gone, other = servers_of(FIRST)
    status_file(well, gone).write_text("503")
    wait_down(well, FIRST, gone, "status 503", BY_STATUS)
    assert down(well, FIRST) == {}, "another service of the same server"
    status_file(well, gone).write_text("302")
    wait_down(well, FIRST, gone, "status 302", BY_STATUS)
    status_file(well, gone).write_text("200")
    well.wait_until(lambda: down(well, FIRST, BY_STATUS) == {}, RISE * INTERVAL + SLACK, "up again")
    log = well.server_scripts[f"status_server.py on server-{gone}"].log.read_text()
    assert '"GET /state?of=it HTTP/1.1" 503' in log


def test_udp(well: Bed) -> None:
    gone, other = servers_of(FIRST)
    space = server_space(well, gone)
    [pid] = [pid for pid in space.pids() if b"udp_server.py" in open(f"/proc/{pid}/cmdline", "rb").read()]
    os.kill(pid, signal.SIGSTOP)
    try:
        with contextlib.ExitStack() as stack:
            plugs = [stack.enter_context(udp_plug(well)) for _ in range(4)]
            for plug in plugs:
                plug.send(b"-opens")
            wait_down(well, FIRST, gone, f"no answer within {TIMEOUT:g} s", UDP)
            for plug in plugs:
                well.wait_until(lambda: answers(plug) == other, 10, "another server takes it over")  # noqa: B023
    finally:
        os.kill(pid, signal.SIGCONT)
    well.wait_until(lambda: down(well, FIRST, UDP) == {}, RISE * INTERVAL + SLACK, "up again")
    os.kill(pid, signal.SIGKILL)
    wait_down(well, FIRST, gone, "unreachable (ICMP)", UDP)
    assert down(well, FIRST) == {}
    well.start_servers()
    well.wait_until(lambda: down(well, FIRST, UDP) == {}, RISE * INTERVAL + SLACK, "up again")


def udp_plug(bed: Bed) -> socket.socket:
    """A client's socket, connected to the service by UDP."""
    plug = bed.clients[0].call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    plug.settimeout(0.5)
    plug.connect((FIRST, UDP))
    return plug


def answers(plug: socket.socket) -> str:
    """Who answers one more datagram. Raises TimeoutError: Open vSwitch's cache may send one or two to the old
    server."""
    plug.send(b"from the same port")
    return plug.recv(100).split()[0].decode()


# What clients notice.


def test_all_down(well: Bed) -> None:
    with contextlib.ExitStack() as stack:
        for address in servers_of(FIRST):
            stack.enter_context(stopped(well, address))
        for address in servers_of(FIRST):
            wait_down(well, FIRST, address, f"no HTTP status within {TIMEOUT:g} s")
            wait_down(well, FIRST, address, f"no HTTP status within {TIMEOUT:g} s", LEAVES)
        for client in (well.clients[0], well.remote):
            connect(client, FIRST).close()
            again = syns_sent_again(client)
            with pytest.raises(ConnectionRefusedError):
                connect(client, FIRST, LEAVES)
            assert syns_sent_again(client) == again, "not at once"
    well.wait_until(lambda: down(well, FIRST) == {}, RISE * INTERVAL + SLACK, "up again")
    assert failures(well, FIRST) == 0


def test_old_connections_are_reset_or_left(well: Bed) -> None:
    gone, other = servers_of(FIRST)
    with Talks(well.clients[0], FIRST, 4) as reset, Talks(well.clients[0], FIRST, 4, port=LEAVES) as left:
        with stopped(well, gone):
            wait_down(well, FIRST, gone, f"no HTTP status within {TIMEOUT:g} s")
            wait_down(well, FIRST, gone, f"no HTTP status within {TIMEOUT:g} s", LEAVES)
            assert {request(well.clients[0], FIRST, LEAVES)["server"] for _ in range(4)} == {other}
            again = syns_sent_again(well.clients[0])
            ended = lambda: len(entries_from(well, reset.ports)) == 2  # noqa: E731
            well.wait_until(ended, INTERVAL + TIMEOUT + SLACK, "the others have passed before and after")
            broken = reset.broken()
            assert len(broken) == 2 and all("ConnectionResetError" in what for what in broken)
            assert syns_sent_again(well.clients[0]) == again, "not at once"
        assert left.broken() == []


def entries_from(bed: Bed, ports: set[int]) -> list[dict]:
    return [entry for entry in bed.entries("lb-a") if entry["client_port"] in ports]


# Moves.


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_move_takes_no_server_down(well: Bed, strategy: str) -> None:
    wait_reached(well)
    before, fallen_before = metric(well, 'lbctl_health_checks_total{result="passed"}'), fallen(well)
    loads = [load for address in (FIRST, FULL) for load in mixed_load(well, address, lines=2, interval=0.05)]
    for to in ("lb-b", "lb-a"):
        for address in ALL:
            assert well.move(address, to, strategy)["state"] == "done"
        answers = check_answers(well, to)
        assert len(answers) == 6, "one for each protocol and address that checks come from"
        come = partial(more_answers, well, to, answers)
        well.wait_until(come, 5, "answers come by it")
    assert_unharmed(loads)
    well.wait_until(
        lambda: metric(well, 'lbctl_health_checks_total{result="passed"}') > before + 100, 10, "checks go on"
    )
    assert fallen(well) == fallen_before


def more_answers(bed: Bed, lb: str, before: dict[str, int]) -> bool:
    """Whether each of those flows has shown more answers than before."""
    now = check_answers(bed, lb)
    return all(now[at] > before[at] for at in before)


def fallen(bed: Bed) -> int:
    """How often a server has gone down."""
    return bed.controller.log_tail(1_000_000).count("server down")


def check_answers(bed: Bed, lb: str) -> dict[str, int]:
    """Packets that each flow has shown to the controller which takes answers to checks, by its match; but for those of
    servers behind a tunnel, by the internal network."""
    dump = bed.lbs[lb].ovs.ofctl("dump-flows", bed.lbs[lb].bridge, "table=30")
    found = re.findall(r"n_packets=(\d+).*?priority=135,(\S+)", dump)
    return {match: int(packets) for packets, match in found if "in_port=2,nw_dst=10.0.0.3" not in match}


# The data path.


def test_checks_cost_other_packets_nothing(well: Bed) -> None:
    """The datapath's cached flows of a connection are the same, field for field, with checks and without."""
    first = cached_flows(well, 30_001)
    well.controller.reload(site(None))
    try:
        well.wait_until(lambda: not check_answers(well, "lb-a"), 5, "no checks any more")
        second = cached_flows(well, 30_002)
    finally:
        well.controller.reload(site())
    assert first == second and len(first) == 2, (first, second)


def cached_flows(bed: Bed, port: int) -> list[str]:
    """Of a connection from that port: what the datapath looks at, and does; without numbers that differ between
    connections."""
    def ask() -> list[str]:
        with socket.create_connection((FIRST, 80), 5, ("198.51.100.101", port)) as talk:
            for number in range(3):
                talk.sendall(b"%d\n" % number)
                talk.recv(100)
            found = bed.lbs["lb-a"].ovs.appctl("dpctl/dump-flows").splitlines()
        return [line for line in found if f"={port}" in line]

    return sorted(
        re.sub(rf"{port}|10\.0\.0\.1[12]|[0-9a-f:]{{17}}|packets:.*?actions", "#", line)
        for line in bed.clients[0].call(ask)
    )


def test_nothing_is_left_at_a_server(well: Bed) -> None:
    """No socket stays, in whatever state."""
    first, last = CHECK_PORTS
    before = metric(well, 'lbctl_health_checks_total{result="passed"}')
    well.wait_until(
        lambda: metric(well, 'lbctl_health_checks_total{result="passed"}') > before + 50, 10, "checks go on"
    )

    def none_left() -> bool:
        lines = [line for space in well.servers for line in space.run("ss", "-Htna", "state", "all").splitlines()]
        peers = [line.split()[-1].rpartition(":")[2] for line in lines]
        return not any(peer.isdigit() and first <= int(peer) <= last for peer in peers)

    well.wait_until(none_left, 5, "no socket of a check")


def test_a_controller_that_starts_takes_all_servers_for_up(quiet_bed: Bed) -> None:
    """Until they have failed; connections by the others go on meanwhile."""
    gone, other = servers_of(FIRST)
    quiet_bed.start_controller()
    end_server(quiet_bed, gone)
    wait_down(quiet_bed, FIRST, gone, "connection refused")
    with Talks(quiet_bed.clients[0], FIRST, 2) as talks:
        quiet_bed.restart_controller()
        wait_down(quiet_bed, FIRST, gone, "connection refused")
        assert talks.broken() == [] and failures(quiet_bed, FIRST) == 0
