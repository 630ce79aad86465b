"""UDP services (issue 3, point 3), with both kinds of NAT; the proof is a DNS service that moves."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv4Address

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.dns import NAME, DnsLoad, DnsServer
from tests.bed.namespaces import Namespace
from tests.bed.sites import simple_site
from tests.bed.traffic import RawPort, request
from tests.integration.hands import counters, entries_of, entry_flows_of, external_mac, server_space
from tests.integration.moving import STRATEGIES, Talks, wait_reached
from tests.integration.slow_moves import harm_by_a_slow_lb

DESTINATION, FULL = "198.51.100.1", "198.51.100.2"
KINDS = pytest.mark.parametrize("address", [DESTINATION, FULL], ids=["destination", "full"])
IDLE = 2.0
ECHO, DNS, SILENT = 80, 53, 7


def site() -> Site:
    """Each external IP with TCP and UDP on port 80, DNS, and a service whose servers listen on no such port."""
    plain = simple_site(
        external_ips=2,
        settings={"grace": 0.5, "linger": 1, "arp_interval": 2.0, "udp_idle_timeout": IDLE, "time_wait": 1.0},
    )
    destination, full = (replace(ip, load_balancer="lb-a", services=(*ip.services, *udp_services(ip.services[0])))
                         for ip in plain.external_ips)
    return replace(
        plain,
        external_ips=(destination, replace(full, nat="full", gateway=None, internal_ips=(IPv4Address("10.0.0.102"),))),
    )


def udp_services(tcp: Service) -> list[Service]:
    return [Service("udp", port, servers=tuple(Server(server.address, at) for server in tcp.servers))
            for port, at in ((ECHO, 8080), (DNS, 53), (SILENT, 9))]


BED = {"site": site()}


def prepare(bed: Bed) -> None:
    """UDP echo on port 8080 and DNS on port 53 of every server; with full NAT they have no way to the clients but the
    LB's."""
    for space in bed.servers:
        bed.serve(space, "udp_server.py", space.name.removeprefix("server-"), 8080)
        bed.server_scripts[f"dns on {space.name}"] = DnsServer(space)


class Plug:
    """A client's connected UDP socket. A context manager."""

    def __init__(self, space: Namespace, address: str, port: int = ECHO, timeout: float = 3.0) -> None:
        self.socket = space.call(lambda: socket.socket(type=socket.SOCK_DGRAM))
        self.socket.settimeout(timeout)
        self.socket.connect((address, port))

    @property
    def local(self) -> tuple[str, int]:
        return self.socket.getsockname()

    def send(self, *texts: str) -> None:
        for text in texts:
            self.socket.send(text.encode())

    def receive(self) -> tuple[str, str]:
        """(server, text)"""
        server, _, text = self.socket.recv(65536).decode().partition(" ")
        return server, text

    def ask(self, text: str = "hello") -> str:
        """The server that has answered."""
        self.send(text)
        server, answer = self.receive()
        assert answer == text
        return server

    def __enter__(self) -> Plug:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def when(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def has_ended(bed: Bed, local: tuple[str, int], lb: str = "lb-a") -> bool:
    return not entries_of(bed, local, lb)


# An entry's life


@KINDS
@pytest.mark.quick
def test_a_first_datagram_makes_an_entry_and_the_answer_comes_back(live: Bed, address: str) -> None:
    for space in (live.clients[0], live.remote):
        with Plug(space, address) as plug:
            server = plug.ask()
            [entry] = entries_of(live, plug.local)
            assert (entry["protocol"], entry["server"], entry["server_port"], entry["state"]) == (
                "udp",
                server,
                8080,
                "open",
            )
            assert (entry["external_ip"], entry["external_port"]) == (address, ECHO)
            assert (entry["internal_ip"] == "10.0.0.102") is (address == FULL)
            assert {plug.ask(str(n)) for n in range(20)} == {server}, "a connection stays with its server"


@KINDS
def test_servers_take_turns(live: Bed, address: str) -> None:
    seen = []
    for _ in range(4):
        with Plug(live.clients[0], address) as plug:
            seen.append(plug.ask())
    assert sorted(seen) == sorted([*set(seen)] * 2) and len(set(seen)) == 2


@KINDS
def test_a_burst_before_the_entry_is_there(live: Bed, address: str) -> None:
    """50 datagrams before the controller hears of the first: one entry, nothing lost, in order."""
    texts = [f"{n:02}" for n in range(50)]
    before = counters(live)["other"].get("early_datagrams", 0)
    with Plug(live.clients[0], address) as plug:
        live.controller.signal(signal.SIGSTOP)
        try:
            plug.send(*texts)
            time.sleep(0.1)
        finally:
            live.controller.signal(signal.SIGCONT)
        servers, answers = zip(*(plug.receive() for _ in texts), strict=True)
        assert list(answers) == texts and len(set(servers)) == 1
        assert len(entries_of(live, plug.local)) == 1
        assert plug.ask() == servers[0]
    assert counters(live)["other"]["early_datagrams"] - before >= 49


def test_udp_and_tcp_on_one_port(live: Bed) -> None:
    with Plug(live.clients[0], DESTINATION) as plug, Talks(live.clients[0], DESTINATION, 2) as talks:
        plug.ask()
        assert request(live.clients[0], DESTINATION)["port"] == 8080
        protocols = {entry["protocol"] for entry in live.entries("lb-a")}
        assert protocols == {"tcp", "udp"} and talks.broken() == []


@KINDS
def test_an_idle_entry_ends_and_those_of_tcp_stay(live: Bed, address: str) -> None:
    with Plug(live.clients[0], address) as plug, Talks(live.clients[0], address) as talks:
        plug.ask()
        begun = time.monotonic()
        live.wait_until(lambda: has_ended(live, plug.local), 5 * IDLE, "the entry has ended")
        assert time.monotonic() - begun > IDLE * 0.9
        assert [flow for flow in entry_flows_of(live, plug.local) if "udp" in flow] == []
        assert talks.broken() == []
        plug.ask()  # it is made again
        assert len(entries_of(live, plug.local)) == 1


def test_traffic_in_one_direction_keeps_it(live: Bed) -> None:
    with contextlib.ExitStack() as stack:
        plugs = [stack.enter_context(Plug(live.clients[0], address)) for address in (DESTINATION, FULL)]
        for plug in plugs:
            plug.ask()
        before = [entries_of(live, plug.local)[0] for plug in plugs]
        for _ in range(int(2.5 * IDLE / 0.2)):
            for plug in plugs:
                plug.send("-")
            time.sleep(0.2)
        after = [entries_of(live, plug.local)[0] for plug in plugs]
        for old, new in zip(before, after, strict=True):
            assert (new["created"], new["server"]) == (old["created"], old["server"])
            assert new["last_seen"] > old["last_seen"] and new["packets"] > old["packets"] and new["bytes"] > 0


# Refusals


def test_a_port_without_a_service_is_unreachable(live: Bed) -> None:
    with Plug(live.clients[0], DESTINATION, 5353) as plug, pytest.raises(ConnectionRefusedError):
        plug.ask()


@KINDS
def test_a_port_where_no_server_listens_is_unreachable(live: Bed, address: str) -> None:
    """The server says it, the client hears it of the external IP."""
    with Plug(live.clients[0], address, SILENT) as plug, pytest.raises(ConnectionRefusedError):
        plug.ask()


def test_a_stray_datagram_of_a_server_is_answered_with_an_error(live: Bed) -> None:
    plug = server_space(live, "10.0.0.11").call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    with plug:
        plug.settimeout(3)
        plug.connect(("198.51.100.101", 5353))
        plug.send(b"nobody asked")
        with pytest.raises(ConnectionRefusedError):
            plug.recv(100)


def test_a_stray_datagram_to_an_internal_ip_is_answered_with_an_error(live: Bed) -> None:
    plug = server_space(live, "10.0.0.21").call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    with plug:
        plug.settimeout(3)
        plug.connect(("10.0.0.102", 5353))
        plug.send(b"nobody asked")
        with pytest.raises(ConnectionRefusedError):
            plug.recv(100)


def test_a_datagram_without_checksum_arrives_without(live: Bed) -> None:
    """RFC 768: 0 says that there is none, and must not become a wrong one."""
    with Plug(live.clients[0], DESTINATION) as plug:
        server = server_space(live, plug.ask())
        frame = bytearray(
            frames.udp(
                (live.clients[0].mac("eth0"), external_mac(live, "lb-a")), plug.local, (DESTINATION, ECHO), b"-bare"
            )
        )
        frame[40:42] = bytes(2)
        with RawPort(live.clients[0], "eth0") as port, RawPort(server, "eth0") as wire:
            port.send(bytes(frame))
            seen = wire.receive(lambda frame: frame.payload == b"-bare")
        assert seen is not None and (seen.dst_port, seen.raw[40:42]) == (8080, bytes(2))


# DNS


@KINDS
def test_dig(live: Bed, address: str) -> None:
    answers = {live.clients[0].run("dig", "+short", "+tries=1", f"@{address}", NAME, "TXT").strip() for _ in range(4)}
    number = 1 if address == DESTINATION else 2
    assert answers == {f'"10.0.0.{number}1"', f'"10.0.0.{number}2"'}


def dns_load(bed: Bed, address: str, **options: int) -> list[DnsLoad]:
    return [
        DnsLoad(space, bed.directory / f"dns-{space.name}.log", address, **options)
        for space in (bed.clients[0], bed.remote)
    ]


def assert_answered(loads: list[DnsLoad], at_least: int = 50) -> None:
    """Every query, and those of one port by one server."""
    for saw in [load.stop() for load in loads]:
        assert saw.failures == () and saw.changed == 0, saw
        assert saw.succeeded == saw.asked >= at_least and len(saw.servers) == 2


@pytest.mark.alone  # a datagram that a busy machine drops is not sent again
@KINDS
def test_dns_moves_to_and_fro_without_a_lost_answer(bed: Bed, address: str) -> None:
    wait_reached(bed)
    loads = dns_load(bed, address)
    for strategy in STRATEGIES:
        for target in ("lb-b", "lb-a"):
            record = bed.move(address, target, strategy)
            assert record["state"] == "done" and record["packets_lost"] == 0, record
    assert_answered(loads, 300)


@pytest.mark.parametrize("address,strategy", [(DESTINATION, "buffered"), (FULL, "precopy")])
def test_dns_moves_to_a_slow_lb_without_a_lost_answer(quiet_bed: Bed, address: str, strategy: str) -> None:
    assert harm_by_a_slow_lb(quiet_bed, address, strategy, lambda: dns_load(quiet_bed, address)) == 0


@KINDS
@pytest.mark.parametrize("naive_bed", ["route-first"], indirect=True)
def test_dns_loses_answers_when_the_route_comes_first(naive_bed: Bed, address: str) -> None:
    assert harm_by_a_slow_lb(naive_bed, address, "precopy", lambda: dns_load(naive_bed, address)) > 0


# Restart


@KINDS
def test_a_restarted_controller_takes_the_entries_over(bed: Bed, address: str) -> None:
    """What is open goes on meanwhile; new ports must wait for the controller, so the load has none."""
    loads = dns_load(bed, address, changing=0)
    with Plug(bed.clients[0], address) as plug, Talks(bed.clients[0], address) as talks:
        server = plug.ask()
        [before] = entries_of(bed, plug.local)
        bed.wait_until(lambda: entry_flows_of(bed, plug.local), 5, "the switch has the entry")
        bed.controller.kill()
        assert plug.ask() == server
        bed.start_controller()
        [after] = entries_of(bed, plug.local)
        counted = ("created", "last_seen", "packets", "bytes")
        assert {column: value for column, value in after.items() if column not in counted}.items() <= before.items()
        assert 0 <= when(before["created"]) - when(after["created"]) < 2.5, "whole seconds are known, and rounded down"
        assert when(before["last_seen"]) <= when(after["last_seen"]) and after["packets"] >= 4
        assert plug.ask() == server
        assert talks.broken() == []
        live_until = time.monotonic()
        bed.wait_until(lambda: has_ended(bed, plug.local), 5 * IDLE, "the entry has ended")
        assert time.monotonic() - live_until > IDLE * 0.5
    assert_answered(loads)
