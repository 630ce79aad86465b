"""ICMP through and at an LB (issue 3, point 3): errors, TTL, path MTU, echo, fragments. What a translation makes work has a twin
without it, in which it does not."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import NamedTuple

import pytest

from lbctl.model import ExternalIp, Server, Service, Site
from testbed import frames
from testbed.bed import Bed
from testbed.namespaces import Namespace
from testbed.sites import simple_site, with_nat_gateway
from testbed.traffic import RawPort, connect, request
from tests.integration.hands import counters, dropped, external_mac, internal_mac, live, own_server, server_space
from tests.integration.icmp_tools import REACHED, IcmpError, icmp_error, plain_socket, probe, trace
from tests.integration.moving import STRATEGIES, wait_reached

__all__ = ["live"]

PLAIN, ROUTED, FULL, FULL_ROUTED, GATEWAY = (f"198.51.100.{n}" for n in (1, 2, 3, 4, 200))
INNER_ROUTER = "10.0.0.99"
INSIDE = ("10.0.0.201", "10.0.0.202")
CLIENT, CLIENTS_ROUTER, LBS_ROUTER = "203.0.113.1", "203.0.113.254", "198.51.100.254"
MUCH = 400_000
"""Bytes that need several round trips."""


def external_ip(number: int, server: str, *, full: bool, routed: bool) -> ExternalIp:
    """198.51.100.number, with one server for TCP port 80 and UDP port 53."""
    server_at = Server(IPv4Address(server), 8080, next_hop=IPv4Address(INNER_ROUTER) if routed else None)
    services = (Service("tcp", 80, servers=(server_at,)), Service("udp", 53, servers=(replace(server_at, port=5353),)))
    gateway, internal_ips = IPv4Address(f"10.0.0.{number}"), (IPv4Address(f"10.0.0.10{number}"),)
    return ExternalIp(IPv4Address(f"198.51.100.{number}"), "lb-a", None if full else gateway, "full" if full else "destination",
                      services, internal_ips=internal_ips if full else ())


def site() -> Site:
    """Both kinds of NAT, each with a server on the internal network and one behind a router; and a NAT gateway."""
    settings = {"linger": 1, "arp_interval": 1.0, "error_rate": 1000, "settle": 0.2, "grace": 0.2}
    addresses = (external_ip(1, "10.0.0.11", full=False, routed=False), external_ip(2, "10.1.0.21", full=False, routed=True),
                 external_ip(3, "10.0.0.31", full=True, routed=False), external_ip(4, "10.1.0.41", full=True, routed=True))
    return with_nat_gateway(replace(simple_site(external_ips=1, settings=settings), external_ips=addresses))


BED = {"site": site(), "inside": INSIDE}


@pytest.fixture(autouse=True, scope="module")
def talkative(built_bed: Bed) -> None:
    """Linux sends so many errors as are asked for; by default it sends one a second to each host."""
    for space in (built_bed.router, built_bed.remote, *built_bed.inner_routers.values(), *built_bed.servers, *built_bed.inside):
        space.sysctl(ipv4__icmp_ratelimit=0, ipv4__tcp_mtu_probing=0)


@contextlib.contextmanager
def without_translation(bed: Bed) -> Iterator[None]:
    """ICMP errors don't get to the controller, as if it did not translate them."""
    switches = [(node, node.ovs.ofctl("--no-stats", "dump-flows", node.bridge, "table=0,icmp").splitlines())
                for node in bed.lbs.values()]
    for node, flows in switches:
        assert len(flows) == 6, "two ports, three types"
        node.ovs.ofctl("del-flows", node.bridge, "table=0,icmp")
        node.ovs.appctl("revalidator/purge")
    try:
        yield
    finally:
        for node, flows in switches:
            node.ovs.ofctl("add-flows", node.bridge, "-", input="\n".join(flows))


# Port unreachable.


@pytest.mark.parametrize("external", [PLAIN, ROUTED, FULL, FULL_ROUTED])
def test_a_client_is_told_that_the_servers_port_is_closed(live: Bed, external: str) -> None:
    """The server's own error reaches the client's socket: as refused, and from the external IP."""
    for space in (live.clients[0], live.remote):
        with plain_socket(space, "udp") as client:
            client.connect((external, 53))
            client.send(b"anybody?")
            assert icmp_error(client) == IcmpError(3, 3, external, 0)
            client.settimeout(3)
            with pytest.raises(ConnectionRefusedError):
                client.send(b"again")
                client.recv(100)


def test_twin_without_translation_the_client_waits_in_vain(live: Bed) -> None:
    with without_translation(live), plain_socket(live.clients[0], "udp") as client:
        client.connect((PLAIN, 53))
        client.send(b"anybody?")
        assert icmp_error(client, 1.0) is None


@pytest.mark.parametrize("external", [PLAIN, FULL])
def test_a_server_is_told_that_its_client_has_gone(live: Bed, external: str) -> None:
    address = "10.0.0.11" if external == PLAIN else "10.0.0.31"
    server = plain_socket(server_space(live, address), "udp")
    with server, plain_socket(live.remote, "udp") as client:
        server.bind(("0.0.0.0", 5353))
        server.settimeout(3)
        client.connect((external, 53))
        client.send(b"hello")
        _, peer = server.recvfrom(100)
        client.close()
        server.sendto(b"too late", peer)
        assert icmp_error(server) == IcmpError(3, 3, CLIENT if external == PLAIN else "10.0.0.103", 0)


def test_an_inside_host_is_told_that_a_port_outside_is_closed(live: Bed) -> None:
    with plain_socket(live.inside[0], "udp") as client:
        client.connect((CLIENT, 4999))
        client.send(b"anybody?")
        assert icmp_error(client) == IcmpError(3, 3, CLIENT, 0)


# Traceroute.


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("external", [PLAIN, ROUTED, FULL, FULL_ROUTED])
def test_a_traceroute_from_outside_shows_the_lb_and_hides_the_inside(live: Bed, external: str, kind: str) -> None:
    routers_inside = [external] if external in (ROUTED, FULL_ROUTED) else []
    assert trace(live.remote, kind, external, 80 if kind == "tcp" else 53) == [CLIENTS_ROUTER, external, *routers_inside, REACHED]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_traceroute_from_inside_shows_the_gateway_and_the_routers_outside(live: Bed, kind: str) -> None:
    assert trace(live.inside[0], kind, CLIENT, 4999) == ["10.0.0.200", LBS_ROUTER, REACHED]


def test_a_traceroute_by_echo_goes_through_the_nat_gateway(live: Bed) -> None:
    said = [live.inside[0].run("sh", "-c", f"ping -c 1 -W 2 -t {ttl} {CLIENT}; true") for ttl in (1, 2, 3)]
    senders = [re.search(r"From (\S+) .*Time to live exceeded", text) for text in said[:2]]
    assert [found and found[1] for found in senders] == ["10.0.0.200", LBS_ROUTER]
    assert "1 received" in said[2]


def test_a_traceroute_by_echo_ends_at_the_lb(live: Bed) -> None:
    """The LB is who answers: also a request whose TTL ends there."""
    assert "1 received" in live.clients[0].run("ping", "-c", "1", "-W", "2", "-t", "1", PLAIN)
    assert "1 received" in live.remote.run("ping", "-c", "1", "-W", "2", "-t", "2", PLAIN)


# The TTL of packets that have an entry.


class End(NamedTuple):
    """One end of a connection, its host, and whom it shall see errors come from: by TTL, from 1 on."""

    socket: socket.socket
    space: Namespace
    hops: tuple[str, str]


@pytest.fixture(params=[PLAIN, FULL])
def ends(live: Bed, request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    """A connection of the remote client and a server."""
    address, hops = {PLAIN: ("10.0.0.11", ("10.0.0.1", LBS_ROUTER)), FULL: ("10.0.0.31", ("10.0.0.103", "10.0.0.103"))}[request.param]
    space = server_space(live, address)
    with own_server(live, address, 8080) as listener:
        client, server = connect(live.remote, request.param), listener.accept()[0]
        with client, server:
            yield End(client, live.remote, (CLIENTS_ROUTER, request.param)), End(server, space, hops)
    live.start_servers()


def test_the_end_of_a_ttl_is_told_to_both_ends(ends: tuple[End, End]) -> None:
    """With the packet as its sender knows it. The connection goes on when its packets live long enough again."""
    for sender, receiver in (ends, ends[::-1]):
        local, peer = sender.socket.getsockname(), sender.socket.getpeername()
        with RawPort(sender.space, "eth0") as wire:
            for ttl, hop in enumerate(sender.hops, 1):
                wire.drain()
                sender.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
                sender.socket.sendall(b"x")
                error = wire.receive(lambda frame: frame.icmp_type is not None)
                assert error is not None and (error.icmp_type, error.icmp_code, str(error.src)) == (11, 0, hop)
                assert error.checksums_right and str(error.dst) == local[0] and error.eth_dst == wire.mac
                quoted = frames.read(bytes(12) + b"\x08\x00" + error.payload)
                assert ((str(quoted.src), quoted.src_port), (str(quoted.dst), quoted.dst_port)) == (local, peer)
                assert quoted.checksums_right and quoted.ttl == 1
        sender.socket.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
        receiver.socket.settimeout(8)
        assert len(receiver.socket.recv(1) + receiver.socket.recv(1)) == 2


def test_a_syn_whose_ttl_ends_makes_no_entry(live: Bed) -> None:
    before = counters(live)["other"].get("connections_opened", 0)
    assert probe(live.clients[0], "tcp", PLAIN, 80, 1) == IcmpError(11, 0, PLAIN, 0)
    assert counters(live)["other"].get("connections_opened", 0) == before


# Path MTU.


@contextlib.contextmanager
def bottleneck(space: Namespace, device: str, *senders: Namespace) -> Iterator[None]:
    """Packets of more than 1300 bytes don't go that way. The senders know of no narrower path, before and afterwards."""
    space.ip("link", "set", device, "mtu", 1300)
    try:
        yield
    finally:
        space.ip("link", "set", device, "mtu", 1500)
        for sender in senders:
            sender.ip("route", "flush", "cache")


def download(space: Namespace, address: str, timeout: float) -> int:
    """Bytes that came of so MUCH."""
    got = 0
    with connect(space, address, timeout=timeout) as connection, contextlib.suppress(TimeoutError):
        connection.sendall(b"GET /bytes/%d HTTP/1.1\r\nConnection: close\r\n\r\n" % MUCH)
        while part := connection.recv(65536):
            got += len(part)
    return got


@pytest.mark.parametrize("external", [PLAIN, FULL])
def test_a_large_download_passes_a_bottleneck_outside(live: Bed, external: str) -> None:
    server = server_space(live, "10.0.0.11" if external == PLAIN else "10.0.0.31")
    before = counters(live)["other"].get("icmp_errors_translated", 0)
    with bottleneck(live.router, "eth1", server):
        assert download(live.remote, external, 3.0) > MUCH
        assert "mtu 1300" in server.ip("route", "get", CLIENT if external == PLAIN else "10.0.0.103")
    assert counters(live)["other"]["icmp_errors_translated"] > before


def test_twin_without_translation_the_download_hangs(live: Bed) -> None:
    with without_translation(live), bottleneck(live.router, "eth1", server_space(live, "10.0.0.11")):
        assert download(live.remote, PLAIN, 1.5) < 1000
    assert download(live.remote, PLAIN, 3.0) > MUCH


@pytest.mark.parametrize("external", [ROUTED, FULL_ROUTED])
def test_a_large_upload_passes_a_bottleneck_inside(live: Bed, external: str) -> None:
    inner = live.inner_routers[IPv4Address(INNER_ROUTER)]
    with bottleneck(inner, "far", live.remote, live.clients[0]):
        for space in (live.remote, live.clients[0]):
            assert request(space, external, method="POST", body=b"x" * MUCH, timeout=3.0)["received"] == MUCH
            assert "mtu 1300" in space.ip("route", "get", external)


def test_twin_without_translation_the_upload_hangs(live: Bed) -> None:
    inner = live.inner_routers[IPv4Address(INNER_ROUTER)]
    with without_translation(live), bottleneck(inner, "far"), pytest.raises(TimeoutError):
        request(live.clients[0], ROUTED, method="POST", body=b"x" * MUCH, timeout=1.5)


def test_an_inside_hosts_upload_passes_a_bottleneck_outside(live: Bed) -> None:
    with own_listener(live.remote) as listener, bottleneck(live.router, "eth1", live.inside[0]):
        with connect(live.inside[0], CLIENT, listener.getsockname()[1]) as sender:
            receiver, _ = listener.accept()
            with receiver:
                receiver.settimeout(3)
                sender.sendall(b"x" * 100_000)
                sender.shutdown(socket.SHUT_WR)
                got = 0
                while part := receiver.recv(65536):
                    got += len(part)
        assert got == 100_000
        assert "mtu 1300" in live.inside[0].ip("route", "get", CLIENT)


@contextlib.contextmanager
def own_listener(space: Namespace) -> Iterator[socket.socket]:
    """A TCP socket that listens on some port."""
    with space.call(socket.socket) as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        listener.settimeout(5)
        yield listener


# Echo.


def ping(space: Namespace, address: str, *options: object) -> tuple[int, int]:
    """Requests sent, and replies that came and were right."""
    said = space.run("sh", "-c", " ".join(map(str, ("ping", "-n", "-W", 2, *options, address, "; true"))), timeout=60)
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found and "wrong" not in said and "DUP" not in said, said
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("size", [0, 1, 56, 777, 1472])
def test_ping_is_answered_in_the_switch(live: Bed, size: int) -> None:
    """Of each size that fits into one packet."""
    before = counters(live)["packet_ins"]
    assert ping(live.remote, PLAIN, "-c", 2, "-i", 0.01, "-s", size) == (2, 2)
    assert ping(live.clients[0], FULL, "-c", 2, "-i", 0.01, "-s", size) == (2, 2)
    assert ping(server_space(live, "10.0.0.11"), "10.0.0.1", "-c", 2, "-i", 0.01, "-s", size) == (2, 2)
    assert ping(server_space(live, "10.0.0.31"), "10.0.0.103", "-c", 2, "-i", 0.01, "-s", size) == (2, 2)
    assert counters(live)["packet_ins"] == before


def test_the_answer_to_a_ping_is_right_to_the_byte(live: Bed) -> None:
    with RawPort(live.clients[0], "eth0") as port:
        port.send(frames.echo_request((port.mac, external_mac(live, "lb-a")), "198.51.100.101", PLAIN, number=77))
        answer = port.receive(lambda frame: frame.icmp_type == 0)
        assert answer is not None and answer.checksums_right
        assert (answer.eth_src, answer.eth_dst) == (external_mac(live, "lb-a"), port.mac)
        assert (str(answer.src), str(answer.dst), answer.ttl, answer.payload) == (PLAIN, "198.51.100.101", 64, b"abcdefgh")
        assert answer.raw[38:42] == struct.pack("!HH", 7, 77), "identifier and sequence number"


def test_ping_of_an_external_ip_elsewhere_gets_host_unreachable(live: Bed) -> None:
    with RawPort(live.clients[0], "eth0") as port:
        port.send(frames.echo_request((port.mac, external_mac(live, "lb-b")), "198.51.100.101", PLAIN))
        answer = port.receive(lambda frame: frame.icmp_type is not None)
        assert answer is not None and (answer.icmp_type, answer.icmp_code) == (3, 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_ping_is_lost_while_its_external_ip_moves(live: Bed, strategy: str) -> None:
    """To an external IP, and from two inside hosts through a NAT gateway."""
    wait_reached(live)
    pinging = [(live.clients[0], PLAIN), (live.inside[0], CLIENT), (live.inside[1], CLIENT)]
    processes = [space.popen("ping", "-n", "-i", "0.01", "-W", "2", address, stdout=-1) for space, address in pinging]
    time.sleep(0.2)
    for target in ("lb-b", "lb-a"):
        for address in (PLAIN, GATEWAY):
            assert live.move(address, target, strategy)["state"] == "done"
    for process in processes:
        process.send_signal(2)
        said = process.communicate(timeout=10)[0]
        found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        # The last request may have been on its way when ping was ended.
        assert found and int(found[1]) - int(found[2]) <= 1 and int(found[1]) > 50, said


def test_two_inside_hosts_with_one_identifier_are_kept_apart(live: Bed) -> None:
    """Raw requests with the same identifier at the same time: each host gets its own replies."""
    with RawPort(live.inside[0], "eth0") as one, RawPort(live.inside[1], "eth0") as two:
        for number, (port, host) in enumerate(((one, INSIDE[0]), (two, INSIDE[1])), 1):
            port.send(frames.echo_request((port.mac, internal_mac(live, "lb-a")), host, CLIENT, number=number))
        for number, (port, host) in enumerate(((one, INSIDE[0]), (two, INSIDE[1])), 1):
            answer = port.receive(lambda frame: frame.icmp_type == 0)
            assert answer is not None and answer.checksums_right and str(answer.dst) == host
            assert answer.raw[38:42] == struct.pack("!HH", 7, number)


def test_a_reply_that_nobody_asked_for_is_dropped(live: Bed) -> None:
    before = dropped(live, "icmp_no_echo")
    with RawPort(live.clients[0], "eth0") as port:
        reply = bytearray(frames.echo_request((port.mac, external_mac(live, "lb-a")), "198.51.100.101", GATEWAY))
        reply[34] = 0
        port.send(bytes(reply))
        live.wait_until(lambda: dropped(live, "icmp_no_echo") == before + 1, 3, "it is counted")


# What is forged or broken.


def error_frame(bed: Bed, port: RawPort, quoted: bytes, *, kind: int = 3, code: int = 4, dst: str = PLAIN) -> bytes:
    """An ICMP error from a client's segment to lb-a."""
    body = bytearray(struct.pack("!BBHHH", kind, code, 0, 0, 1300) + quoted)
    body[2:4] = frames._sum(bytes(body)).to_bytes(2)
    return frames.ipv4((port.mac, external_mac(bed, "lb-a")), "198.51.100.101", dst, frames.ICMP, bytes(body))


def test_errors_that_quote_no_connection_are_dropped_and_counted(live: Bed) -> None:
    def segment(client: tuple[str, int], external: tuple[str, int]) -> bytes:
        return frames.tcp(("02:00:00:00:00:01", "02:00:00:00:00:02"), external, client, frames.ACK)[14:]

    with connect(live.clients[0], PLAIN) as connection, RawPort(live.clients[0], "eth0") as port, \
            RawPort(server_space(live, "10.0.0.11"), "eth0") as wire:
        client = connection.getsockname()
        right = segment(client, (PLAIN, 80))
        wrong = [segment((client[0], client[1] ^ 1), (PLAIN, 80)), segment(client, (FULL, 80)), segment(client, ("192.0.2.1", 80)),
                 right[:24], right[:10], b"", b"\xff" * 40, right[:6] + b"\x00\x10" + right[8:], right[:9] + b"\x84" + right[10:]]
        before = dropped(live, "icmp_quotes_no_connection")
        port.send(*[error_frame(live, port, quoted) for quoted in wrong], error_frame(live, port, right, dst=FULL))
        live.wait_until(lambda: dropped(live, "icmp_quotes_no_connection") == before + len(wrong) + 1, 3, "all are counted")
        wire.drain()
        port.send(error_frame(live, port, right))
        seen = wire.receive(lambda frame: frame.icmp_type is not None)
        assert seen is not None and (seen.icmp_type, seen.icmp_code) == (3, 4), "only the right one passes"
        assert seen.checksums_right and (str(seen.src), str(seen.dst)) == ("198.51.100.101", "10.0.0.11")
        inner = frames.read(bytes(12) + b"\x08\x00" + seen.payload)
        assert inner.checksums_right and (str(inner.src), inner.src_port, str(inner.dst), inner.dst_port) == ("10.0.0.11", 8080, *client)
    assert live.controller.running


# Fragments.


def test_datagrams_and_pings_larger_than_a_packet_are_dropped_and_counted(live: Bed) -> None:
    """An LB has no place to put fragments together; the switch's own rule counts them."""
    def count() -> int:
        flows = live.lbs["lb-a"].ovs.ofctl("dump-flows", live.lbs["lb-a"].bridge, "table=0,ip").splitlines()
        return sum(int(re.search(r"n_packets=(\d+)", line)[1]) for line in flows if "nw_frag=yes" in line)

    before = count()
    server = server_space(live, "10.0.0.11").call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    client = live.clients[0].call(lambda: socket.socket(type=socket.SOCK_DGRAM))
    with server, client:
        server.bind(("0.0.0.0", 5353))
        client.sendto(b"x" * 3000, (PLAIN, 53))
        client.sendto(b"small", (PLAIN, 53))
        assert select.select([server], [], [], 3.0)[0] and server.recv(4000) == b"small"
    assert ping(live.clients[0], PLAIN, "-c", 1, "-W", 0.3, "-s", 3000) == (1, 0)
    live.wait_until(lambda: count() == before + 6, 3, "the switch has counted them")
