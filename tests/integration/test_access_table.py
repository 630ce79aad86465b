"""How entries come and go, and what is answered without one: issue 2, point 4, with real packets on real switches."""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbctl.openflow.meters import meter_stray
from lbctl.values.owners import owner_of
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import ACK, FIN, PSH, RST, SYN
from tests.bed.sites import simple_site
from tests.bed.traffic import RawPort, connect
from tests.integration.hands import (
    HandClient,
    Talk,
    counters,
    entries_of,
    entry_flows_of,
    eventually,
    external_mac,
    hand_client,
    internal_mac,
    own_server,
    pair,
    retransmissions,
    server_space,
)

LINGER = 1
SITE = simple_site(
    external_ips=3,
    servers=1,
    settings={"linger": LINGER, "arp_interval": 1.0, "grace": 0.5, "error_rate": 100, "misdirected": "error"},
)
BED = {"site": SITE}
EXTERNAL, OTHER_LBS, QUIET = "198.51.100.1", "198.51.100.2", "198.51.100.3"
"""Of lb-a; of lb-b; of lb-a, whose server is in the hands of the test."""
QUIET_SERVER = "10.0.0.31"
SERVER = "10.0.0.11"
SOON = LINGER + 4.0
"""An entry whose connection has ended must have gone by then; OVS looks at its timeouts about once a second."""


def gone(bed: Bed, client: tuple[str, int]) -> bool:
    return not entries_of(bed, client) and not entry_flows_of(bed, client)


def state(bed: Bed, client: tuple[str, int]) -> str:
    found = entries_of(bed, client)
    return found[0]["state"] if found else "none"


# Beginning.


def test_a_syn_makes_an_entry_and_its_retransmission_no_second(live: Bed) -> None:
    with hand_client(live) as client:
        before = counters(live)["other"]
        client.send(SYN)
        first = client.receive(SYN | ACK)
        assert first is not None and first.ack == client.seq + 1
        client.send(SYN)
        second = client.receive()
        assert second is not None and second.seq == first.seq, "another connection, or another server"
        [entry] = entries_of(live, client.local)
        assert len(entry_flows_of(live, client.local)) == 2
        after = counters(live)["other"]
        assert after["connections_opened"] == before.get("connections_opened", 0) + 1
        assert after["syn_retransmissions"] >= before.get("syn_retransmissions", 0) + 1
        assert entry["state"] == "open"


def test_figure_5_through_api_and_cli(live: Bed) -> None:
    begun = time.time()
    with connect(live.remote, EXTERNAL) as connection:
        host, port = connection.getsockname()
        [entry] = entries_of(live, (host, port))
        listed = live.controller.cli("table", "lb-a")
        as_json = json.loads(live.controller.cli("table", "lb-a", "--json").stdout)
    wanted = {"protocol": "tcp", "client": host, "client_port": port, "external_ip": EXTERNAL, "external_port": 80,
              "server": SERVER, "server_port": 8080, "next_hop": live.router.mac("eth0"), "state": "open", "delta": 0,
              "internal_ip": None, "internal_port": None, "inner_hop": None, "slice": None, "client_ports": None,
              "old_server": None}
    assert {key: entry[key] for key in wanted} == wanted
    assert set(entry) - set(wanted) == {"created", "last_seen", "packets", "bytes"}
    for moment in (entry["created"], entry["last_seen"]):
        assert abs(time.mktime(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - begun) < 30
    swept = {key: entry[key] for key in ("last_seen", "packets", "bytes")}
    assert entry in [{**each, **swept} for each in as_json["entries"]]
    [line] = [line for line in listed.stdout.splitlines() if f"{host}:{port}" in line]
    assert f"{EXTERNAL}:80" in line and f"{SERVER}:8080" in line and "open" in line


def test_a_syn_with_fin_or_rst_makes_no_entry(live: Bed) -> None:
    """No host opens a connection so; scanners do."""
    for flags in (SYN | FIN, SYN | RST, SYN | FIN | RST):
        with hand_client(live) as client:
            client.send(flags)
            assert client.receive(SYN | ACK, 0.4) is None
            assert gone(live, client.local), frames.read(client.frame(flags))


# Ending.


def test_fin_both_ways_ends_it_after_the_linger(live: Bed) -> None:
    with hand_client(live) as client:
        client.open()
        assert client.say(b"hello") == b"10.0.0.11 hello\n"
        client.close()
        assert entries_of(live, client.local), "it must linger: the last ACK may be lost"
        eventually(live, lambda: gone(live, client.local), "the entry has ended", SOON)


def test_an_open_connection_outlives_the_linger_in_silence(live: Bed) -> None:
    """Twin of those that end: it is not silence that ends them."""
    with Talk(live.clients[0], EXTERNAL, pause=SOON) as talk:
        time.sleep(SOON - 1)
        assert len(entry_flows_of(live, talk.local)) == 2
        assert talk.goes_on(1, SOON)


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_close_goes_on_for_longer_than_the_linger(live: Bed, first: str) -> None:
    """One side has closed its direction; the other goes on sending, and all arrives. Then the entry ends."""
    with own_server(live, QUIET_SERVER, 8080) as listener:
        near, far = pair(live, listener, QUIET)
        with near, far:
            local = near.getsockname()
            closes, sends = (near, far) if first == "client" else (far, near)
            closes.shutdown(socket.SHUT_WR)
            for number in range(15):
                sends.sendall(b"%04d" % number)
                time.sleep(0.25)
            sends.shutdown(socket.SHUT_WR)
            assert read_all(closes) == b"".join(b"%04d" % number for number in range(15))
            assert read_all(sends) == b""
        eventually(live, lambda: gone(live, local), "the entry has ended", SOON)


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_close_survives_silence_and_ends_afterwards(live: Bed, first: str) -> None:
    """After one side's FIN nothing is sent for longer than the linger, so that this direction's flow runs out.

    The other side's late data and FIN must arrive, be acknowledged, and the entry must not stay for ever.
    """
    with own_server(live, QUIET_SERVER, 8080) as listener:
        near, far = pair(live, listener, QUIET)
        with near, far:
            local = near.getsockname()
            closes, sends = (near, far) if first == "client" else (far, near)
            closes.shutdown(socket.SHUT_WR)
            eventually(live, lambda: state(live, local) == "half-closed", "one direction has run out", SOON)
            sends.sendall(b"late")
            sends.shutdown(socket.SHUT_WR)
            assert read_all(closes) == b"late"
        eventually(live, lambda: gone(live, local), "the entry has ended", SOON + 2)


def read_all(end: socket.socket) -> bytes:
    data = b""
    while part := end.recv(65536):
        data += part
    return data


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_ends_it_after_the_linger(live: Bed, side: str) -> None:
    with own_server(live, QUIET_SERVER, 8080) as listener:
        near, far = pair(live, listener, QUIET)
        local = near.getsockname()
        breaks, sees = (near, far) if side == "client" else (far, near)
        breaks.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        breaks.close()
        with sees, pytest.raises(ConnectionResetError):
            sees.recv(1)
        eventually(live, lambda: state(live, local) == "reset", "the reset is seen", 1.0)
        eventually(live, lambda: gone(live, local), "the entry has ended", SOON)


def test_an_idle_entry_expires_and_a_busy_one_does_not(quiet_bed: Bed) -> None:
    quiet_bed.controller.write_site(replace(SITE, settings=replace(SITE.settings, idle_timeout=2.0)))
    quiet_bed.start_controller()
    with Talk(quiet_bed.clients[0], EXTERNAL) as busy, connect(quiet_bed.clients[0], EXTERNAL) as idle:
        begun, local = time.monotonic(), idle.getsockname()
        eventually(quiet_bed, lambda: gone(quiet_bed, local), "the idle entry has expired")
        assert time.monotonic() - begun > 1.5
        assert busy.goes_on() and len(entry_flows_of(quiet_bed, busy.local)) == 2
        idle.sendall(b"anyone there?\n")
        with pytest.raises(ConnectionResetError):
            idle.recv(1)


# Beginning again.


def test_a_syn_on_a_connection_that_was_reset_makes_a_new_entry(live: Bed) -> None:
    """Within the linger: what ends the old entry must not end the new one."""
    with hand_client(live) as client:
        client.open()
        client.send(RST | ACK)
        eventually(live, lambda: state(live, client.local) == "reset", "the reset is seen", 1.0)
        [before] = entries_of(live, client.local)
        client.seq += 100_000
        client.open()
        [after] = entries_of(live, client.local)
        assert after["state"] == "open" and after["created"] > before["created"]
        time.sleep(SOON)
        assert client.say(b"still there") == b"10.0.0.11 still there\n"
        assert state(live, client.local) == "open"


WAITS = [0.0, LINGER * 0.9, LINGER * 1.5]
"""Before a port is used again: at once, when its flows are about to run out, and when one may have."""


@pytest.mark.parametrize("wait", WAITS)
def test_a_port_used_again_after_fins(live: Bed, wait: float) -> None:
    """Neither the old connection's flows nor their end get in the way of the new one."""
    with hand_client(live) as client:
        use_again(client, wait)
        for number in range(20):
            assert client.say(b"%d" % number) == b"10.0.0.11 %d\n" % number
        [entry] = entries_of(live, client.local)
        assert entry["server"] == SERVER


def use_again(client: HandClient, wait: float) -> None:
    client.open()
    client.say(b"one")
    client.close()
    time.sleep(wait)
    client.seq += 100_000
    client.open()


@pytest.mark.parametrize("wait", WAITS)
def test_a_port_used_again_after_fins_may_be_silent(live: Bed, wait: float) -> None:
    """For longer than the linger, from its beginning; the datapath's cache may remember the FINs of the connection
    before."""
    with hand_client(live) as client:
        use_again(client, wait)
        time.sleep(SOON)
        assert client.say(b"two") == b"10.0.0.11 two\n"


def test_a_port_used_again_while_the_server_has_the_old_connection(live: Bed) -> None:
    """The client was told of a reset that the server has not heard of. The server answers the SYN for the old
    connection, the client resets that one (RFC 9293, 3.5.1), and sends its SYN again: what has been reset is not the
    new connection."""
    with hand_client(live) as client:
        client.open()
        client.seq += 100_000
        client.send(SYN)
        challenge = client.receive(ACK)
        assert challenge is not None and challenge.ack != client.seq + 1
        client.send(RST, seq=challenge.ack)
        eventually(live, lambda: state(live, client.local) == "reset", "the reset is seen", 1.0)
        client.open()
        assert state(live, client.local) == "open"
        time.sleep(SOON)
        assert client.say(b"still there") == b"10.0.0.11 still there\n"


def test_a_forged_syn_does_not_break_a_connection(live: Bed) -> None:
    """Anyone may send a SYN with a live connection's ports: the server answers it by a challenge ACK, no more."""
    with hand_client(live) as client:
        client.open()
        client.send(SYN, seq=client.seq + 2**30)
        assert client.say(b"still mine") == b"10.0.0.11 still mine\n"
        assert len(entries_of(live, client.local)) == 1


# Without an entry.


def test_a_stray_segment_from_a_client_is_reset_with_right_numbers(live: Bed) -> None:
    with hand_client(live) as client:
        client.send(ACK | PSH, b"hello?", seq=5000, ack=777)
        answer = client.receive()
        assert answer is not None and answer.flags == RST and answer.seq == 777
        assert answer.checksums_right and answer.eth_src == client.gateway and answer.eth_dst == client.mac
        client.send(FIN, b"abc", seq=5000)
        answer = client.receive()
        assert answer is not None and answer.flags == RST | ACK and (answer.seq, answer.ack) == (0, 5004)
        client.send(FIN, b"", seq=2**32 - 1)
        answer = client.receive()
        assert answer is not None and answer.ack == 0, "sequence numbers wrap"
        client.send(RST, seq=1)
        client.send(RST | ACK, seq=1)
        assert client.receive(timeout=0.5) is None, "a RST was answered"
        assert gone(live, client.local)


def test_a_stray_segment_from_a_server_is_reset_with_right_numbers(live: Bed) -> None:
    with RawPort(server_space(live, SERVER), "eth0") as port:
        eth = (port.mac, internal_mac(live, "lb-a"))
        stray = frames.tcp(eth, (SERVER, 8080), ("198.51.100.202", 4242), ACK | PSH, seq=9, ack=31337, payload=b"x")
        port.send(stray)
        answer = port.receive(lambda frame: str(frame.src) == "198.51.100.202")
        assert answer is not None and answer.flags == RST and answer.seq == 31337 and answer.checksums_right
        assert (answer.src_port, answer.dst_port, str(answer.dst)) == (4242, 8080, SERVER)
        assert answer.eth_dst == port.mac and answer.eth_src == eth[1]
        port.send(frames.tcp(eth, (SERVER, 5555), ("198.51.100.202", 80), SYN, seq=9))
        answer = port.receive(lambda frame: frame.dst_port == 5555)
        assert answer is not None and answer.flags == RST | ACK and answer.ack == 10, "servers open no connections"


def test_a_port_without_service_refuses(live: Bed) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(live.clients[0], EXTERNAL, 81)
    with pytest.raises(ConnectionRefusedError):
        connect(live.remote, EXTERNAL, 8080)
    with hand_client(live, external=(EXTERNAL, 81)) as client:
        client.send(SYN, seq=41)
        answer = client.receive()
        assert answer is not None and answer.flags == RST | ACK and (answer.seq, answer.ack) == (0, 42)
        assert gone(live, client.local)


def test_an_external_ip_of_another_lb_is_answered_by_host_unreachable(live: Bed) -> None:
    with (
        hand_client(live, "lb-a", external=(OTHER_LBS, 80)) as client,
        RawPort(server_space(live, "10.0.0.21"), "eth0") as port,
    ):
        client.send(SYN)
        error = client.port.receive(lambda frame: frame.icmp_type is not None)
        assert error is not None and (error.icmp_type, error.icmp_code) == (3, 1) and error.checksums_right
        assert (str(error.dst), str(error.src)) == (client.address, OTHER_LBS)
        quoted = frames.read(client.frame(SYN))
        assert quoted.raw[14:54] == error.payload[:40], "it must quote the packet, so that the sender finds its socket"
        assert port.receive(lambda frame: str(frame.src) == client.address, 0.3) is None, "it was forwarded"
        assert not entries_of(live, client.local) and not entries_of(live, client.local, "lb-b")


def test_a_client_with_a_wrong_neighbour_is_told_host_unreachable(live: Bed) -> None:
    """What a kernel makes of that error, if a client still believes that lb-a has the address."""
    client = live.clients[1]
    client.ip("neigh", "replace", OTHER_LBS, "lladdr", external_mac(live, "lb-a"), "dev", "eth0", "nud", "reachable")
    try:
        with pytest.raises(OSError, match="No route to host"):
            connect(client, OTHER_LBS)
    finally:
        client.ip("neigh", "flush", "all")  # nobody announces the address anew: here the test must
    with connect(client, OTHER_LBS):
        pass


def test_udp_without_a_service_is_answered_by_port_unreachable(live: Bed) -> None:
    with hand_client(live) as client:
        client.port.send(frames.udp((client.mac, client.gateway), client.local, (EXTERNAL, 80), b"hello"))
        error = client.port.receive(lambda frame: frame.icmp_type is not None)
        assert error is not None and (error.icmp_type, error.icmp_code) == (3, 3) and str(error.src) == EXTERNAL


# The limits.

RATE, SENT = 100, 2000


def meter(bed: Bed, lb: str, external: str) -> tuple[int, int]:
    """What that LB's meter of an external IP's strays has seen and has dropped."""
    number = meter_stray(owner_of(ip_address(external).packed))
    text = bed.lbs[lb].ovs.ofctl("meter-stats", lb, f"meter={number}")
    seen, limited = re.findall(r"packet(?:_in)?_count:(\d+)", text)
    return int(seen), int(limited)


@pytest.mark.parametrize("what", ["stray", "unassigned"])
def test_errors_are_limited_in_the_switch(live: Bed, what: str) -> None:
    external = (EXTERNAL, 80) if what == "stray" else (OTHER_LBS, 80)
    time.sleep(1.0)  # the bucket of the tests before fills again
    with hand_client(live, "lb-a", external=external) as client:
        before, ins = meter(live, "lb-a", external[0]), counters(live)["packet_ins"]
        begun = time.monotonic()
        for start in range(0, SENT, 100):
            client.port.send(*[client.frame(ACK, ack=1, seq=start + number) for number in range(100)])
            time.sleep(0.01)
        took, answers = time.monotonic() - begun, []

        def told() -> tuple[int, int]:
            """What the meter has seen and dropped, when no more answers come."""
            answers.extend(client.port.collect(
                lambda frame: str(frame.src) == external[0] and (frame.flags == RST or frame.icmp_type == 3), 0.5))
            return tuple(now - then for now, then in zip(meter(live, "lb-a", external[0]), before, strict=True))

        eventually(live, lambda: told()[0] > SENT / 4, "a busy machine loses some on the way, but not most")
        eventually(live, lambda: told() == told(), "all has been seen")
        seen, limited = told()
        reached = counters(live)["packet_ins"] - ins
    most = RATE / 2 + RATE * (took + 0.1)
    print(f"{seen} of {SENT} seen in {took:.2f} s")
    print(f"{len(answers)} answered (at most {most:.0f}), {limited} dropped by the meter")
    assert RATE / 4 < len(answers) <= most
    assert SENT / 4 < seen <= SENT
    assert limited + len(answers) == seen
    assert reached <= most, "the limit is not in the switch"


def test_strays_do_not_delay_those_who_have_an_entry(live: Bed) -> None:
    """A flood of strays leaves established connections, and new ones, alone."""
    with Talk(live.clients[1], EXTERNAL) as talk, hand_client(live) as client:
        delayed = 0
        for _ in range(60):
            client.port.send(*[client.frame(ACK, ack=1, seq=number) for number in range(50)])
            with connect(live.remote, EXTERNAL) as opened:
                delayed += retransmissions(opened) > 0
            time.sleep(0.01)
        assert delayed < 15 and talk.goes_on()


def test_a_client_of_its_own(live: Bed) -> None:
    """The hand-made client of these tests is answered as any other: its answers come through the MAC it sent from."""
    with RawPort(live.clients[0], "eth0") as port:
        client = HandClient(port, external_mac(live, "lb-a"), address="203.0.113.200", mac="02:00:00:00:77:01")
        client.open()
        assert client.say(b"x") == b"10.0.0.11 x\n"
        [entry] = entries_of(live, client.local)
        assert entry["next_hop"] == client.mac

