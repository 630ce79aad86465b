"""Faults of the networks around the LBs that people reported of other load balancers (docs/field.md): routers that fail
over, hosts that get another MAC, packets from the wrong side."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.frames import ACK, SYN
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.bed.traffic import RawPort, connect
from tests.integration.hands import (
    HandClient,
    counters,
    dropped,
    entries_of,
    eventually,
    external_mac,
    hand_client,
    internal_mac,
    server_space,
)
from tests.integration.moving import Talks

BED = {"site": simple_site(servers=2, settings={"linger": 1, "arp_interval": 1.0, "grace": 0.5})}
SERVERS = "10.0.0.11", "10.0.0.12"
GATEWAY = "10.0.0.1"
EXTERNAL = "198.51.100.1"
FAR = "198.18.70.1"
"""A client behind two routers."""
SILENT = "198.18.73.1"
"""One of which there are only its packets."""
ROUTERS = {"r1": ("198.51.100.251", "198.18.71"), "r2": ("198.51.100.252", "198.18.72")}
"""Name: address on the external network, prefix of the network between it and the client."""
DOWNLOAD = 1 << 30
BY_TURNS = """
table ip by-turns {
    chain output {
        type route hook output priority mangle;
        ip daddr 198.51.100.0/24 meta mark set numgen inc mod 2
    }
}
"""
"""Of nftables: each second packet has mark 1."""


def prepare(bed: Bed) -> None:
    """The client and its routers."""
    client = bed.spaces.add("far")
    client.sysctl(ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0)
    client.ip("addr", "add", f"{FAR}/32", "dev", "lo")
    for name, (address, prefix) in ROUTERS.items():
        router = bed.hosts.add(name, "external", [f"{address}/24"])
        router.sysctl(ipv4__ip_forward=1, ipv4__conf__all__rp_filter=0, ipv4__conf__default__rp_filter=0,
                      ipv4__conf__all__send_redirects=0)
        bed.spaces.veth(client, name, router, "far")
        client.ip("addr", "add", f"{prefix}.1/24", "dev", name)
        router.ip("addr", "add", f"{prefix}.254/24", "dev", "far")
        router.ip("route", "add", f"{FAR}/32", "via", f"{prefix}.1")
        router.ip("route", "add", "blackhole", f"{SILENT}/32")
    send_by(bed, "r1")
    client.ip("route", "add", "default", "via", f"{ROUTERS['r2'][1]}.254", "src", FAR, "table", "102")
    client.ip("rule", "add", "fwmark", "1", "lookup", "102")


def send_by(bed: Bed, router: str) -> None:
    """What the client sends goes by that router."""
    bed.spaces["far"].ip("route", "replace", "default", "via", f"{ROUTERS[router][1]}.254", "src", FAR)


def hop_of(bed: Bed, local: tuple[str, int]) -> str:
    [entry] = entries_of(bed, local)
    return entry["next_hop"]


@contextlib.contextmanager
def by_r1(bed: Bed) -> Iterator[Namespace]:
    """The client, whose packets go by r1 at first."""
    try:
        yield bed.spaces["far"]
    finally:
        send_by(bed, "r1")


@contextlib.contextmanager
def unplugged(bed: Bed, router: str) -> Iterator[None]:
    """The router is gone."""
    plug = bed.plugs[router, "eth0"]
    bed.switch.ip("link", "set", plug.port, "nomaster")
    try:
        yield
    finally:
        bed.switch.ip("link", "set", plug.port, "master", plug.segment)


class Download:
    """A response that has no end, in a thread. A context manager."""

    def __init__(self, client: Namespace) -> None:
        self.socket = connect(client, EXTERNAL, bind=FAR)
        self.local = self.socket.getsockname()
        self.socket.sendall(f"GET /bytes/{DOWNLOAD} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.received = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        self.socket.settimeout(limit(60.0))
        with contextlib.suppress(OSError):
            while part := self.socket.recv(1 << 16):
                self.received += len(part)
                time.sleep(0.001)

    def goes_on(self, timeout: float) -> bool:
        """Does a megabyte come in that time?"""
        goal, deadline = self.received + (1 << 20), time.monotonic() + timeout
        while self.received < goal and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.received >= goal

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.socket.close()


# A router fails over, or there are two (F6).

def test_a_download_goes_on_when_another_router_takes_over(live: Bed) -> None:
    with by_r1(live) as client, Download(client) as download:
        assert download.goes_on(limit(5.0)) and hop_of(live, download.local) == live.spaces["r1"].mac("eth0")
        send_by(live, "r2")
        second = live.spaces["r2"].mac("eth0")
        eventually(live, lambda: hop_of(live, download.local) == second, "answers go to the other router", 1.0)
        with unplugged(live, "r1"):
            assert download.goes_on(limit(5.0))


def test_where_the_first_packet_decides_it_hangs(quiet_bed: Bed) -> None:
    """The naive twin."""
    quiet_bed.controller.apps = ("tests/integration/naive_hops.py", *APPS)
    quiet_bed.start_controller()
    with by_r1(quiet_bed) as client, Download(client) as download:
        assert download.goes_on(limit(5.0))
        send_by(quiet_bed, "r2")
        time.sleep(1.0)
        with unplugged(quiet_bed, "r1"):
            download.goes_on(1.0)  # what is still in the queues
            assert not download.goes_on(3.0)


def test_connections_that_were_silent_go_on_by_the_other_router(live: Bed) -> None:
    with by_r1(live) as client, Talks(client, EXTERNAL, 5, bind=FAR) as talks, unplugged(live, "r1"):
        send_by(live, "r2")
        assert talks.broken() == []


def test_what_is_silent_follows_those_that_speak(live: Bed) -> None:
    """It may wait for an answer, which its router would not get any more."""
    first = RawPort(live.spaces["r1"], "eth0")
    with by_r1(live) as client, first as port, Talks(client, EXTERNAL, 4, bind=FAR) as talks:
        silent = HandClient(port, external_mac(live, "lb-a"), address=SILENT).open()
        with unplugged(live, "r1"):
            send_by(live, "r2")
            assert talks.broken() == []
            second = live.spaces["r2"].mac("eth0")
            eventually(live, lambda: hop_of(live, silent.local) == second, "it follows", 15.0)


def test_packets_that_come_by_two_routers_in_turn(live: Bed) -> None:
    """Nothing is lost, and the controller is not asked for each of them."""
    with by_r1(live) as client:
        client.run("nft", BY_TURNS)
        try:
            before = counters(live)
            load = live.load(client, EXTERNAL, lines=4, requests=1, interval=0.01, at_least=50, bind=(FAR,))
            time.sleep(3.0)
            saw = load.stop()
            after = counters(live)
        finally:
            client.run("nft", "delete table ip by-turns")
        assert saw.broken == [] and saw.failures == ()
        sent = sum(connection.sent for connection in saw.long)
        assert sum(connection.retransmissions for connection in saw.long) < sent / 20, "some, if the machine is slow"
        followed = after["other"]["hops_followed"] - before["other"].get("hops_followed", 0)
        opened = after["other"]["connections_opened"] - before["other"].get("connections_opened", 0)
        assert 0 < followed < 2 * opened + 4 * limit(10.0), "each entry at most once a second"


def test_a_client_that_changes_its_mac_goes_on(live: Bed) -> None:
    client = live.clients[0]
    mac = client.mac("eth0")
    with Talks(client, EXTERNAL, 3) as talks:
        try:
            client.ip("link", "set", "eth0", "address", "02:00:00:00:77:01")
            assert talks.broken() == []
        finally:
            client.ip("link", "set", "eth0", "address", mac)
        assert talks.broken() == []


def test_after_a_forged_packet_the_next_one_brings_the_answers_back(live: Bed) -> None:
    with hand_client(live) as client, RawPort(live.clients[1], "eth0") as neighbour:
        client.open()
        forged = HandClient(neighbour, external_mac(live, "lb-a"), address=client.address, number=client.number)
        forged.send(ACK, seq=client.seq - 1)
        eventually(live, lambda: hop_of(live, client.local) == neighbour.mac, "it is diverted", 5.0)

        def comes_back() -> bool:
            client.send(ACK)
            return hop_of(live, client.local) == client.mac

        eventually(live, comes_back, "the next packet brings it back", 5.0)
        assert client.say(b"mine").endswith(b" mine\n")


# Packets from the wrong side (RFC 2827).

_forged_ports = itertools.count(30_000)


def forged(bed: Bed, source: str, side: str) -> tuple[str, int]:
    """A SYN with that source to the external IP, or to a client from inside, comes to lb-a by that side."""
    sender = source, next(_forged_ports)
    space, mac = ((bed.clients[0], external_mac(bed, "lb-a")) if side == "external"
                  else (server_space(bed, SERVERS[0]), internal_mac(bed, "lb-a")))
    to = (EXTERNAL, 80) if side == "external" else ("198.51.100.101", 80)
    with RawPort(space, "eth0") as port:
        port.send(frames.tcp((port.mac, mac), sender, to, SYN))
    return sender


WRONG = [(SERVERS[1], "external"), (GATEWAY, "external"), (EXTERNAL, "external"), (EXTERNAL, "internal"),
         (GATEWAY, "internal")]


@pytest.mark.parametrize("source, side", WRONG)
def test_a_packet_from_the_wrong_side_is_nobodys(live: Bed, source: str, side: str) -> None:
    before = dropped(live, "wrong_side")
    sender = forged(live, source, side)
    eventually(live, lambda: dropped(live, "wrong_side") > before, "it is counted", 15.0)
    assert not entries_of(live, sender)


def test_where_it_may_pass_it_makes_an_entry(quiet_bed: Bed) -> None:
    """The naive twin: another server answers the first one directly."""
    site = quiet_bed.site
    quiet_bed.controller.configure(replace(site, settings=replace(site.settings, wrong_side="pass")))
    quiet_bed.start_controller()
    with RawPort(server_space(quiet_bed, SERVERS[1]), "eth0") as port:
        sender = [forged(quiet_bed, SERVERS[1], "external") for _ in SERVERS]
        assert port.receive(lambda frame: frame.src_port == 8080 and (str(frame.dst), frame.dst_port) in sender
                            and str(frame.src) == SERVERS[0], limit(5.0)), "it is answered by the other one"
