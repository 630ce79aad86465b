"""ICMP errors through and at an LB (issue 3, point 3), of both IP versions: unreachable ports, traceroute, the TTL,
path MTU. What a translation makes work has a twin without it, in which it does not."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

import pytest

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.traffic import RawPort, connect, request
from tests.integration import icmp_site
from tests.integration.hands import counters, dropped, external_mac, own_server, server_space
from tests.integration.icmp_site import NETS, Net
from tests.integration.icmp_tools import (
    IPPROTO,
    PORT_UNREACHABLE,
    REACHED,
    TIME_EXCEEDED,
    TTL,
    IcmpError,
    icmp_error,
    plain_socket,
    probe,
    trace,
)

BED = {**icmp_site.BED, "apps": ("tests/integration/naive_audits.py", *APPS)}
"""Flows that a test takes away by hand stay away."""
MUCH = 400_000
"""Bytes that need several round trips."""
DNS, SERVER_DNS, CLOSED = 53, 5353, 4999
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
both_kinds = pytest.mark.parametrize("external", ["plain", "full"])
all_kinds = pytest.mark.parametrize("external", ["plain", "routed", "full", "full_routed"])
"""Of external IPs: the name in Net."""


prepare = icmp_site.all_errors


@pytest.fixture(params=NETS.values(), ids=["ipv4", "ipv6"])
def net(request: pytest.FixtureRequest) -> Net:
    return request.param


def inside_host(bed: Bed, net: Net, number: int = 0) -> Namespace:
    return next(space for space in bed.inside if space.name == f"inside-{net.inside[number]}")


def translated(bed: Bed) -> int:
    return counters(bed)["other"].get("icmp_errors_translated", 0)


@contextlib.contextmanager
def without_translation(bed: Bed) -> Iterator[None]:
    """ICMP errors don't get to the controller, as if it did not translate them."""
    tables = [(node, protocol, node.ovs.ofctl("--no-stats", "dump-flows", node.bridge, f"table=0,{protocol}"))
              for node in bed.lbs.values() for protocol in ("icmp", "icmp6")]
    errors = [(node, [line for line in text.splitlines() if "priority=105," in line]) for node, _, text in tables]
    for node, flows in errors:
        assert len(flows) in (6, 8), "two ports, three types or four"
        for flow in flows:
            node.ovs.ofctl(
                "--strict",
                "del-flows",
                node.bridge,
                "priority" + flow.partition("priority")[2].partition(" actions")[0],
            )
        node.ovs.appctl("revalidator/purge")
    try:
        yield
    finally:
        for node, flows in errors:
            node.ovs.ofctl("add-flows", node.bridge, "-", input="\n".join(flows))


# Port unreachable.


@all_kinds
def test_a_client_is_told_that_the_servers_port_is_closed(live: Bed, net: Net, external: str) -> None:
    """The server's own error reaches the client's socket: as refused, and from the external IP."""
    address = getattr(net, external)
    for space in (live.clients[0], live.remote):
        with plain_socket(space, "udp", net.version) as client:
            client.connect((address, DNS))
            client.send(b"anybody?")
            assert icmp_error(client) == IcmpError(PORT_UNREACHABLE, address)
            client.settimeout(limit(3))
            with pytest.raises(ConnectionRefusedError):
                client.send(b"again")
                client.recv(100)


def test_twin_without_translation_the_client_waits_in_vain(live: Bed, net: Net) -> None:
    with without_translation(live), plain_socket(live.clients[0], "udp", net.version) as client:
        client.connect((net.plain, DNS))
        client.send(b"anybody?")
        assert icmp_error(client, 1.0) is None


@both_kinds
def test_a_server_is_told_that_its_client_has_gone(live: Bed, net: Net, external: str) -> None:
    address = getattr(net, external)
    server = plain_socket(server_space(live, net.server(address)), "udp", net.version)
    with server, plain_socket(live.remote, "udp", net.version) as client:
        server.bind((net.server(address), SERVER_DNS))
        server.settimeout(limit(3))
        client.connect((address, DNS))
        client.send(b"hello")
        _, peer = server.recvfrom(100)
        client.close()
        server.sendto(b"too late", peer)
        assert icmp_error(server) == IcmpError(
            PORT_UNREACHABLE, net.client if external == "plain" else net.internal_ip(address)
        )


def test_an_inside_host_is_told_that_a_port_outside_is_closed(live: Bed, net: Net) -> None:
    with plain_socket(inside_host(live, net), "udp", net.version) as client:
        client.connect((net.client, CLOSED))
        client.send(b"anybody?")
        assert icmp_error(client) == IcmpError(PORT_UNREACHABLE, net.client)


# Traceroute.


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@all_kinds
def test_a_traceroute_from_outside_shows_the_lb_and_hides_the_inside(
    live: Bed, net: Net, external: str, kind: str
) -> None:
    address = getattr(net, external)
    routers_inside = [address] if "routed" in external else []
    hops = trace(live.remote, kind, address, 80 if kind == "tcp" else DNS)
    assert hops == [net.clients_router, address, *routers_inside, REACHED]


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_traceroute_from_inside_shows_the_gateway_and_the_routers_outside(live: Bed, net: Net, kind: str) -> None:
    assert trace(inside_host(live, net), kind, net.client, CLOSED) == [net.gateway_inside, net.lbs_router, REACHED]


# The TTL of packets that have an entry.


class End(NamedTuple):
    """One end of a connection, its host, and whom it shall see errors come from: by TTL, from 1 on."""

    socket: socket.socket
    space: Namespace
    hops: tuple[str, str]


@pytest.fixture(params=["plain", "full"])
def ends(live: Bed, net: Net, request: pytest.FixtureRequest) -> Iterator[tuple[End, End]]:
    """A connection of the remote client and a server."""
    external = getattr(net, request.param)
    hops = (f"{net.internal}1", net.lbs_router) if request.param == "plain" else 2 * (net.internal_ip(external),)
    space = server_space(live, net.server(external))
    with own_server(live, net.server(external), 8080) as listener:
        client, server = connect(live.remote, external), listener.accept()[0]
        with client, server:
            yield End(client, live.remote, (net.clients_router, external)), End(server, space, hops)
    live.start_servers()


def test_the_end_of_a_ttl_is_told_to_both_ends(net: Net, ends: tuple[End, End]) -> None:
    """With the packet as its sender knows it. The connection goes on when its packets live long enough again."""
    for sender, receiver in (ends, ends[::-1]):
        local, peer = sender.socket.getsockname()[:2], sender.socket.getpeername()[:2]
        with RawPort(sender.space, "eth0") as wire:
            for ttl, hop in enumerate(sender.hops, 1):
                wire.drain()
                sender.socket.setsockopt(IPPROTO[net.version], TTL[net.version], ttl)
                sender.socket.sendall(b"x")
                kind = 11 if net.version == 4 else 3
                error = wire.receive(lambda frame: frame.icmp_type == kind)  # noqa: B023
                assert error is not None and (error.icmp_code, str(error.src)) == (0, hop)
                assert error.checksums_right and str(error.dst) == local[0] and error.eth_dst == wire.mac
                quoted = frames.read(bytes(12) + ETHERTYPES[net.version] + error.payload)
                assert ((str(quoted.src), quoted.src_port), (str(quoted.dst), quoted.dst_port)) == (local, peer)
                assert quoted.checksums_right and quoted.ttl == 1
        sender.socket.setsockopt(IPPROTO[net.version], TTL[net.version], 64)
        receiver.socket.settimeout(limit(8))
        assert len(receiver.socket.recv(1) + receiver.socket.recv(1)) == 2


def test_a_syn_whose_ttl_ends_makes_no_entry(live: Bed, net: Net) -> None:
    before = counters(live)["other"].get("connections_opened", 0)
    assert probe(live.clients[0], "tcp", net.plain, 80, 1) == IcmpError(TIME_EXCEEDED, net.plain)
    assert counters(live)["other"].get("connections_opened", 0) == before


# Path MTU.


@contextlib.contextmanager
def bottleneck(space: Namespace, device: str, *senders: Namespace) -> Iterator[None]:
    """Packets of more than 1300 bytes don't go that way. The senders know of no narrower path, before and
    afterwards."""
    space.ip("link", "set", device, "mtu", 1300)
    try:
        yield
    finally:
        space.ip("link", "set", device, "mtu", 1500)
        for sender in senders:
            sender.ip("route", "flush", "cache")
            sender.ip("-6", "route", "flush", "cache")


def download(space: Namespace, address: str, timeout: float) -> int:
    """Bytes that came of so MUCH."""
    got = 0
    with connect(space, address, timeout=timeout) as connection, contextlib.suppress(TimeoutError):
        connection.sendall(b"GET /bytes/%d HTTP/1.1\r\nConnection: close\r\n\r\n" % MUCH)
        while part := connection.recv(65536):
            got += len(part)
    return got


@both_kinds
def test_a_large_download_passes_a_bottleneck_outside(live: Bed, net: Net, external: str) -> None:
    address = getattr(net, external)
    server, before = server_space(live, net.server(address)), translated(live)
    with bottleneck(live.router, "eth1", server):
        assert download(live.remote, address, limit(3.0)) > MUCH
        assert "mtu 1300" in server.ip("route", "get", net.client if external == "plain" else net.internal_ip(address))
    assert translated(live) > before


def test_twin_without_translation_the_download_hangs(live: Bed, net: Net) -> None:
    with without_translation(live), bottleneck(live.router, "eth1", server_space(live, net.server(net.plain))):
        assert download(live.remote, net.plain, 1.5) < 1000
    assert download(live.remote, net.plain, limit(3.0)) > MUCH


@pytest.mark.parametrize("external", ["routed", "full_routed"])
def test_a_large_upload_passes_a_bottleneck_inside(live: Bed, net: Net, external: str) -> None:
    address, inner = getattr(net, external), live.inner_routers[ip_address(net.inner_router)]
    with bottleneck(inner, "far", live.remote, live.clients[0]):
        for space in (live.remote, live.clients[0]):
            assert request(space, address, method="POST", body=b"x" * MUCH, timeout=limit(3.0))["received"] == MUCH
            assert "mtu 1300" in space.ip("route", "get", address)


def test_twin_without_translation_the_upload_hangs(live: Bed, net: Net) -> None:
    inner = live.inner_routers[ip_address(net.inner_router)]
    with without_translation(live), bottleneck(inner, "far"), pytest.raises(TimeoutError):
        request(live.clients[0], net.routed, method="POST", body=b"x" * MUCH, timeout=1.5)


# Everybody behind the LB is a client, too: a server behind an inner router that has a small link.

@pytest.mark.parametrize("external", ["plain", "full"])
def test_a_client_inside_behind_a_bottleneck_downloads(live: Bed, net: Net, external: str) -> None:
    """The called server is told, about the gateway or internal IP that it knows as its client."""
    address, inner = getattr(net, external), live.inner_routers[ip_address(net.inner_router)]
    called, caller = server_space(live, net.server(address)), server_space(live, net.server(net.routed))
    before = translated(live)
    with bottleneck(inner, "far", called):
        assert download(caller, address, limit(3.0)) > MUCH
        known_as = f"{net.internal}1" if external == "plain" else net.internal_ip(address)
        assert "mtu 1300" in called.ip("route", "get", known_as)
    assert translated(live) > before


@pytest.mark.parametrize("external", ["routed", "full_routed"])
def test_a_client_inside_uploads_to_a_server_behind_a_bottleneck(live: Bed, net: Net, external: str) -> None:
    """The caller is told, about the external IP that it has called."""
    address, inner = getattr(net, external), live.inner_routers[ip_address(net.inner_router)]
    caller = server_space(live, net.server(net.plain))
    with bottleneck(inner, "far", caller):
        assert request(caller, address, method="POST", body=b"x" * MUCH, timeout=limit(3.0))["received"] == MUCH
        assert "mtu 1300" in caller.ip("route", "get", address)


def test_twin_without_translation_both_hang(live: Bed, net: Net) -> None:
    inner = live.inner_routers[ip_address(net.inner_router)]
    near, behind = server_space(live, net.server(net.plain)), server_space(live, net.server(net.routed))
    with without_translation(live), bottleneck(inner, "far", near):
        assert download(behind, net.plain, 1.5) < 1000
        with pytest.raises(TimeoutError):
            request(near, net.routed, method="POST", body=b"x" * MUCH, timeout=1.5)


def test_an_inside_hosts_upload_passes_a_bottleneck_outside(live: Bed, net: Net) -> None:
    inside, family = inside_host(live, net), socket.AF_INET if net.version == 4 else socket.AF_INET6
    with live.remote.call(lambda: socket.create_server((net.client, 0), family=family)) as listener, \
            bottleneck(live.router, "eth1", inside):
        listener.settimeout(limit(5))
        with connect(inside, net.client, listener.getsockname()[1]) as sender, listener.accept()[0] as receiver:
            receiver.settimeout(limit(3))
            sender.sendall(b"x" * 100_000)
            sender.shutdown(socket.SHUT_WR)
            got = 0
            while part := receiver.recv(65536):
                got += len(part)
        assert got == 100_000
        assert "mtu 1300" in inside.ip("route", "get", net.client)


# What is forged or broken.


def error_frame(bed: Bed, net: Net, port: RawPort, quoted: bytes, external: str) -> bytes:
    """An ICMP error (too big) from a client's segment to lb-a, to that external IP."""
    eth = port.mac, external_mac(bed, "lb-a")
    if net.version == 6:
        return frames.icmpv6(eth, net.near_client, external, 2, struct.pack("!I", 1300) + quoted)
    body = bytearray(struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quoted)
    body[2:4] = frames.checksum(bytes(body)).to_bytes(2)
    return frames.ipv4(eth, net.near_client, external, frames.ICMP, bytes(body))


def test_errors_that_quote_no_connection_are_dropped_and_counted(live: Bed, net: Net) -> None:
    def segment(client: tuple[str, int], external: tuple[str, int]) -> bytes:
        return frames.tcp(("02:00:00:00:00:01", "02:00:00:00:00:02"), external, client, frames.ACK)[14:]

    server = net.server(net.plain)
    with connect(live.clients[0], net.plain) as connection, RawPort(live.clients[0], "eth0") as port, \
            RawPort(server_space(live, server), "eth0") as wire:
        client = connection.getsockname()[:2]
        right = segment(client, (net.plain, 80))[:40 if net.version == 4 else 60]
        other_protocol = right[:9] + b"\x84" + right[10:] if net.version == 4 else right[:6] + b"\x84" + right[7:]
        wrong = [
            segment((client[0], client[1] ^ 1), (net.plain, 80)),
            segment(client, (net.full, 80)),
            segment((net.lbs_router, client[1]), (net.plain, 80)),
            right[:24],
            right[:10],
            b"",
            b"\xff" * 60,
            other_protocol,
        ]
        before = dropped(live, "icmp_quotes_no_connection")
        port.send(
            *[error_frame(live, net, port, quoted, net.plain) for quoted in wrong],
            error_frame(live, net, port, right, net.full),
        )
        live.wait_until(
            lambda: dropped(live, "icmp_quotes_no_connection") == before + len(wrong) + 1, 3, "all are counted"
        )
        wire.drain()
        port.send(error_frame(live, net, port, right, net.plain))
        seen = wire.receive(lambda frame: frame.icmp_type in (2, 3))
        assert seen is not None and seen.icmp_code == (4 if net.version == 4 else 0), "only the right one passes"
        assert seen.checksums_right and (str(seen.src), str(seen.dst)) == (net.near_client, server)
        inner = frames.read(bytes(12) + ETHERTYPES[net.version] + seen.payload)
        assert inner.checksums_right and (str(inner.src), inner.src_port, str(inner.dst), inner.dst_port) == (
            server,
            8080,
            *client,
        )
    assert live.controller.running
