"""What nobody should send, and what breaks: issue 2, "Bad input". The controller goes on, and says what it saw."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time

import pytest

from tests.bed import frames
from tests.bed.bed import CONTROLLER_ADDRESS, BalancerNode, Bed
from tests.bed.frames import ACK, PSH, SYN
from tests.bed.traffic import RawPort, connect, request
from tests.integration.hands import (
    Talk,
    counters,
    dropped,
    entries_of,
    eventually,
    external_mac,
    hand_client,
    internal_mac,
    metric,
    server_space,
)

BED = {"external_ips": 2, "servers": 1, "settings": {"automatic_failover": False, "linger": 1, "arp_interval": 1.0}}
EXTERNAL, OTHER_LBS, SERVER = "198.51.100.1", "198.51.100.2", "10.0.0.11"


def still_serves(bed: Bed) -> None:
    assert bed.controller.running
    assert request(bed.clients[1], EXTERNAL)["server"] == SERVER
    assert "internal error" not in bed.controller.log_tail(5000)


# Fragments.


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["in order", "the first one last"])
def test_fragments_are_translated(live: Bed, side: str, order: tuple[int, ...]) -> None:
    """As they came, however small, when the first one has come: it alone has the ports."""
    with hand_client(live) as client, RawPort(server_space(live, SERVER), "eth0") as wire:
        client.open()
        eth = (wire.mac, internal_mac(live, "lb-a"))
        whole = {"client": client.frame(ACK | PSH, b"x" * 40),
                 "server": frames.tcp(eth, (SERVER, 8080), client.local, ACK, payload=b"x" * 40)}[side]
        sends, gets = (client.port, wire) if side == "client" else (wire, client.port)
        gets.drain()
        pieces = frames.fragments(whole, 24)
        assert len(pieces) == len(order)
        sends.send(*(pieces[number] for number in order))
        arrived = gets.collect(lambda frame: frame.fragment != 0, 0.5)
        assert {frame.fragment for frame in arrived} == {0x2000, 0x2003, 6}
        assert all(frame.checksums_right and frame.ttl == 63 for frame in arrived)
        ends = (client.address, SERVER) if side == "client" else (EXTERNAL, client.address)
        assert {(str(frame.src), str(frame.dst)) for frame in arrived} == {ends}
    still_serves(live)


def test_what_is_left_of_a_packet_waits_for_the_first_fragment_and_goes(live: Bed) -> None:
    """A client's fragments without a first one, and a first one that is too short for TCP's header."""
    malformed = dropped(live, "malformed")
    with hand_client(live) as client, RawPort(server_space(live, SERVER), "eth0") as wire:
        client.open()
        wire.drain()
        pieces = frames.fragments(client.frame(ACK | PSH, b"x" * 40), 16)
        client.port.send(*pieces)
        eventually(live, lambda: dropped(live, "malformed") == malformed + 1, "the first one is refused", 3.0)
        assert wire.receive(lambda frame: frame.fragment != 0, 0.4) is None
        rest = len(pieces) - 1
        eventually(live, lambda: dropped(live, "fragments_incomplete") >= rest, "the others are counted", 30.0)
    assert metric(live, 'lbctl_dropped_packets_total{dp_name="lb-a",reason="fragments_incomplete"}') >= rest
    still_serves(live)


# Packets.


def truncated_tcp(client, flags: int) -> bytes:
    """An IPv4 packet that ends 10 bytes into the TCP header."""
    segment = client.frame(flags)[34:44]
    return frames.ipv4((client.mac, client.gateway), client.address, EXTERNAL, frames.TCP, segment)


def with_data_offset(frame: bytes, words: int) -> bytes:
    return frame[:46] + bytes([words << 4]) + frame[47:]


MALFORMED = {
    "a truncated TCP header": lambda client: truncated_tcp(client, ACK),
    "a TCP header longer than the packet": lambda client: with_data_offset(client.frame(ACK), 15),
    "a TCP header shorter than it can be": lambda client: with_data_offset(client.frame(ACK), 2),
    "a SYN with a TCP header longer than the packet": lambda client: with_data_offset(client.frame(SYN), 15),
    "a source that is multicast": lambda client: frames.tcp(
        (client.mac, client.gateway), ("224.0.0.1", 5), (EXTERNAL, 80), SYN
    ),
    "a source that is broadcast": lambda client: frames.tcp(
        (client.mac, client.gateway), ("255.255.255.255", 5), (EXTERNAL, 80), SYN
    ),
    "a source that is loopback": lambda client: frames.tcp(
        (client.mac, client.gateway), ("127.0.0.1", 5), (EXTERNAL, 80), SYN
    ),
}


@pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
def test_malformed_packets_are_counted_and_dropped(live: Bed, make) -> None:
    with hand_client(live) as client, RawPort(server_space(live, SERVER), "eth0") as wire:
        before = dropped(live, "malformed")
        opened = counters(live)["other"].get("connections_opened", 0)
        wire.drain()
        client.port.send(make(client))
        assert wire.receive(lambda frame: frame.protocol == 6, 0.3) is None, "it was forwarded"
        assert client.receive(timeout=0.1) is None, "it was answered"
        eventually(live, lambda: dropped(live, "malformed") == before + 1, "it is counted", 2.0)
        assert counters(live)["other"].get("connections_opened", 0) == opened
    assert metric(live, 'lbctl_dropped_packets_total{dp_name="lb-a",reason="malformed"}') == before + 1


def test_packets_that_are_no_ip_packets_hurt_nobody(live: Bed) -> None:
    """Dropped in the switch, whatever it makes of them."""
    with hand_client(live) as client:
        good = client.frame(SYN)
        eth = (client.mac, client.gateway)
        longer = good[:16] + struct.pack("!H", 1400) + good[18:]
        options = good[:14] + b"\x4f" + good[15:]
        version = good[:14] + b"\x65" + good[15:]
        empty = frames.ethernet(eth, 0x0800, b"")
        vlan = frames.tagged(good, 5)
        ipv6 = frames.ethernet(eth, 0x86DD, b"\x60" + bytes(60))
        arp = frames.ethernet(eth, 0x0806, b"\x00\x01")
        client.port.send(longer, options, version, empty, vlan, ipv6, arp, good[:20])
        assert client.receive(SYN | ACK, 0.4) is None
        assert entries_of(live, client.local) == []
    still_serves(live)


def test_random_bytes_hurt_nobody(live: Bed) -> None:
    """From both sides, to the LB's own MAC so that they are looked at."""
    with hand_client(live) as client, RawPort(server_space(live, SERVER), "eth0") as wire:
        for port, mac in ((client.port, client.gateway), (wire, internal_mac(live, "lb-a"))):
            for number in range(200):
                ethertype = (0x0800, 0x0806)[number % 2]
                port.send(frames.ethernet((port.mac, mac), ethertype, os.urandom(46)))
                whole = bytearray(
                    frames.tcp((port.mac, mac), (SERVER if port is wire else client.address, 9), (EXTERNAL, 80), SYN)
                )
                for _ in range(3):
                    whole[int.from_bytes(os.urandom(1)) % (len(whole) - 14) + 14] = os.urandom(1)[0]
                port.send(bytes(whole))
    time.sleep(0.3)
    still_serves(live)


def test_arp_that_lies_about_a_servers_mac(live: Bed) -> None:
    """A multicast sender is refused; what comes from outside is not believed at all."""
    eventually(live, lambda: server_mac(live) == server_space(live, SERVER).mac("eth0"), "the server's MAC is known")
    before = dropped(live, "malformed")
    with RawPort(server_space(live, SERVER), "eth0") as wire, RawPort(live.clients[0], "eth0") as outside:
        bad = "03:00:00:00:00:01"
        wire.send(frames.arp((wire.mac, frames.BROADCAST), 1, (bad, SERVER), (bad, SERVER)))
        lie = "02:00:00:00:66:66"
        outside.send(frames.arp((lie, frames.BROADCAST), 1, (lie, SERVER), (lie, SERVER)))
        outside.send(
            frames.arp((lie, external_mac(live, "lb-a")), 2, (lie, SERVER), (external_mac(live, "lb-a"), SERVER))
        )
        eventually(live, lambda: dropped(live, "malformed") == before + 1, "it is counted", 2.0)
    assert server_mac(live) == server_space(live, SERVER).mac("eth0")
    still_serves(live)


def server_mac(bed: Bed) -> str:
    return bed.rest("GET", f"/v1/external-ips/{EXTERNAL}").json["services"][0]["servers"][0]["mac"]


# Switches.


def set_dpid(node: BalancerNode, dpid: int) -> None:
    node.ovs.vsctl("set", "bridge", node.bridge, f"other_config:datapath-id={dpid:016x}")


def state_of(bed: Bed, lb: str) -> str:
    return bed.rest("GET", f"/v1/load-balancers/{lb}").json["state"]


@pytest.mark.parametrize(
    "dpid, reason",
    [
        (0xCC, "no load balancer of the site file has the dpid 00000000000000cc"),
        (0xAA, "lb-a (dpid 00000000000000aa) is connected already"),
    ],
    ids=["unknown", "twice"],
)
def test_a_switch_that_is_not_known_or_is_there_twice_is_refused(fresh: Bed, dpid: int, reason: str) -> None:
    """It keeps the flows it has, gets none, and takes nothing from the one that is right."""
    stranger = fresh.lbs["lb-b"]
    with Talk(fresh.clients[0], EXTERNAL) as talk:
        rules = fresh.lbs["lb-a"].dump_flows()
        set_dpid(stranger, dpid)
        eventually(fresh, lambda: fresh.controller.logged(reason) > 0, "it is logged")
        flows = stranger.dump_flows()
        eventually(
            fresh,
            lambda: metric(fresh, 'lbctl_controller_events_total{event="switches_refused"}') >= 2,
            "it is counted",
        )
        assert (state_of(fresh, "lb-a"), state_of(fresh, "lb-b")) == ("ready", "disconnected")
        assert (fresh.lbs["lb-a"].dump_flows(), stranger.dump_flows()) == (rules, flows)
        assert talk.goes_on() and talk.lost == 0
        set_dpid(stranger, 0xBB)
        eventually(fresh, lambda: state_of(fresh, "lb-b") == "ready", "mended, it is served", 15.0)
        assert request(fresh.clients[0], OTHER_LBS)["server"] == "10.0.0.21"
        assert talk.goes_on() and talk.lost == 0


GARBAGE = {
    "nothing": b"",
    "zeros": bytes(64),
    "random bytes": bytes(range(256)),
    "a web browser": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length of 0": struct.pack("!BBHI", 5, 0, 0, 1),
    "hello, then a packet-in before the handshake": struct.pack("!BBHI", 5, 0, 8, 1)
    + struct.pack("!BBHI", 5, 10, 10, 2)
    + b"xx",
    "hello, then features of 9 bytes": struct.pack("!BBHI", 5, 0, 8, 1) + struct.pack("!BBHI", 5, 6, 9, 2) + b"x",
    "OpenFlow 1.0 only": struct.pack("!BBHI", 1, 0, 8, 1),
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_switch_hurts_nobody(live: Bed, said: bytes) -> None:
    with Talk(live.clients[0], EXTERNAL) as talk:
        with connect(live.lbs["lb-b"].space, CONTROLLER_ADDRESS, 6653) as stranger:
            stranger.sendall(said)
            time.sleep(0.3)
        assert talk.goes_on()
    assert live.controller.running and state_of(live, "lb-a") == "ready"
    assert connect_is_served(live)


KINDS = {
    "error": 1,
    "packet-in": 10,
    "flow-removed": 11,
    "port-status": 12,
    "statistics": 19,
    "barrier": 21,
    "bundle": 33,
}
OUR_XID = 0x4C000000
"""As in ryu_apps/shell/wire.py: the answer to a request of ours has such an xid."""


def shake_hands(bed: Bed, dpid: int) -> socket.socket:
    """A connection to the controller, as of a switch without ports that has just shaken hands."""
    stranger = connect(bed.lbs["lb-b"].space, CONTROLLER_ADDRESS, 6653)
    hello = struct.pack("!BBHI", 5, 0, 8, 1)
    features = struct.pack("!BBHIQIBBHII", 5, 6, 32, 2, dpid, 0, 254, 0, 0, 0, 0)
    ports = struct.pack("!BBHIHHI", 5, 19, 16, 3, 13, 0, 0)
    stranger.sendall(hello + features + ports)
    return stranger


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_switch_whose_messages_are_cut_short_hurts_nobody_else(live: Bed, kind: int) -> None:
    """It says that it is lb-b, and is believed; then it sends messages of every length, empty and random."""
    node = live.lbs["lb-b"]
    node.ovs.vsctl("del-controller", node.bridge)
    try:
        eventually(live, lambda: state_of(live, "lb-b") == "disconnected", "the real lb-b is gone")
        stranger = shake_hands(live, 0xBB)
        eventually(live, lambda: state_of(live, "lb-b") != "disconnected", "it is believed")
        for size in (*range(8, 65), 100, 1000):
            for body in (bytes(size - 8), b"\0\1\0\0" + bytes(size - 8), os.urandom(size)):
                message = struct.pack("!BBHI", 5, kind, size, OUR_XID + size % 40) + body[:size - 8]
                try:
                    stranger.sendall(message)
                except OSError:
                    stranger.close()
                    eventually(live, lambda: state_of(live, "lb-b") == "disconnected", "it was sent away")
                    stranger = shake_hands(live, 0xBB)
        time.sleep(0.3)
        stranger.close()
        assert live.controller.running, live.controller.log_tail()
        still_serves(live)
        eventually(live, lambda: state_of(live, "lb-b") == "disconnected", "it is gone")
    finally:
        node.ovs.set_controller(node.bridge, f"tcp:{CONTROLLER_ADDRESS}:6653")
    if live.controller.running:
        eventually(live, lambda: state_of(live, "lb-b") == "ready", "the real lb-b is back")


def connect_is_served(bed: Bed) -> bool:
    with connect(bed.clients[1], EXTERNAL):
        return True


# Ports.


def port_of(bed: Bed, side: str) -> dict:
    return bed.rest("GET", "/v1/load-balancers/lb-a").json["ports"][side]


def reason_of(bed: Bed) -> str:
    return bed.rest("GET", "/v1/load-balancers/lb-a").json["reason"] or ""


@pytest.mark.parametrize("side", ["external", "internal"])
def test_a_missing_port_is_told_and_mended_by_adding_it(quiet_bed: Bed, side: str) -> None:
    node = quiet_bed.lbs["lb-a"]
    name = {"external": node.lb.external_port, "internal": node.lb.internal_port}[side]
    node.ovs.vsctl("del-port", node.bridge, name)
    try:
        quiet_bed.start_controller(wait=False)
        eventually(quiet_bed, lambda: f"has no port {name}" in reason_of(quiet_bed), "it is told", 15.0)
        assert "ovs-vsctl add-port" in reason_of(quiet_bed)
        port = port_of(quiet_bed, side)
        assert (port["number"], port["mac"], port["up"]) == (None, None, False)
        assert metric(quiet_bed, f'lbctl_port_up{{dp_name="lb-a",port="{side}"}}') == 0.0
        with pytest.raises(OSError):
            connect(quiet_bed.clients[0], EXTERNAL, timeout=0.3)
    finally:
        node.ovs.vsctl("--may-exist", "add-port", node.bridge, name)
    eventually(quiet_bed, lambda: not reason_of(quiet_bed), "it is mended")
    quiet_bed.wait_ready()
    still_serves(quiet_bed)


_numbers = itertools.count(31)


@pytest.mark.parametrize("side", ["external", "internal"])
def test_a_port_taken_out_and_put_back_under_another_number(live: Bed, side: str) -> None:
    """Connections wait, and go on."""
    node = live.lbs["lb-a"]
    name = {"external": node.lb.external_port, "internal": node.lb.internal_port}[side]
    with Talk(live.clients[0], EXTERNAL, patience=6.0) as talk:
        node.ovs.vsctl("del-port", node.bridge, name)
        eventually(live, lambda: f"has no port {name}" in reason_of(live), "it is told")
        number = next(_numbers)
        node.ovs.vsctl("add-port", node.bridge, name, "--", "set", "interface", name, f"ofport_request={number}")
        eventually(live, lambda: port_of(live, side)["number"] == number and not reason_of(live), "it is back")
        assert talk.goes_on(20, 8.0), talk.error
    still_serves(live)


@pytest.mark.parametrize("side", ["external", "internal"])
def test_a_port_that_goes_down_and_comes_back(live: Bed, side: str) -> None:
    node = live.lbs["lb-a"]
    name = {"external": node.lb.external_port, "internal": node.lb.internal_port}[side]
    with Talk(live.clients[0], EXTERNAL, patience=6.0) as talk:
        node.space.set_link(name, False)
        try:
            eventually(live, lambda: reason_of(live) == f"port {name} is down", "it is told")
            assert not port_of(live, side)["up"]
            assert metric(live, f'lbctl_port_up{{dp_name="lb-a",port="{side}"}}') == 0.0
            move = live.rest("POST", f"/v1/external-ips/{OTHER_LBS}/move", {"to": "lb-a"})
            assert move.status == 409 and name in move.text, "nothing is moved to an LB with a port down"
        finally:
            node.space.set_link(name, True)
        eventually(live, lambda: not reason_of(live), "it is mended")
        assert talk.goes_on(20, 8.0), talk.error
    still_serves(live)


def test_twin_a_port_that_stays_down_breaks_them(live: Bed) -> None:
    node = live.lbs["lb-a"]
    with Talk(live.clients[0], EXTERNAL) as talk:
        node.space.set_link(node.lb.internal_port, False)
        try:
            assert talk.breaks(4.0)
        finally:
            node.space.set_link(node.lb.internal_port, True)
    live.wait_ready()


def test_other_ports_of_the_bridge_are_not_served(live: Bed) -> None:
    """Whoever is plugged into a third port reaches nobody."""
    node = live.lbs["lb-a"]
    node.space.ip("link", "add", "third", "type", "veth", "peer", "name", "inside")
    try:
        node.space.set_link("third", True)
        node.space.set_link("inside", True)
        node.ovs.vsctl("add-port", node.bridge, "inside")
        with RawPort(node.space, "third") as port:
            port.send(frames.arp_request(port.mac, "198.51.100.77", EXTERNAL))
            eth = (port.mac, external_mac(live, "lb-a"))
            port.send(frames.tcp(eth, ("198.51.100.77", 7), (EXTERNAL, 80), SYN))
            assert port.receive(lambda frame: True, 0.4) is None
        assert reason_of(live) == ""
    finally:
        node.ovs.vsctl("--if-exists", "del-port", node.bridge, "inside")
        node.space.ip("link", "del", "third")
    still_serves(live)

