"""How connections of UDP, with full NAT and through a NAT gateway open and end: frames in at a switch, frames out."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from lbctl.entries.access_table import NO_HOP
from lbctl.frames import icmp, packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.ground.effects import ToSwitch
from lbctl.openflow.entry_flows import entry_flows
from lbctl.site.model import ExternalIp
from lbctl.values.keys import pack_key, unpack_key
from lbctl.values.protocols import TCP, UDP
from tests.unit.fake_site import EXTERNAL, INTERNAL, ROUTER_MAC, FakeSite, site
from tests.unit.fake_switch import Sent
from tests.unit.frames import datagram

CLIENT, ADDRESS, GATEWAY_IP = (IPv4Address(text).packed for text in ("203.0.113.9", "198.51.100.1", "198.51.100.9"))
INTERNAL_IPS = {IPv4Address("10.0.0.111").packed, IPv4Address("10.0.0.112").packed}
SERVERS = [(IPv4Address("10.0.0.10").packed, 80), (IPv4Address("10.0.0.11").packed, 8080)]
HOST, HOST_MAC, OUTSIDE = (
    IPv4Address("10.0.0.200").packed,
    bytes.fromhex("0200000000c8"),
    IPv4Address("192.0.2.7").packed,
)
NAT_GATEWAY = ExternalIp(
    IPv4Address("198.51.100.9"),
    "lb-a",
    IPv4Address("10.0.0.9"),
    kind="nat-gateway",
    port_range=(1024, 1027),
    inside=(IPv4Network("10.0.0.192/26"),),
    router=IPv4Address("198.51.100.254"),
)
REST = 5.0


class World(FakeSite):
    """Everything arrives at once. `logged`: what the log was told."""

    def __init__(self, configuration) -> None:
        self.logged: list[str] = []
        super().__init__(configuration)
        self.settle(1.0)

    def _new_control(self):
        return self.control_class(self.site, self.stored, self.now, lambda event, **_: self.logged.append(event))

    def through(self, frame: bytes, port: int, name: str = "lb-a") -> list[Sent]:
        """What leaves by the switches until nothing more happens."""
        sent, events = self.switches[name].receive(frame, port, self.now)
        waiting = deque((name, event) for event in events)
        while waiting:
            name, event = waiting.popleft()
            whose = () if event.name == "flow_stats" else (name,)  # its token tells what it answers
            for effect in getattr(self.control, event.name)(*whose, *event.arguments, self.now):
                if isinstance(effect, ToSwitch):
                    more, events = self.switches[effect.lb].apply(effect.message, self.now)
                    sent += more
                    waiting += [(effect.lb, event) for event in events]
        return sent

    def packet(self, key: bytes, port: int, flags: int = SYN, seq: int = 1, mac: bytes | None = None) -> bytes:
        """A frame whose packet carries that key."""
        protocol, src, src_port, dst, dst_port = unpack_key(key)
        eth_dst = bytes.fromhex(self.switches["lb-a"].ports[port - 1].mac.replace(":", ""))
        eth_src = mac or (ROUTER_MAC if port == EXTERNAL else HOST_MAC)
        if protocol == UDP:
            return datagram(src, dst, src_port, dst_port, eth_dst=eth_dst, eth_src=eth_src)
        return packets.tcp_segment(eth_dst, eth_src, src, src_port, dst, dst_port, flags=flags, seq=seq)

    def send(self, key: bytes, port: int, flags: int = SYN, seq: int = 1, mac: bytes | None = None) -> list[Sent]:
        return self.through(self.packet(key, port, flags, seq, mac), port)

    def table(self, address: bytes):
        return self.control.ground.external_ips.by_address[address].table

    def counter(self, name: str) -> int:
        return self.control.ground.switches["lb-a"].counters[name]


def key_of(item: Sent) -> bytes:
    packet = packets.decode(item.frame)
    return pack_key(packet.protocol, packet.src, packet.src_port, packet.dst, packet.dst_port)


def kind_of(item: Sent) -> str:
    """rst, icmp with its code, or the addresses of any other packet do not matter: packet."""
    packet = packets.decode(item.frame)
    if packet.protocol == 1:
        return f"icmp{item.frame[34]}.{item.frame[35]}"
    return "rst" if packet.tcp_flags & RST else "packet"


def from_client(protocol: int = TCP, port: int = 40001, address: bytes = ADDRESS) -> bytes:
    return pack_key(protocol, CLIENT, port, address, 80 if protocol == TCP else 53)


def reply_to(item: Sent) -> bytes:
    """The key of the answer to a packet that a server has got."""
    protocol, src, src_port, dst, dst_port = unpack_key(key_of(item))
    return pack_key(protocol, dst, dst_port, src, src_port)


# UDP.

@pytest.fixture(params=["destination", "full"])
def dns(request) -> World:
    return World(site(nat=request.param, udp=True, time_wait=REST))


def test_the_first_datagram_makes_the_entry_and_goes_on(dns) -> None:
    (sent,) = dns.send(from_client(UDP), EXTERNAL)
    assert sent.port == INTERNAL and len(dns.table(ADDRESS)) == 1
    (back,) = dns.send(reply_to(sent), INTERNAL)
    assert (back.port, back.frame[:6]) == (EXTERNAL, ROUTER_MAC)
    assert key_of(back) == pack_key(UDP, ADDRESS, 53, CLIENT, 40001)
    (again,) = dns.send(from_client(UDP), EXTERNAL)
    assert key_of(again) == key_of(sent) and dns.counter("connections_opened") == 1, "the switch alone, from now on"


def test_datagrams_that_come_before_the_flows_make_no_second_entry(dns) -> None:
    frame = dns.packet(from_client(UDP), EXTERNAL)
    _, events = dns.switches["lb-a"].receive(frame, EXTERNAL, dns.now)
    outs = [dns.control.packet_in("lb-a", event.arguments[0], dns.now) for event in events * 3]
    sent = [item for out in outs for name, message in out for item in dns.switches[name].apply(message, dns.now)[0]]
    assert len({key_of(item) for item in sent}) == 1 and len(sent) == 3
    assert (dns.counter("connections_opened"), dns.counter("early_datagrams")) == (1, 2)


def test_tcp_and_udp_on_the_same_ports_are_two_connections(dns) -> None:
    first, second = dns.send(from_client(TCP), EXTERNAL), dns.send(from_client(UDP), EXTERNAL)
    assert len(dns.table(ADDRESS)) == 2 and [len(sent) for sent in (first, second)] == [1, 1]


@pytest.mark.parametrize("port", [54, 80])
def test_a_datagram_to_no_service_is_answered(dns, port) -> None:
    (sent,) = dns.send(pack_key(UDP, CLIENT, 40001, ADDRESS, port), EXTERNAL)
    assert (sent.port, kind_of(sent)) == (EXTERNAL, "icmp3.3") and not len(dns.table(ADDRESS))
    assert packets.decode(sent.frame).src == ADDRESS


def test_a_datagram_from_a_server_without_an_entry_is_answered(dns) -> None:
    peer = dns.site.external_ips[0].internal_ips[0].packed if dns.site.external_ips[0].internal_ips else CLIENT
    (sent,) = dns.send(pack_key(UDP, SERVERS[0][0], 80, peer, 1024), INTERNAL)
    assert (sent.port, kind_of(sent)) == (INTERNAL, "icmp3.3")
    expected = peer if dns.site.external_ips[0].internal_ips else dns.site.external_ips[0].gateway.packed
    assert packets.decode(sent.frame).src == expected, "an address that is the LB's own"


def test_a_flow_that_the_switch_has_lost_is_put_back(dns) -> None:
    (sent,) = dns.send(from_client(UDP), EXTERNAL)
    reply = reply_to(sent)
    dns.switches["lb-a"].tables["access_out"] = {
        identity: item for identity, item in dns.switches["lb-a"].tables["access_out"].items() if not item.entry}
    (back,) = dns.send(reply, INTERNAL)
    assert back.port == EXTERNAL and dns.counter("entries_put_back") == 1


def test_a_datagram_long_after_the_first_puts_lost_flows_back(dns) -> None:
    """It looks like the first one to the switch; what is on its way is not sent twice, what is lost is sent again."""
    (sent,) = dns.send(from_client(UDP), EXTERNAL)
    dns.now += 2.0
    for table in ("access_in", "access_out"):
        rows = dns.switches["lb-a"].tables[table]
        dns.switches["lb-a"].tables[table] = {identity: item for identity, item in rows.items() if not item.entry}
    for _ in range(2):
        (again,) = dns.send(from_client(UDP), EXTERNAL)
        assert key_of(again) == key_of(sent)
    assert (dns.counter("connections_opened"), dns.counter("early_datagrams")) == (1, 1)
    assert [item.port for item in dns.send(reply_to(sent), INTERNAL)] == [EXTERNAL]


# Full NAT.

@pytest.fixture
def full() -> World:
    """Two external IPs that share two servers; 32 translated ports for each server."""
    return World(site(nat="full", udp=True, time_wait=REST))


def test_a_server_sees_an_internal_ip(full) -> None:
    (sent,) = full.send(from_client(), EXTERNAL)
    protocol, peer, port, server, server_port = unpack_key(key_of(sent))
    assert (server, server_port) in SERVERS and peer in INTERNAL_IPS and 1024 <= port <= 1039
    (back,) = full.send(reply_to(sent), INTERNAL, SYN | ACK)
    assert key_of(back) == pack_key(protocol, ADDRESS, 80, CLIENT, 40001)


def test_no_two_connections_have_one_place_at_a_server(full) -> None:
    seen = set()
    for address, port in (
        (address, port) for address in (ADDRESS, bytes([198, 51, 100, 2])) for port in range(40000, 40030)
    ):
        (sent,) = full.send(from_client(port=port, address=address), EXTERNAL)
        seen.add(key_of(sent))
    assert len(seen) == 60


def test_exhaustion_refuses_new_connections_and_harms_no_other(full) -> None:
    kept = [full.send(from_client(port=port), EXTERNAL)[0] for port in range(40000, 40064)]
    assert len({key_of(item) for item in kept}) == 64, "every port to each of the two servers"
    for port in (41000, 41001):
        (refused,) = full.send(from_client(port=port), EXTERNAL)
        assert (refused.port, kind_of(refused)) == (EXTERNAL, "rst")
    assert full.counter("ports_exhausted") == full.counter("connections_refused") == 2
    assert full.logged.count("no translated port left") == 1, "the log is told once a minute"
    assert len(full.table(ADDRESS)) == 64
    for port, item in zip(range(40000, 40064), kept, strict=True):
        assert key_of(full.send(from_client(port=port), EXTERNAL, ACK)[0]) == key_of(item)
    (other,) = full.send(from_client(address=bytes([198, 51, 100, 2])), EXTERNAL)
    (udp,) = full.send(from_client(UDP), EXTERNAL)
    assert kind_of(other) == kind_of(udp) == "packet", "other external IPs and protocols have ports of their own"


def test_a_freed_port_rests(full) -> None:
    for port in range(40000, 40064):
        full.send(from_client(port=port), EXTERNAL)
    serving = full.control.ground.external_ips.by_address[ADDRESS]
    entry = serving.table.by_key(from_client(port=40007))
    full.post(full.control.connections.end_all(serving, [entry], full.now))
    full.drain()
    (refused,) = full.send(from_client(port=41000), EXTERNAL)
    assert kind_of(refused) == "rst"
    full.now += REST - 0.5
    assert kind_of(full.send(from_client(port=41000), EXTERNAL)[0]) == "rst"
    full.now += 1.0
    (sent,) = full.send(from_client(port=41000), EXTERNAL)
    assert reply_to(sent) == entry.reply, "the only one that is free"


def test_a_repeated_syn_takes_no_second_port(full) -> None:
    assert key_of(full.send(from_client(), EXTERNAL)[0]) == key_of(full.send(from_client(), EXTERNAL)[0])
    assert full.counter("connections_opened") == 1


@pytest.mark.parametrize("ended", [False, True])
def test_a_client_that_uses_its_port_again_gets_another(full, ended: bool) -> None:
    """The server may still have the old connection in TIME_WAIT; unless a RST may have been forged, and the connection
    lives."""
    (first,) = full.send(from_client(), EXTERNAL)
    full.send(from_client(), EXTERNAL, RST)
    full.now += 1.0
    if not ended:
        assert key_of(full.send(from_client(), EXTERNAL, seq=7)[0]) == key_of(first)
        return
    serving = full.serving(full.site.external_ips[0].address)
    full.post(full.control.connections.end_all(serving, list(serving.table.entries()), full.now))
    full.drain()
    (second,) = full.send(from_client(), EXTERNAL, seq=7)
    assert key_of(first) != key_of(second) and len(full.table(ADDRESS)) == 1


@pytest.mark.parametrize("inward", [True, False])
def test_a_reset_ends_the_connection(full, inward) -> None:
    (sent,) = full.send(from_client(), EXTERNAL)
    (reset,) = full.send(from_client() if inward else reply_to(sent), EXTERNAL if inward else INTERNAL, RST)
    assert kind_of(reset) == "rst" and reset.port == (INTERNAL if inward else EXTERNAL)
    (entry,) = full.table(ADDRESS).entries()
    assert entry.state == "reset"
    full.settle(full.site.settings.linger + 1.0)
    assert not len(full.table(ADDRESS)) and not full.switches["lb-a"].entries()


def test_an_answer_to_no_connection_is_refused_by_the_internal_ip(full) -> None:
    key = pack_key(TCP, *SERVERS[0], IPv4Address("10.0.0.111").packed, 1024)
    (sent,) = full.send(key, INTERNAL, ACK)
    assert (sent.port, kind_of(sent), packets.decode(sent.frame).src) == (
        INTERNAL,
        "rst",
        IPv4Address("10.0.0.111").packed,
    )


# NAT gateway.

@pytest.fixture
def gateway() -> World:
    """A NAT gateway with four ports, beside an external IP with services."""
    configuration = site(ips=1, time_wait=REST)
    return World(replace(configuration, external_ips=(*configuration.external_ips, NAT_GATEWAY)))


def from_host(protocol: int = TCP, port: int = 5000, outside_port: int = 443) -> bytes:
    return pack_key(protocol, HOST, port, OUTSIDE, outside_port)


PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])


@PROTOCOLS
def test_an_inside_host_reaches_the_outside(gateway, protocol) -> None:
    (sent,) = gateway.send(from_host(protocol), INTERNAL)
    packet = packets.decode(sent.frame)
    assert (sent.port, packet.eth_dst, packet.src, packet.dst, packet.dst_port) == (
        EXTERNAL,
        ROUTER_MAC,
        GATEWAY_IP,
        OUTSIDE,
        443,
    )
    assert packet.src_port in range(1024, 1028)
    # The answer may come from another router.
    (back,) = gateway.send(reply_to(sent), EXTERNAL, SYN | ACK, mac=bytes.fromhex("02000000c0ff"))
    assert (back.port, back.frame[:6]) == (INTERNAL, HOST_MAC)
    assert key_of(back) == pack_key(protocol, OUTSIDE, 443, HOST, 5000)


@PROTOCOLS
def test_what_nobody_asked_for_is_refused(gateway, protocol) -> None:
    (sent,) = gateway.send(pack_key(protocol, OUTSIDE, 443, GATEWAY_IP, 1024), EXTERNAL)
    assert (sent.port, kind_of(sent)) == (EXTERNAL, "rst" if protocol == TCP else "icmp3.3")
    assert packets.decode(sent.frame).src == GATEWAY_IP and not len(gateway.table(GATEWAY_IP))


@PROTOCOLS
def test_one_port_serves_one_connection_to_each_outside_place(gateway, protocol) -> None:
    to_one = [gateway.send(from_host(protocol, port), INTERNAL)[0] for port in range(5000, 5004)]
    assert len({key_of(item) for item in to_one}) == 4
    (refused,) = gateway.send(from_host(protocol, 5004), INTERNAL)
    assert (refused.port, kind_of(refused)) == (INTERNAL, "rst" if protocol == TCP else "icmp3.3")
    assert gateway.counter("ports_exhausted") == 1
    (elsewhere,) = gateway.send(from_host(protocol, 5004, outside_port=444), INTERNAL)
    assert kind_of(elsewhere) == "packet"


def test_without_its_router_nothing_opens(gateway) -> None:
    del gateway.control.ground.switches["lb-a"].neighbours[NAT_GATEWAY.router]
    assert gateway.send(from_host(), INTERNAL) == []
    assert gateway.counter("dropped_router_unresolved") == 1 and not len(gateway.table(GATEWAY_IP))


def test_an_inside_host_that_is_no_ones_is_told(gateway) -> None:
    (told,) = gateway.send(pack_key(TCP, IPv4Address("10.0.0.99").packed, 5000, OUTSIDE, 443), INTERNAL)
    assert (told.port, kind_of(told)) == (INTERNAL, "icmp3.1")
    assert gateway.control.ground.switches["lb-a"].counters["no_way_outside"] == 1


@pytest.mark.parametrize("outward", [True, False])
def test_a_reset_ends_an_outbound_connection(gateway, outward) -> None:
    (sent,) = gateway.send(from_host(), INTERNAL)
    gateway.send(from_host() if outward else reply_to(sent), INTERNAL if outward else EXTERNAL, RST)
    (entry,) = gateway.table(GATEWAY_IP).entries()
    assert entry.state == "reset"
    gateway.settle(gateway.site.settings.linger + 1.0)
    assert not len(gateway.table(GATEWAY_IP))


@pytest.mark.parametrize("pause", [0.0, 5.0])
@pytest.mark.parametrize("flags", [RST, FIN | ACK])
def test_forged_packets_from_outside_end_no_outbound_connection(gateway, flags, pause) -> None:
    """Nor does a SYN after them: it goes inside once, and does not come to the controller for ever."""
    (sent,) = gateway.send(from_host(), INTERNAL)
    gateway.send(reply_to(sent), EXTERNAL, flags, seq=2**30)
    gateway.settle(pause)
    for _ in range(2):
        assert [kind_of(each) for each in gateway.send(reply_to(sent), EXTERNAL, SYN, seq=2**30)] == ["packet"]
        gateway.settle(2.5)
    (again,) = gateway.send(from_host(), INTERNAL, ACK)
    assert (key_of(again), kind_of(again)) == (key_of(sent), "packet")


def test_fins_both_ways_end_an_outbound_connection(gateway) -> None:
    (sent,) = gateway.send(from_host(), INTERNAL)
    gateway.send(from_host(), INTERNAL, FIN | ACK)
    gateway.send(reply_to(sent), EXTERNAL, FIN | ACK)
    gateway.settle(gateway.site.settings.linger + 2.0)
    assert not len(gateway.table(GATEWAY_IP)) and not gateway.switches["lb-a"].entries()


@pytest.mark.parametrize("missing", ["access_in", "access_out"])
def test_an_entry_that_was_read_back_by_half_is_completed(gateway, missing) -> None:
    """A new controller finds one direction only: what it can't know yet, the next packet tells."""
    (sent,) = gateway.send(from_host(), INTERNAL)
    (entry,) = gateway.table(GATEWAY_IP).entries()
    before = entry.reply, entry.next_hop, entry.inner_hop
    tables = gateway.switches["lb-a"].tables
    tables[missing] = {identity: item for identity, item in tables[missing].items() if not item.entry}
    gateway.restart_control()
    for name in gateway.switches:
        gateway.connect(name)
    gateway.settle(1.0)
    (entry,) = gateway.table(GATEWAY_IP).entries()
    assert (entry.next_hop == NO_HOP) == (missing == "access_out") and bool(entry.inner_hop) == (
        missing == "access_out"
    )
    for _ in range(2):
        # The first one may only make the switch show the next.
        out = gateway.send(from_host(), INTERNAL, ACK)
        back = gateway.send(reply_to(sent), EXTERNAL, ACK)
    assert [item.port for item in (*out, *back)] == [EXTERNAL, INTERNAL]
    assert (entry.reply, entry.next_hop, entry.inner_hop) == before
    wanted = {flow.text() for flow in entry_flows(entry, gateway.site.settings.linger)}
    assert wanted == {item.flow.text() for item in gateway.switches["lb-a"].flows() if item.entry}


def test_after_a_restart_no_port_is_given_twice(gateway) -> None:
    sent = [gateway.send(from_host(port=port), INTERNAL)[0] for port in (5000, 5001)]
    gateway.restart_control()
    for name in gateway.switches:
        gateway.connect(name)
    gateway.settle(1.0)
    sent += [gateway.send(from_host(port=port), INTERNAL)[0] for port in (5002, 5003)]
    assert len({key_of(item) for item in sent}) == 4
    assert kind_of(gateway.send(from_host(port=5004), INTERNAL)[0]) == "rst"


def test_an_error_about_an_outbound_connection_reaches_the_host(gateway) -> None:
    (sent,) = gateway.send(from_host(UDP), INTERNAL)
    mac = bytes.fromhex(gateway.switches["lb-a"].ports[0].mac.replace(":", ""))
    quoted = mac + sent.frame[6:]
    told = icmp.error(quoted[:6] + ROUTER_MAC + quoted[12:], icmp.PORT_UNREACHABLE, ROUTER_MAC, OUTSIDE)
    (item,) = gateway.through(mac + told[6:], EXTERNAL)
    packet = packets.decode(item.frame)
    assert (item.port, packet.eth_dst, packet.src, packet.dst) == (INTERNAL, HOST_MAC, OUTSIDE, HOST)
    assert pack_key(UDP, *_quoted(item.frame)) == from_host(UDP)


def _quoted(frame: bytes) -> tuple[bytes, int, bytes, int]:
    inner = frame[42:]
    return inner[12:16], int.from_bytes(inner[20:22]), inner[16:20], int.from_bytes(inner[22:24])
