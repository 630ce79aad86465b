"""IPv6 (issue 3, point 4) on LBs that serve IPv4 too: neighbour discovery, both kinds of NAT, errors, moves,
restarts."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from lbctl.site.model import ExternalIp, Server, Service, Site
from tests.bed import frames
from tests.bed.bed import Bed
from tests.bed.frames import ACK, SYN, Frame
from tests.bed.namespaces import Namespace
from tests.bed.patience import limit
from tests.bed.sites import simple_site, together
from tests.bed.traffic import Load, RawPort, connect, request
from tests.integration.hands import (
    Listening,
    Talk,
    announced,
    counters,
    eventually,
    external_mac,
    hand_client,
    internal_mac,
    server_space,
)
from tests.integration.moving import (
    STRATEGIES,
    Talks,
    assert_unharmed,
    mixed_load,
    serves_alone,
    wait_ended,
    wait_reached,
    wait_state,
)
from tests.integration.slow_moves import harm_by_a_slow_lb

FIRST, SECOND, FULL, IPV4 = "2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "198.51.100.1"
SERVER, FULL_SERVER, ROUTED_SERVER, INNER_ROUTER = (
    "2001:db8:2::11",
    "2001:db8:2::31",
    "2001:db8:4::41",
    "2001:db8:2::99",
)
INTERNAL_IPS = ("2001:db8:2::131", "2001:db8:2::132")
CLIENT, NOBODY = "2001:db8:1::101", "2001:db8:1::777"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
SOLICITATION, ADVERTISEMENT = 135, 136
ROUTER, SOLICITED, OVERRIDE = 0x80000000, 0x40000000, 0x20000000
DNS, SERVER_DNS = 53, 5353


def site() -> Site:
    """IPv6: .1 (lb-a) and .2 (lb-b) with destination NAT, .3 (lb-a) with full NAT, one of its servers behind a router.
    IPv4: .1 (lb-a)."""
    settings = {
        "automatic_failover": False,
        "linger": 1,
        "arp_interval": 1.0,
        "grace": 0.5,
        "barrier_timeout": 3.0,
        "error_rate": 1000,
        "misdirected": "error",
    }
    ipv6 = simple_site(external_ips=2, version=6)
    addresses = tuple(replace(ip, services=(*ip.services, with_port(ip.services[0]))) for ip in ipv6.external_ips)
    behind = Server(IPv6Address(ROUTED_SERVER), 8080, next_hop=IPv6Address(INNER_ROUTER))
    web = Service("tcp", 80, servers=(Server(IPv6Address(FULL_SERVER), 8080), behind))
    full = ExternalIp(
        IPv6Address(FULL),
        "lb-a",
        None,
        "full",
        (web, with_port(web)),
        internal_ips=tuple(map(IPv6Address, INTERNAL_IPS)),
    )
    return together(simple_site(external_ips=1, settings=settings), replace(ipv6, external_ips=(*addresses, full)))


def with_port(service: Service) -> Service:
    """The same servers for UDP."""
    return Service("udp", DNS, servers=tuple(replace(server, port=SERVER_DNS) for server in service.servers))


BED = {"site": site()}


# Neighbour discovery


def solicited_node(target: str) -> tuple[str, str]:
    """The multicast address and MAC of those who may have `target`."""
    end = IPv6Address(target).packed[13:]
    return str(IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + end)), "33:33:ff:" + end.hex(":")


def solicitation(mac: str, sender: str, target: str, *, ttl: int = 255) -> bytes:
    """Who has `target`? Without a sender (`::`) it has no option, as RFC 4861 demands."""
    option = b"\1\1" + bytes.fromhex(mac.replace(":", "")) if sender != "::" else b""
    group, group_mac = solicited_node(target)
    return frames.icmpv6(
        (mac, group_mac), sender, group, SOLICITATION, bytes(4) + IPv6Address(target).packed + option, ttl=ttl
    )


def advertisement(mac: str, address: str, flags: int = OVERRIDE) -> bytes:
    body = struct.pack("!I", flags) + IPv6Address(address).packed + b"\2\1" + bytes.fromhex(mac.replace(":", ""))
    return frames.icmpv6((mac, ALL_NODES_MAC), address, ALL_NODES, ADVERTISEMENT, body, ttl=255)


def told(frame: Frame) -> tuple[str, str, int] | None:
    """What a neighbour advertisement says: (target, its MAC, flags)."""
    if frame.icmp_type != ADVERTISEMENT or frame.protocol != frames.ICMPV6:
        return None
    assert frame.checksums_right and frame.ttl == 255
    mac = frame.payload[18:24].hex(":") if frame.payload[16:18] == b"\2\1" else ""
    return str(IPv6Address(frame.payload[:16])), mac, int.from_bytes(frame.raw[58:62])


def answers(port: RawPort, sender: str, target: str, timeout: float = 0.25, **options) -> list[Frame]:
    """The advertisements that answer who has `target`; announcements, which are not asked for, hold a MAC and are no
    answers."""
    port.drain()
    port.send(solicitation(port.mac, sender, target, **options))
    return port.collect(lambda frame: (said := told(frame)) is not None and said[0] == target
                        and (said[1] == "" or bool(said[2] & SOLICITED)), timeout)


def check_neighbours(bed: Bed) -> None:
    """Each external IP and each internal address is answered for by its LB, and by that alone, with its port's MAC."""
    outside = {FIRST: "lb-a", SECOND: "lb-b", FULL: "lb-a"}
    inside = {
        "2001:db8:2::1": ("lb-a", ROUTER),
        "2001:db8:2::2": ("lb-b", ROUTER),
        **dict.fromkeys(INTERNAL_IPS, ("lb-a", 0)),
    }
    with RawPort(bed.clients[1], "eth0") as port:
        for address, lb in outside.items():
            [answer] = answers(port, "2001:db8:1::102", address)
            assert told(answer) == (address, external_mac(bed, lb), SOLICITED | OVERRIDE)
            assert (str(answer.src), str(answer.dst)) == (address, "2001:db8:1::102")
            assert (answer.eth_src, answer.eth_dst) == (external_mac(bed, lb), port.mac)
        assert answers(port, "2001:db8:1::102", NOBODY) == [], "an address that is no external IP"
        assert answers(port, "2001:db8:1::102", "2001:db8:2::1") == [], "a gateway, asked for outside"
        assert answers(port, "2001:db8:1::102", FIRST, ttl=254) == [], (
            "a question that a router has forwarded (RFC 4861 7.1.1)"
        )
    with RawPort(server_space(bed, SERVER), "eth0") as port:
        for address, (lb, router) in inside.items():
            [answer] = answers(port, SERVER, address)
            assert told(answer) == (address, internal_mac(bed, lb), SOLICITED | OVERRIDE | router)
        assert answers(port, SERVER, FIRST) == [], "an external IP, asked for inside"


def test_solicitations_are_answered_in_the_switch(live: Bed) -> None:
    before = counters(live)["packet_ins"], counters(live, "lb-b")["packet_ins"]
    check_neighbours(live)
    assert (counters(live)["packet_ins"], counters(live, "lb-b")["packet_ins"]) == before


@pytest.mark.parametrize("before", [b"", b"\x0e\1abcdef"], ids=["its MAC first", "a nonce first"])
def test_the_answers_first_option_holds_the_mac(live: Bed, before: bytes) -> None:
    """Whatever option of the question it was made of."""
    target = IPv6Address(FIRST).packed
    group, group_mac = solicited_node(FIRST)
    with RawPort(live.clients[1], "eth0") as port:
        option = b"\1\1" + bytes.fromhex(port.mac.replace(":", ""))
        body = bytes(4) + target + before + option
        port.send(frames.icmpv6((port.mac, group_mac), "2001:db8:1::102", group, SOLICITATION, body, ttl=255))
        answer = port.receive(lambda frame: (said := told(frame)) is not None and bool(said[2] & SOLICITED))
        assert told(answer) == (FIRST, external_mac(live, "lb-a"), SOLICITED | OVERRIDE)


def test_kernels_take_the_answers(live: Bed) -> None:
    """Multicast when nothing is known, unicast when a neighbour must be confirmed."""
    client = live.clients[0]
    client.ip("neigh", "flush", "all")
    request(client, FIRST)
    known = f"lladdr {external_mac(live, 'lb-a')} REACHABLE"
    assert known in client.ip("-6", "neigh", "show", FIRST)
    client.ip("-6", "neigh", "change", FIRST, "lladdr", external_mac(live, "lb-a"), "dev", "eth0", "nud", "probe")
    eventually(
        live, lambda: known in client.ip("-6", "neigh", "show", FIRST), "confirmed by a unicast solicitation", 4.0
    )


def test_a_host_that_takes_an_external_ip_is_told_that_it_is_taken(live: Bed) -> None:
    """Duplicate address detection asks without a sender: the answer goes to all nodes."""
    with RawPort(live.clients[1], "eth0") as port:
        [answer] = answers(port, "::", FIRST)
        assert told(answer) == (FIRST, "", OVERRIDE)
        assert (str(answer.dst), answer.eth_dst) == (ALL_NODES, ALL_NODES_MAC)
    host = live.clients[1]
    host.sysctl(ipv6__conf__eth0__accept_dad=1)
    try:
        host.ip("addr", "add", f"{FIRST}/64", "dev", "eth0")
        eventually(
            live,
            lambda: "dadfailed" in host.ip("-6", "addr", "show", "dev", "eth0"),
            "the kernel has found the duplicate",
            4.0,
        )
    finally:
        host.ip("addr", "del", f"{FIRST}/64", "dev", "eth0")
        host.sysctl(ipv6__conf__eth0__accept_dad=0)


def test_without_a_controller_neighbours_are_answered_and_connections_go_on(fresh: Bed) -> None:
    with Talk(fresh.clients[0], FIRST) as near, Talk(fresh.remote, FULL) as far:
        fresh.controller.kill()
        for name, node in fresh.lbs.items():
            eventually(fresh, lambda name=name, node=node: not node.ovs.is_connected(name), "the switch knows")
        fresh.clients[0].ip("neigh", "flush", "all")
        check_neighbours(fresh)
        assert near.goes_on(30) and far.goes_on(30)


# Servers whose MAC changes


def delivered_to(bed: Bed, lb: str = "lb-a") -> str:
    """The MAC that this LB sends the server's packets to."""
    [flow] = [
        line for line in bed.lbs[lb].dump_flows().splitlines() if "table=40" in line and f"ipv6_dst={SERVER} " in line
    ]
    return flow.partition("->eth_dst")[0].rpartition("set_field:")[2]


@contextlib.contextmanager
def another_mac(bed: Bed, mac: str) -> Iterator[None]:
    """The server gets another card: same address. Its kernel announces nothing (ndisc_notify is 0)."""
    space = server_space(bed, SERVER)
    old = space.mac("eth0")
    space.ip("link", "set", "eth0", "address", mac)
    try:
        yield
    finally:
        space.ip("link", "set", "eth0", "address", old)


def talk_to_server(bed: Bed, patience: float) -> Talk:
    while True:
        talk = Talk(bed.clients[0], FIRST, patience=patience)
        if next(entry for entry in bed.entries("lb-a") if entry["client_port"] == talk.local[1])["server"] == SERVER:
            return talk
        talk.close()


def test_a_servers_new_mac_is_learnt_from_its_advertisement(fresh: Bed) -> None:
    """By every LB, at once (not by the probe: it is far off here), and the connection goes on."""
    fresh.controller.reload(replace(BED["site"], settings=replace(BED["site"].settings, arp_interval=600.0)))
    time.sleep(1.2)  # the last probe of the old settings
    new = "02:00:00:00:88:61"
    with talk_to_server(fresh, 1.5) as talk, another_mac(fresh, new):
        with RawPort(server_space(fresh, SERVER), "eth0") as port:
            port.send(advertisement(new, SERVER))
        eventually(fresh, lambda: {delivered_to(fresh, lb) for lb in fresh.lbs} == {new}, "both LBs know", 1.5)
        assert talk.goes_on()


def test_a_servers_new_mac_is_found_by_the_probe(live: Bed) -> None:
    old = delivered_to(live)
    with talk_to_server(live, 5.0) as talk, another_mac(live, "02:00:00:00:88:62"):
        eventually(live, lambda: delivered_to(live) == "02:00:00:00:88:62", "the new MAC is known", 3.0)
        assert talk.goes_on(20), talk.error
    eventually(live, lambda: delivered_to(live) == old, "the old MAC is known again", 3.0)


def test_what_a_client_says_of_a_server_is_not_believed(live: Bed) -> None:
    old = delivered_to(live)
    with RawPort(live.clients[0], "eth0") as port:
        port.send(advertisement("02:00:00:00:99:99", SERVER))
    request(live.clients[0], FIRST)
    assert delivered_to(live) == old


# TCP and UDP


@pytest.mark.quick
def test_tcp_with_destination_nat(live: Bed) -> None:
    for client, address in ((live.clients[0], CLIENT), (live.remote, "2001:db8:3::1")):
        answer = request(client, FIRST)
        assert answer["server"].startswith("2001:db8:2::1") and answer["client"][0] == address


def test_servers_are_drained_removed_and_added(live: Bed) -> None:
    """In commands and paths their addresses are in brackets."""
    server, routed = f"[{SERVER}]:8080", f"[{ROUTED_SERVER}]:8080"

    def answering(address: str) -> set[str]:
        return {request(live.clients[0], address)["server"] for _ in range(6)}

    def lbctl(*arguments: str) -> None:
        run = live.controller.cli(*arguments)
        assert run.returncode == 0, run

    lbctl("drain-server", server, "--service", "tcp/80", "--wait", "--timeout", "20")
    assert SERVER not in answering(FIRST)
    lbctl("drain-server", SERVER, "--undo")
    assert SERVER in answering(FIRST)
    lbctl("server", "remove", FULL, "tcp/80", routed)
    assert answering(FULL) == {FULL_SERVER}
    lbctl("server", "add", FULL, "tcp/80", routed, "--next-hop", INNER_ROUTER)
    assert answering(FULL) == {FULL_SERVER, ROUTED_SERVER}


def test_tcp_with_full_nat(live: Bed) -> None:
    """To servers on the internal network and behind a router there; they see the internal IPs in turn, with the default
    port range."""
    seen = [request(client, FULL) for client in (live.clients[0], live.remote) for _ in range(4)]
    assert {answer["server"] for answer in seen} == {FULL_SERVER, ROUTED_SERVER}
    assert {answer["client"][0] for answer in seen} == set(INTERNAL_IPS)
    with connect(live.clients[0], FULL) as talk:
        talk.sendall(b"hello\n")
        talk.recv(100)
        [entry] = [entry for entry in live.entries("lb-a") if entry["client_port"] == talk.getsockname()[1]]
        assert entry["internal_ip"] in INTERNAL_IPS and 1024 <= entry["internal_port"] <= 65535


@pytest.mark.parametrize("address", [FIRST, FULL])
def test_much_data_both_ways(live: Bed, address: str) -> None:
    assert request(live.clients[0], address, method="POST", body=b"x" * 2_000_000)["received"] == 2_000_000
    with connect(live.remote, address) as connection:
        connection.sendall(b"GET /bytes/2000000 HTTP/1.1\r\nConnection: close\r\n\r\n")
        got = 0
        while part := connection.recv(65536):
            got += len(part)
    assert got > 2_000_000


@pytest.mark.parametrize("address", [FIRST, FULL])
def test_addresses_hop_limit_and_checksums(live: Bed, address: str) -> None:
    servers = {space.name.removeprefix("server-"): space for space in live.servers}
    with hand_client(live, external=(address, 80), address=NOBODY) as client, contextlib.ExitStack() as stack:
        wires = {name: stack.enter_context(RawPort(space, "eth0")) for name, space in servers.items() if ":" in name}
        client.send(SYN, ttl=40)
        answer = client.receive(SYN | ACK)
        [entry] = [entry for entry in live.entries("lb-a") if entry["client_port"] == client.number]
        seen = wires[entry["server"]].receive(lambda frame: frame.flags == SYN and frame.dst_port == 8080)
        inner = (entry["internal_ip"], entry["internal_port"]) if address == FULL else client.local
        assert ((str(seen.src), seen.src_port), str(seen.dst)) == (inner, entry["server"])
        assert seen.ttl == 39 - (entry["server"] == ROUTED_SERVER) and seen.checksums_right
        assert (str(answer.src), answer.src_port, answer.checksums_right) == (address, 80, True)
        assert (answer.eth_src, answer.eth_dst) == (external_mac(live, "lb-a"), client.mac)


@contextlib.contextmanager
def udp_servers(bed: Bed) -> Iterator[None]:
    """Each IPv6 server tells on UDP port SERVER_DNS who it is and who has asked."""
    stopped = threading.Event()
    with contextlib.ExitStack() as stack:
        for space in bed.servers:
            name = space.name.removeprefix("server-")
            if ":" not in name:
                continue
            listening = stack.enter_context(space.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)))
            listening.bind((name, SERVER_DNS))
            listening.settimeout(0.2)
            thread = threading.Thread(target=_answer_datagrams, args=(listening, name, stopped))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stopped.set)
        yield


def _answer_datagrams(listening: socket.socket, name: str, stopped: threading.Event) -> None:
    while not stopped.is_set():
        with contextlib.suppress(TimeoutError):
            data, sender = listening.recvfrom(2048)
            listening.sendto(f"{name} {sender[0]} ".encode() + data, sender)


def udp_socket(space: Namespace, address: str) -> socket.socket:
    made = space.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    made.settimeout(limit(3))
    made.connect((address, DNS))
    return made


def test_udp_with_both_kinds_of_nat(live: Bed) -> None:
    with udp_servers(live):
        for space, own in ((live.clients[0], CLIENT), (live.remote, "2001:db8:3::1")):
            for address in (FIRST, FULL):
                with udp_socket(space, address) as asking:
                    for _ in range(3):
                        asking.send(b"question")
                        server, seen, question = asking.recv(200).split()
                        assert question == b"question"
                        assert seen.decode() in ((own,) if address == FIRST else INTERNAL_IPS)
                    [entry] = [
                        entry for entry in live.entries("lb-a") if entry["client_port"] == asking.getsockname()[1]
                    ]
                    assert (entry["protocol"], entry["server"]) == ("udp", server.decode())


# Answers to what has no entry


def test_echo_is_answered_in_the_switch(live: Bed) -> None:
    live.clients[0].run(
        "ping", "-c1", "-W2", FIRST
    )  # neighbour discovery needs no packet-in, but the fixture's probes may
    before = counters(live)["packet_ins"]
    for space, address in ((live.clients[0], FIRST), (live.remote, FULL), (server_space(live, SERVER), "2001:db8:2::1"),
                           (server_space(live, FULL_SERVER), INTERNAL_IPS[0])):
        assert " 2 received" in space.run("ping", "-c2", "-l2", "-W10", address)
    assert counters(live)["packet_ins"] == before


def test_strays_are_answered_with_a_reset(live: Bed) -> None:
    with hand_client(live, external=(FIRST, 80), address=NOBODY) as client:
        client.send(ACK, b"data")
        answer = client.receive()
        assert answer is not None and answer.flags == frames.RST and answer.checksums_right
    with pytest.raises(ConnectionRefusedError):
        connect(live.clients[0], FIRST, 81)


def icmp_answer(bed: Bed, lb: str, datagram_to: tuple[str, int]) -> Frame | None:
    """What comes back for a UDP datagram sent to that LB."""
    with RawPort(bed.clients[0], "eth0") as port:
        sent = frames.udp((port.mac, external_mac(bed, lb)), (NOBODY, 4000), datagram_to, b"question")
        port.send(sent)
        answer = port.receive(lambda frame: frame.protocol == frames.ICMPV6 and str(frame.dst) == NOBODY)
        assert answer is None or answer.checksums_right and answer.payload == sent[14:]
        return answer


def test_errors(live: Bed) -> None:
    """Port unreachable where there is no service; address unreachable from an LB that has not this external IP (RFC
    4443 3.1)."""
    answer = icmp_answer(live, "lb-a", (FIRST, 54))
    assert (answer.icmp_type, answer.icmp_code, str(answer.src)) == (1, 4, FIRST)
    answer = icmp_answer(live, "lb-b", (FIRST, DNS))
    assert (answer.icmp_type, answer.icmp_code) == (1, 3)


def test_fragments_are_translated(live: Bed) -> None:
    """The last one first: it waits for the one that has the ports."""
    with RawPort(live.clients[0], "eth0") as port, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(RawPort(space, "eth0")) for space in live.servers]
        datagram = frames.udp((port.mac, external_mac(live, "lb-a")), (NOBODY, 4001), (FIRST, DNS), b"x" * 64)[54:]
        for offset, more in ((48, 0), (0, 1)):
            head = struct.pack("!BBHI", frames.UDP, 0, offset | more, 77)
            piece = datagram[offset:offset + 48] if more else datagram[offset:]
            port.send(frames.ipv6((port.mac, external_mac(live, "lb-a")), NOBODY, FIRST, 44, head + piece))
        arrived = [frame for wire in wires
                   for frame in wire.collect(lambda frame: str(frame.src) == NOBODY and frame.protocol == 44, 0.3)]
        assert [frame.raw[56:58] for frame in arrived] == [b"\0\1", b"\0\x30"]
        whole = b"".join(frame.raw[62:54 + int.from_bytes(frame.raw[18:20])] for frame in arrived)
        ends = arrived[0].raw[22:54]
        assert frames.checksum(ends + struct.pack("!II", len(whole), frames.UDP) + whole) == 0
        assert struct.unpack_from("!HH", whole) == (4001, SERVER_DNS)


# Moves


@pytest.fixture
def bed(bed: Bed) -> Bed:
    """From every LB, every server is reached."""
    wait_reached(bed)
    return bed


def loads_of(bed: Bed, *addresses: str) -> list[Load]:
    return [load for address in addresses for load in mixed_load(bed, address, lines=4)]


class Questions:
    """A UDP client that asks again and again, and counts what is not answered in time. A context manager."""

    def __init__(self, space: Namespace, address: str) -> None:
        self.answered = self.lost = 0
        self._socket = udp_socket(space, address)
        self._socket.settimeout(limit(1.0))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stopped.wait(0.01):
            number += 1
            self._socket.send(b"%d" % number)
            try:
                while not self._socket.recv(200).endswith(b" %d" % number):
                    pass
                self.answered += 1
            except OSError:
                self.lost += 1

    def __enter__(self) -> Questions:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(limit(3))
        self._socket.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_moves_under_load_lose_nothing(bed: Bed, strategy: str) -> None:
    """Both kinds of NAT and IPv4, at once, there and back."""
    with udp_servers(bed), Questions(bed.clients[1], FIRST) as plain, Questions(bed.clients[1], FULL) as full:
        loads = loads_of(bed, FIRST, FULL, IPV4)
        for to in ("lb-b", "lb-a"):
            ids = [bed.move(address, to, strategy, wait=False)["id"] for address in (FIRST, FULL, IPV4)]
            for record in [wait_ended(bed, move_id) for move_id in ids]:
                assert record["state"] == "done" and record["packets_lost"] == 0, record
                assert record["packets_held"] == record["packets_released"]
                assert record["entries_copied"] == record["entries_total"] >= 8
        assert_unharmed(loads)
        assert (plain.lost, full.lost) == (0, 0) and min(plain.answered, full.answered) > 50
    for address in (FIRST, FULL, IPV4):
        serves_alone(bed, "lb-a", "lb-b", address)


def test_nothing_breaks_when_the_new_lb_is_slow(quiet_bed: Bed) -> None:
    assert harm_by_a_slow_lb(quiet_bed, FULL, "precopy") == 0


@pytest.mark.parametrize("naive_bed", ["route-first"], indirect=True)
def test_route_first_breaks_connections(naive_bed: Bed) -> None:
    assert harm_by_a_slow_lb(naive_bed, FULL, "precopy") > 0


def test_a_move_is_announced_on_both_sides(bed: Bed) -> None:
    """Unsolicited advertisements from the new LB, five times (RFC 4861 7.2.6)."""
    outside = FIRST, external_mac(bed, "lb-b"), OVERRIDE
    inside = "2001:db8:2::1", internal_mac(bed, "lb-b"), OVERRIDE | ROUTER
    with RawPort(bed.clients[1], "eth0") as out, RawPort(server_space(bed, SERVER), "eth0") as in_, \
            Listening(out, lambda frame: told(frame) == outside) as external, \
            Listening(in_, lambda frame: told(frame) == inside) as internal:
        bed.move(FIRST, "lb-b")
        announced(bed, external, internal)
    for (address, _, _), side in ((outside, external), (inside, internal)):
        assert {(frame.eth_dst, str(frame.dst), str(frame.src)) for frame in side.heard} == {
            (ALL_NODES_MAC, ALL_NODES, address)}


# Restarts


def test_a_controller_killed_changes_nothing(bed: Bed) -> None:
    """Entries of both IP versions, both protocols and both kinds of NAT are read back, field by field; no flow
    changes."""
    def columns() -> list[tuple]:
        return sorted(
            tuple(
                (name, str(entry[name])) for name in entry if name not in ("packets", "bytes", "created", "last_seen")
            )
            for lb in bed.lbs
            for entry in bed.entries(lb)
        )

    with udp_servers(bed), Questions(bed.clients[1], FULL) as questions, contextlib.ExitStack() as stack:
        talks = [stack.enter_context(Talks(space, address, 3)) for space in (bed.clients[0], bed.remote)
                 for address in (FIRST, SECOND, FULL, IPV4)]
        eventually(bed, lambda: questions.answered > 5, "questions are answered")
        before, entries = {name: node.tables_hash() for name, node in bed.lbs.items()}, columns()
        assert len(entries) == 25
        for _ in range(2):
            bed.restart_controller()
            wait_reached(bed)
            assert {name: node.tables_hash() for name, node in bed.lbs.items()} == before
            assert columns() == entries
        assert [talk.broken() for talk in talks] == [[]] * len(talks)
        assert questions.lost == 0
        new = request(bed.clients[0], FULL)
        taken = {(dict(row)["internal_ip"], dict(row)["internal_port"]) for row in entries}
        assert tuple(map(str, new["client"])) not in taken


def test_a_switch_that_is_killed_gets_everything_back(bed: Bed) -> None:
    node = bed.lbs["lb-a"]
    with Talks(bed.clients[0], FIRST, 3) as plain, Talks(bed.remote, FULL, 3) as full:
        before = node.tables_hash()
        node.ovs.kill()
        wait_state(bed, "lb-a", "disconnected")
        node.ovs.start_vswitchd()
        wait_state(bed, "lb-a", "ready")
        bed.wait_until(lambda: node.tables_hash() == before, 5, "the tables are as before")
        assert plain.broken(timeout=limit(10)) == full.broken(timeout=limit(10)) == []


def test_ipv6_comes_and_goes_by_the_site_file(fresh: Bed) -> None:
    """An IPv4 site gets IPv6 external IPs and loses them again; its connections don't notice."""
    whole = BED["site"]
    only_ipv4 = replace(
        whole,
        external_networks=whole.external_networks[:1],
        internal_networks=whole.internal_networks[:1],
        external_ips=whole.external_ips[:1],
    )
    request(fresh.clients[0], FIRST)
    with Talks(fresh.clients[0], IPV4, 3) as talks:
        fresh.controller.reload(only_ipv4)
        eventually(fresh, lambda: len(fresh.rest("GET", "/v1/external-ips").json["external_ips"]) == 1, "IPv6 has gone")
        fresh.clients[0].ip("neigh", "flush", "all")
        with pytest.raises(OSError):
            connect(fresh.clients[0], FIRST, timeout=0.5)
        fresh.controller.reload(whole)
        eventually(fresh, lambda: len(fresh.rest("GET", "/v1/external-ips").json["external_ips"]) == 4, "IPv6 is back")
        fresh.wait_ready()
        for address in (FIRST, SECOND, FULL):
            request(fresh.clients[0], address)
        assert talks.broken() == []
