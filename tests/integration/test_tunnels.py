"""Servers behind tunnels (seed modification 5): LB and server share no network, requests and answers go through the
tunnel.

The far end of vxlan is Linux's, that of geneve and gre another Open vSwitch (tests/bed/tunnels.py).
"""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import struct
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address

import pytest

from lbctl.site.model import ExternalIp, Site
from tests.bed import frames, tunnels
from tests.bed.bed import Bed
from tests.bed.patience import limit
from tests.bed.sites import behind_tunnels, simple_site, together
from tests.bed.traffic import RawPort, connect, request
from tests.integration.hands import internal_mac, server_space
from tests.integration.icmp_tools import plain_socket
from tests.integration.moving import (
    STRATEGIES,
    Talks,
    assert_unharmed,
    entry_flows,
    mixed_load,
    wait_reached,
    wait_state,
)
from tests.integration.slow_moves import harm_by_a_slow_lb

DESTINATION, FULL, GENEVE, GRE = (f"198.51.100.{number}" for number in (1, 2, 3, 4))
IPV6 = "2001:db8:1::5"
KEY = 7
IP_MTU = 14
"""linux/in.h"""
SETTINGS = {
    "automatic_failover": False,
    "grace": 0.5,
    "linger": 1,
    "arp_interval": 1.0,
    "error_rate": 1000,
    "settle": 0.5,
}


def site() -> Site:
    """vxlan with both kinds of NAT and two servers each; geneve, gre with full NAT, and IPv6 by vxlan, with one."""
    ipv6 = simple_site(external_ips=5, version=6)
    plain = together(simple_site(external_ips=4, settings=SETTINGS), replace(ipv6, external_ips=ipv6.external_ips[4:]))

    def kind(number: int, ip: ExternalIp) -> ExternalIp:
        if number > 2:
            ip = replace(ip, services=tuple(replace(service, servers=service.servers[:1]) for service in ip.services))
        full = {"nat": "full", "gateway": None, "internal_ips": (IPv4Address(f"10.0.0.10{number}"),)}
        return replace(ip, load_balancer="lb-a", **(full if number in (2, 4) else {}))

    return behind_tunnels(replace(plain, external_ips=tuple(kind(*item) for item in enumerate(plain.external_ips, 1))),
                          "vxlan", "vxlan", "geneve", "gre", "vxlan", key=KEY, internal_mtu=1450)


BED = {"site": site()}
ALL = (DESTINATION, FULL, GENEVE, GRE, IPV6)


def servers_of(address: str) -> set[str]:
    return {str(server) for ip in site().external_ips if str(ip.address) == address for server in ip.server_addresses()}


def test_no_network_is_shared(live: Bed) -> None:
    """Nothing but the tunnel leads from a server to an LB, and its addresses are in none of the LBs' networks."""
    server = server_space(live, "10.9.0.11")
    assert "10.0.0" not in server.ip("-o", "addr", "show") and "198.18.1." not in server.ip("-o", "addr", "show")
    routes = server.ip("route", "show").splitlines()
    assert [route for route in routes if f"dev {tunnels.FAR_DEVICE}" not in route] == [
        "198.18.1.0/24 via 198.18.2.254 dev eth0 ", "198.18.2.0/24 dev eth0 proto kernel scope link src 198.18.2.11 "]


@pytest.mark.parametrize("address", ALL)
def test_requests_and_answers_go_through_it(live: Bed, address: str) -> None:
    answers = [request(live.clients[0], address) for _ in range(4)]
    assert {answer["server"] for answer in answers} == servers_of(address)
    client = (
        f"10.0.0.10{address[-1]}"
        if address in (FULL, GRE)
        else "2001:db8:1::101"
        if address == IPV6
        else "198.51.100.101"
    )
    assert {answer["client"][0] for answer in answers} == {client}
    assert (
        len(request(live.remote, address, method="POST", body=b"x" * 100_000))
        and len(download(live, address)) == 300_000
    )


def download(bed: Bed, address: str, size: int = 300_000) -> bytes:
    """The body of an answer of that size."""
    with connect(bed.clients[0], address) as talk:
        talk.sendall(b"GET /bytes/%d HTTP/1.1\r\nConnection: close\r\n\r\n" % size)
        return everything(talk).partition(b"\r\n\r\n")[2]


def everything(talk: socket.socket) -> bytes:
    """What comes until the other end closes."""
    parts = []
    while part := talk.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_the_entry_knows_nothing_of_the_tunnel(live: Bed) -> None:
    """So it is the same on every LB."""
    with Talks(live.clients[0], DESTINATION):
        assert entry_flows(live, "lb-a") != []
        assert not [flow for flow in entry_flows(live, "lb-a") if "tun_" in flow or "output" in flow]


# Who may use the tunnel port.

class Forger:
    """Sends frames into lb-a's vxlan port from the namespace of server 10.9.0.12, from any address there and with any
    key."""

    def __init__(self, bed: Bed, address: str = "198.18.2.12") -> None:
        self.space, self.address, self.to = server_space(bed, "10.9.0.12"), address, str(tunnels.lb_address(0))
        self.mac = self.space.mac(tunnels.FAR_DEVICE)

    def __enter__(self) -> Forger:
        self._port = RawPort(self.space, "eth0")
        self._socket = self.space.call(lambda: socket.socket(type=socket.SOCK_DGRAM))
        self._socket.bind((self.address, 0))
        return self

    def __exit__(self, *_: object) -> None:
        self._port.close()
        self._socket.close()

    def send(self, frame: bytes, key: int = KEY) -> None:
        """RFC 7348, section 5."""
        self._socket.sendto(struct.pack("!II", 0x08000000, key << 8) + frame, (self.to, tunnels.VXLAN_PORT))

    def answered(self, key: int = KEY, sender: str = "10.9.0.12") -> bool:
        """Is an ARP request for the gateway answered, by any tunnel to this address?"""
        self.send(frames.arp_request(self.mac, sender, "10.0.0.1"), key)
        return self._port.receive(self._is_reply, 1.0) is not None

    def _is_reply(self, outer: frames.Frame) -> bool:
        return (str(outer.dst), outer.dst_port) == (self.address, tunnels.VXLAN_PORT) and frames.read(
            outer.payload[8:]
        ).answers_arp


def test_only_the_far_end_with_the_right_key_is_heard(live: Bed) -> None:
    with Forger(live) as right:
        assert right.answered()
        assert not right.answered(key=KEY + 1)
        right.space.ip("addr", "add", "198.18.2.99/24", "dev", "eth0")
        try:
            with Forger(live, "198.18.2.99") as stranger:
                assert not stranger.answered()
        finally:
            right.space.ip("addr", "del", "198.18.2.99/24", "dev", "eth0")


def test_a_server_is_not_believed_about_another(live: Bed) -> None:
    """Neither its MAC, nor packets with its address, by the wrong tunnel; nor from the internal network."""
    lb = internal_mac(live, "lb-a")
    before = live.lbs["lb-a"].dump_flows()
    with Forger(live) as other, Talks(live.clients[0], DESTINATION, 2) as talks:
        ours = live.lbs["lb-a"].dump_flows()
        for operation, to in ((2, lb), (1, frames.BROADCAST)):
            other.send(frames.arp((other.mac, to), operation, (other.mac, "10.9.0.11"), (lb, "10.9.0.11")))
        for port in talks.ports:
            other.send(frames.tcp((other.mac, lb), ("10.9.0.11", 8080), ("198.51.100.101", port), frames.RST, seq=1))
        assert other.answered() and talks.broken() == []
        assert live.lbs["lb-a"].dump_flows() == ours != before


def test_a_stray_segment_of_a_server_is_reset_through_its_tunnel(live: Bed) -> None:
    server, lb = server_space(live, "10.9.0.11"), internal_mac(live, "lb-a")
    with RawPort(server, tunnels.FAR_DEVICE) as port:
        port.send(frames.tcp((port.mac, lb), ("10.9.0.11", 8080), ("198.51.100.101", 9), frames.ACK, seq=5, ack=77))
        answer = port.receive(lambda frame: frame.dst_port == 8080 and bool(frame.flags & frames.RST))
    assert answer is not None and answer.seq == 77 and answer.checksums_right


def test_a_gateway_answers_echo_through_the_tunnel(live: Bed) -> None:
    assert "1 received" in server_space(live, "10.9.0.11").run("ping", "-c1", "-W3", "10.0.0.1")
    assert "1 received" in server_space(live, "10.9.0.41").run("ping", "-c1", "-W3", "10.0.0.104")


def sends_to(bed: Bed, mac: str) -> bool:
    """Does lb-a send to that MAC?"""
    return f"{mac}->eth_dst" in bed.lbs["lb-a"].dump_flows()


def test_a_server_gets_another_mac(live: Bed) -> None:
    server, before = server_space(live, "10.9.0.11"), server_space(live, "10.9.0.11").mac(tunnels.FAR_DEVICE)
    with Talks(live.clients[0], DESTINATION, 2) as talks:
        try:
            for mac in ("02:00:00:00:09:11", before):
                server.ip("link", "set", tunnels.FAR_DEVICE, "address", mac)
                sends_there = partial(sends_to, live, mac)
                live.wait_until(sends_there, 10, "the LB has found the MAC")
                assert talks.broken() == []
        finally:
            server.ip("link", "set", tunnels.FAR_DEVICE, "address", before)


# Sizes

def test_a_client_is_told_what_the_tunnel_carries(live: Bed) -> None:
    """A server whose tunnel device promises more than the tunnel carries: path-MTU discovery finds the way."""
    servers = [server_space(live, address) for address in sorted(servers_of(DESTINATION))]
    for server in servers:
        server.ip("link", "set", tunnels.FAR_DEVICE, "mtu", 1450)
    try:
        with plain_socket(live.clients[0], "tcp") as talk:
            talk.settimeout(limit(5))
            talk.connect((DESTINATION, 80))
            body = b"x" * 200_000
            talk.sendall(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert b'"received": 200000' in everything(talk)
            assert talk.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1400
    finally:
        for server in servers:
            server.ip("link", "set", tunnels.FAR_DEVICE, "mtu", 1400)
        live.clients[0].ip("route", "flush", "cache")


# Moves, restarts

@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("address", ALL)
def test_it_moves_under_load(live: Bed, address: str, strategy: str) -> None:
    wait_reached(live)
    loads = mixed_load(live, address)
    with Talks(live.clients[0], address, 4) as quiet:
        for target in ("lb-b", "lb-a"):
            record = live.move(address, target, strategy)
            assert record["state"] == "done" and record["packets_lost"] == 0, record
            assert quiet.broken() == []
    assert_unharmed(loads)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("address", [DESTINATION, FULL])
def test_nothing_breaks_when_the_new_lb_is_slow(quiet_bed: Bed, address: str, strategy: str) -> None:
    assert harm_by_a_slow_lb(quiet_bed, address, strategy) == 0


@pytest.mark.parametrize("naive_bed", ["route-first"], indirect=True)
@pytest.mark.parametrize("address", [DESTINATION, FULL])
def test_route_first_breaks_connections(naive_bed: Bed, address: str) -> None:
    assert harm_by_a_slow_lb(naive_bed, address, "precopy") > 0


def test_a_restarted_controller_changes_nothing(live: Bed) -> None:
    with contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talks(live.clients[0], address, 5)) for address in ALL]
        live.wait_until(lambda: len(live.entries("lb-a")) == 5 * len(ALL), 10, "the entries of other tests have ended")
        tables = live.lbs["lb-a"].dump_flows()
        live.restart_controller()
        assert live.lbs["lb-a"].dump_flows() == tables
        assert [talk.broken() for talk in talks] == [[]] * len(ALL)
        assert request(live.clients[0], FULL)["server"] in servers_of(FULL)


def test_a_restarted_switch_gets_everything_back(live: Bed) -> None:
    node = live.lbs["lb-a"]
    with Talks(live.clients[0], DESTINATION, 3) as one, Talks(live.clients[0], GRE, 3) as two:
        node.ovs.kill()
        wait_state(live, "lb-a", "disconnected")
        node.start_vswitchd()
        live.wait_ready()
        assert one.broken() == two.broken() == []


# What lbctl doctor finds

def doctor(bed: Bed) -> list[dict]:
    """What it says about tunnels at lb-a, and is not well."""
    done = bed.controller.cli(
        "doctor", "--ovs-rundir", bed.lbs["lb-a"].ovs.rundir, "--site", bed.controller.site_file, "--json"
    )
    found = [finding for finding in json.loads(done.stdout)["findings"] if "tunnel" in finding["what"]]
    assert len(found) == 4, "three ports, and the way below"
    return [finding for finding in found if finding["level"] != "ok"]


def test_doctor_finds_a_wrong_port_and_mends_it(live: Bed) -> None:
    node = live.lbs["lb-a"]
    assert doctor(live) == []
    node.ovs.vsctl("set", "interface", "lba-vxlan", "options:key=5")
    (finding,) = doctor(live)
    assert "lba-vxlan is no vxlan port that leaves remote_ip and key" in finding["what"]
    node.ovs.vsctl(*shlex.split(finding["mend"])[1:])
    assert doctor(live) == [] and request(live.clients[0], DESTINATION)


def test_doctor_finds_a_missing_address_below(live: Bed) -> None:
    """Packets would vanish without a word."""
    node = live.lbs["lb-a"]
    node.space.ip("addr", "flush", "dev", tunnels.BRIDGE)
    try:
        live.wait_until(lambda: "tunnels cannot be sent" in str(doctor(live)), 5, "the address is missed")
        with pytest.raises(OSError):
            request(live.clients[0], DESTINATION, timeout=2)
    finally:
        tunnels.address_bridge(node.space, node.number)
    live.wait_until(lambda: doctor(live) == [], 5, "the address is there again")
    assert request(live.clients[0], DESTINATION, timeout=limit(10))
