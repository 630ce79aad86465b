"""Packets larger than the next link takes (docs/field.md): through a tunnel, and from a network with large frames to
one without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lbctl.site.model import Server, Service, Site
from tests.bed import frames, tunnels
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import behind_tunnels, simple_site, together
from tests.bed.traffic import RawPort, connect, request
from tests.integration.hands import counters, external_mac, internal_mac, server_space
from tests.integration.test_field_packets import Plug

JUMBO = 9000
SETTINGS = {"grace": 0.5, "linger": 1, "arp_interval": 2.0}
PLAIN, TUNNELED, PLAIN_6 = "198.51.100.1", "198.51.100.2", "2001:db8:1::3"
SERVER, SERVER_6 = "10.0.0.11", "2001:db8:2::31"
MEGABYTE = 1_000_000


def site() -> Site:
    """The internal network takes 9000 bytes, the external one 1500; one external IP's server is behind a tunnel of
    1450."""
    ipv4, ipv6 = (simple_site(external_ips=3, servers=1, version=version, settings=SETTINGS) for version in (4, 6))
    plain, tunneled, _ = ipv4.external_ips
    behind = behind_tunnels(replace(ipv4, external_ips=(tunneled,)), "vxlan")

    def with_udp(ip):
        [tcp] = ip.services
        udp = Service("udp", 80, servers=tuple(Server(server.address, 8080) for server in tcp.servers))
        return replace(ip, load_balancer="lb-a", services=(tcp, udp))

    both = together(behind, replace(ipv6, external_ips=ipv6.external_ips[2:]))
    ips = (with_udp(plain), replace(both.external_ips[0], load_balancer="lb-a"), with_udp(both.external_ips[1]))
    return replace(both, external_ips=ips, settings=replace(ipv4.settings, internal_mtu=JUMBO))


BED = {"site": site()}


def prepare(bed: Bed) -> None:
    """The internal network's devices take large frames; UDP echo at its servers."""
    for address in (SERVER, SERVER_6):
        space = server_space(bed, address)
        bed.serve(space, "udp_server.py", address, 8080)
        jumbo(space, "eth0")
    for node in bed.lbs.values():
        jumbo(node.space, node.lb.internal_port)
    for plug in bed.plugs.values():
        if plug.segment == "internal":
            jumbo(bed.switch, plug.port)


def jumbo(space: Namespace, device: str) -> None:
    space.ip("link", "set", device, "mtu", JUMBO)


def unequal_mtus_unknown(bed: Bed) -> None:
    """The naive twin: nothing is measured."""
    bed.controller.configure(replace(bed.site, settings=replace(bed.site.settings, external_mtu=JUMBO)))
    bed.start_controller()


# From large frames to small ones.

@contextmanager
def with_mtu(space: Namespace, device: str, mtu: int, before: int) -> Iterator[None]:
    """A host that believes more of its link than it takes: so its MSS says."""
    space.ip("link", "set", device, "mtu", mtu)
    try:
        yield
    finally:
        space.ip("link", "set", device, "mtu", before)


def download(bed: Bed, address: str) -> int:
    """Bytes that came of an answer of a megabyte."""
    with with_mtu(bed.clients[0], "eth0", JUMBO, 1500), connect(bed.clients[0], address) as talk:
        talk.settimeout(limit(5.0))
        talk.sendall(b"GET /bytes/%d HTTP/1.1\r\nConnection: close\r\n\r\n" % MEGABYTE)
        size = 0
        try:
            while part := talk.recv(65536):
                size += len(part)
        except TimeoutError:
            pass
        return size


@pytest.mark.parametrize("address", [PLAIN, PLAIN_6])
def test_a_download_by_large_frames_goes_through(live: Bed, address: str) -> None:
    """The server is told how large a packet may be."""
    assert download(live, address) > MEGABYTE
    assert counters(live)["other"]["errors_sent"] > 0


def test_a_download_hangs_where_unequal_mtus_are_not_known(quiet_bed: Bed) -> None:
    """The naive twin."""
    unequal_mtus_unknown(quiet_bed)
    server_space(quiet_bed, SERVER).ip("route", "flush", "cache")
    assert download(quiet_bed, PLAIN) < MEGABYTE


@pytest.mark.parametrize("address", [PLAIN, PLAIN_6])
def test_a_large_answer_comes_once_its_sender_is_told(live: Bed, address: str) -> None:
    """Linux sends the first one with "don't fragment"."""
    with Plug(live.clients[0], address) as plug:
        assert plug.ask(10)
        plug.socket.settimeout(limit(1.0))
        assert any(plug.ask(4000) for _ in range(3))


def test_an_answer_that_may_be_cut_up_is_cut_up(live: Bed) -> None:
    with Plug(live.clients[0], PLAIN) as plug, RawPort(server_space(live, SERVER), "eth0") as wire:
        assert plug.ask(10)
        text = bytes(range(256)) * 30
        eth, client = (wire.mac, internal_mac(live, "lb-a")), plug.socket.getsockname()
        wire.send(frames.udp(eth, (SERVER, 8080), client, text))
        assert plug.socket.recv(65536) == text
    assert counters(live)["other"]["packets_cut"] > 0


# Through a tunnel.

@contextmanager
def without_path_mtu_discovery(space: Namespace) -> Iterator[None]:
    """All that it sends may be cut up."""
    space.sysctl(ipv4__ip_no_pmtu_disc=1)
    try:
        yield
    finally:
        space.sysctl(ipv4__ip_no_pmtu_disc=0)


def uploaded(bed: Bed, timeout: float) -> int:
    """Bytes of a megabyte that came, from a client that sends without "don't fragment" to a server whose tunnel takes
    less than it believes."""
    server = server_space(bed, "10.9.0.21")
    with (without_path_mtu_discovery(bed.clients[0]), with_mtu(server, "eth0", 1600, 1500),
          with_mtu(server, tunnels.FAR_DEVICE, 1500, 1450)):
        try:
            answer = request(bed.clients[0], TUNNELED, method="POST", body=bytes(MEGABYTE), timeout=timeout)
        except TimeoutError:
            return 0
        return answer["received"]


def test_an_upload_that_may_be_cut_up_goes_through_a_tunnel(live: Bed) -> None:
    before = counters(live)["other"].get("packets_cut", 0)
    assert uploaded(live, limit(60.0)) == MEGABYTE
    assert counters(live)["other"]["packets_cut"] > before


def test_an_upload_hangs_where_what_is_too_large_is_dropped(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_too_big.py", *APPS)
    quiet_bed.start_controller()
    assert uploaded(quiet_bed, limit(3.0)) == 0


def test_fragments_that_are_too_large_for_a_tunnel_are_cut_up(live: Bed) -> None:
    """A client's packets of 1500 bytes, which are fragments themselves."""
    with RawPort(live.clients[0], "eth0") as port:
        client, server = ("198.51.100.222", 4000), (TUNNELED, 80)
        whole = frames.tcp((port.mac, external_mac(live, "lb-a")), client, server, frames.SYN)
        port.send(whole)
        answer = port.receive(lambda frame: str(frame.dst) == client[0] and frame.flags == frames.SYN | frames.ACK)
        assert answer is not None
        line = b"x" * 1599 + b"\n"
        data = frames.tcp((port.mac, external_mac(live, "lb-a")), client, server, frames.ACK | frames.PSH, seq=1,
                          ack=answer.seq + 1, payload=line)
        port.send(*frames.fragments(data, 1480))
        answer = port.receive(lambda frame: str(frame.dst) == client[0] and bool(frame.payload))
        assert answer is not None and answer.payload.partition(b" ")[2].startswith(b"x" * 500)


# What lbctl doctor finds.

def doctor(bed: Bed) -> list[dict]:
    """What it says about the sizes of packets at lb-a, and is not well."""
    done = bed.controller.cli(
        "doctor", "--ovs-rundir", bed.lbs["lb-a"].ovs.rundir, "--site", bed.controller.site_file, "--json"
    )
    words = "MTU of", "puts packets together"
    found = json.loads(done.stdout)["findings"]
    return [finding for finding in found if any(word in finding["what"] for word in words)]


def test_doctor_finds_another_mtu_and_a_port_that_merges_packets(live: Bed) -> None:
    node = live.lbs["lb-a"]
    port = node.lb.internal_port
    assert doctor(live) == []
    node.space.run("ethtool", "-K", port, "gro", "on")
    (finding,) = doctor(live)
    assert finding["mend"] == f"ethtool -K {port} gro off"
    node.space.run(*finding["mend"].split())
    with with_mtu(node.space, port, 1500, JUMBO):
        (finding,) = live.wait_until(lambda: doctor(live), 10.0, "Open vSwitch has noticed")
        assert finding["mend"].endswith(f"ip link set {port} mtu {JUMBO}")
    live.wait_until(lambda: doctor(live) == [], 10.0, "it is as it was")
