"""Hosts inside as clients: frames in at a switch, frames out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.copies.fetching import _with_clients_inside
from lbctl.entries.access_table import NO_HOP
from lbctl.frames import icmp, packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.keeper.rows import Row
from lbctl.site.model import ExternalIp
from lbctl.values.keys import inverse_key, pack_key, reply_key, unpack_key
from lbctl.values.protocols import TCP, UDP
from tests.unit.fake_site import EXTERNAL, INTERNAL, site
from tests.unit.frames import datagram, patched
from tests.unit.test_fragments import pieces, whole
from tests.unit.test_opening import World, key_of, kind_of, reply_to

SERVER, OTHER, HOST, CLIENT, OUTSIDE, FIRST, SECOND, GATEWAY, GATEWAY_IP = (
    IPv4Address(text).packed
    for text in (
        "10.0.0.10",
        "10.0.0.21",
        "10.0.0.99",
        "203.0.113.9",
        "192.0.2.7",
        "198.51.100.1",
        "198.51.100.2",
        "10.0.0.2",
        "198.51.100.9",
    )
)
"""SERVER serves FIRST; GATEWAY is SECOND's."""
SERVER_MAC = bytes.fromhex("02000000000a")
REST = 5.0


def nat_gateway(**changes) -> ExternalIp:
    return replace(
        ExternalIp(
            IPv4Address("198.51.100.9"),
            "lb-a",
            IPv4Address("10.0.0.9"),
            kind="nat-gateway",
            inside=(IPv4Network("10.0.0.0/27"),),
            router=IPv4Address("198.51.100.254"),
        ),
        **changes,
    )


def world_with(*more: ExternalIp, **plain) -> World:
    configuration = site(udp=True, time_wait=REST, **plain)
    return World(replace(configuration, external_ips=(*configuration.external_ips, *more)))


@pytest.fixture(params=["destination", "full"])
def world(request) -> World:
    return world_with(nat=request.param)


def call(world: World, protocol: int = TCP, port: int = 5000, source: bytes = SERVER):
    """A host's packet to SECOND, and what its server gets."""
    key = pack_key(protocol, source, port, SECOND, 80 if protocol == TCP else 53)
    (sent,) = world.send(key, INTERNAL, mac=SERVER_MAC)
    return key, sent


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("source", [SERVER, HOST])
def test_a_host_inside_calls_an_external_ip(world, protocol, source) -> None:
    key, sent = call(world, protocol, source=source)
    _, peer, _, server, _ = unpack_key(key_of(sent))
    assert sent.port == INTERNAL and server in world.present
    assert peer in {address.packed for address in world.site.external_ips[1].internal_addresses()}
    (back,) = world.send(reply_to(sent), INTERNAL, SYN | ACK)
    packet = packets.decode(back.frame)
    assert (back.port, packet.eth_dst, key_of(back)) == (INTERNAL, SERVER_MAC, inverse_key(key))
    (entry,) = world.table(SECOND).entries()
    assert entry.full and entry.next_hop == SERVER_MAC


def test_it_calls_itself(world) -> None:
    key = pack_key(TCP, SERVER, 5000, FIRST, 80)
    for port in range(5000, 5002):
        (sent,) = world.send(pack_key(TCP, SERVER, port, FIRST, 80), INTERNAL, mac=SERVER_MAC)
        _, peer, _, server, _ = unpack_key(key_of(sent))
        assert sent.port == INTERNAL and peer != SERVER
        if server == SERVER:
            (back,) = world.send(reply_to(sent), INTERNAL, SYN | ACK)
            assert key_of(back) == inverse_key(pack_key(TCP, SERVER, port, FIRST, 80))
            return
    raise AssertionError(f"{key!r}: it was never chosen")


def test_fins_both_ways_end_it_and_its_port_rests(world) -> None:
    key, sent = call(world)
    world.send(key, INTERNAL, FIN | ACK, mac=SERVER_MAC)
    world.send(reply_to(sent), INTERNAL, FIN | ACK)
    world.settle(world.site.settings.linger + 2.0)
    assert not len(world.table(SECOND)) and not world.switches["lb-a"].entries()
    _, again = call(world, port=5001)
    assert key_of(again) != key_of(sent)


@pytest.mark.parametrize("by_client", [True, False])
def test_a_reset_ends_it(world, by_client) -> None:
    key, sent = call(world)
    (told,) = world.send(key if by_client else reply_to(sent), INTERNAL, RST, mac=SERVER_MAC)
    assert told.port == INTERNAL
    (entry,) = world.table(SECOND).entries()
    assert entry.state == "reset"
    world.settle(world.site.settings.linger + 1.0)
    assert not len(world.table(SECOND))
    (back,) = world.send(key if by_client else reply_to(sent), INTERNAL, ACK, mac=SERVER_MAC)
    assert kind_of(back) == "packet", "its hosts go on"


def test_errors_about_it_reach_both_ends(world) -> None:
    key, sent = call(world, UDP)
    (back,) = world.send(reply_to(sent), INTERNAL)
    mac = bytes.fromhex(world.switches["lb-a"].ports[INTERNAL - 1].mac.replace(":", ""))
    for frame, sender, wanted in ((sent.frame, unpack_key(key_of(sent))[3], key),
                                  (back.frame, SERVER, reply_to(sent))):
        told = icmp.error(mac + SERVER_MAC + frame[12:], icmp.PORT_UNREACHABLE, SERVER_MAC, sender)
        (item,) = world.through(mac + told[6:], INTERNAL)
        inner = item.frame[42:]
        quoted = pack_key(UDP, inner[12:16], int.from_bytes(inner[20:22]), inner[16:20], int.from_bytes(inner[22:24]))
        assert item.port == INTERNAL and quoted == wanted and item.frame[30:34] == inner[12:16]


def test_a_ttl_that_ends_is_told(world) -> None:
    key, _ = call(world)
    frame = bytearray(world.packet(key, INTERNAL, ACK, mac=SERVER_MAC))
    frame[22] = 1
    (told,) = world.through(bytes(frame), INTERNAL)
    assert (told.port, kind_of(told)) == (INTERNAL, "icmp11.0")


def test_who_is_not_inside_is_no_client_there(world) -> None:
    key = pack_key(TCP, CLIENT, 5000, SECOND, 80)
    assert world.send(key, INTERNAL, mac=SERVER_MAC) == []
    assert world.counter("dropped_source_not_inside") == 1 and not len(world.table(SECOND))


def test_the_other_lb_passes_it_on() -> None:
    """SECOND is at lb-b, the caller's gateway at lb-a."""
    configuration = site(udp=True, time_wait=REST)
    first, second = configuration.external_ips
    world = World(replace(configuration, external_ips=(first, replace(second, load_balancer="lb-b"))))
    key, sent = call(world)
    (entry,) = world.table(SECOND).entries()
    assert entry.next_hop == SERVER_MAC and world.counter("passed_on") == 1
    assert not world.switches["lb-a"].entries() and world.switches["lb-b"].entries()
    (again,) = world.send(key, INTERNAL, ACK, mac=SERVER_MAC)
    assert key_of(again) == key_of(sent) and world.counter("passed_on") == 2


def test_a_restarted_controller_goes_on(world) -> None:
    key, sent = call(world)
    world.restart_control()
    for name in world.switches:
        world.connect(name)
    world.settle(1.0)
    (entry,) = world.table(SECOND).entries()
    assert entry.key == key
    _, other = call(world, port=5001)
    assert key_of(other) != key_of(sent)
    (again,) = world.send(key, INTERNAL, ACK, mac=SERVER_MAC)
    assert key_of(again) == key_of(sent)


# Servers that open connections to the outside (4.6 of the code review).

def outward(protocol: int = TCP, port: int = 5000) -> bytes:
    return pack_key(protocol, SERVER, port, OUTSIDE, 443)


def test_a_server_without_nat_gateway_is_refused(world) -> None:
    if world.site.external_ips[0].nat == "full":
        return  # whose servers are hosts as others
    (told,) = world.send(outward(), INTERNAL, mac=SERVER_MAC)
    assert (told.port, kind_of(told)) == (INTERNAL, "rst")
    (told,) = world.send(outward(UDP), INTERNAL, mac=SERVER_MAC)
    assert (told.port, kind_of(told)) == (INTERNAL, "icmp3.3")
    assert world.counter("no_way_outside") == 2


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_nat_gateway_takes_servers_outside(protocol) -> None:
    world = world_with(nat_gateway())
    (sent,) = world.send(outward(protocol), INTERNAL, mac=SERVER_MAC)
    assert (sent.port, unpack_key(key_of(sent))[1]) == (EXTERNAL, GATEWAY_IP)
    (back,) = world.send(reply_to(sent), EXTERNAL, SYN | ACK)
    assert (back.port, key_of(back)) == (INTERNAL, inverse_key(outward(protocol)))
    (again,) = world.send(outward(protocol), INTERNAL, ACK, mac=SERVER_MAC)
    assert key_of(again) == key_of(sent)
    assert len(world.table(GATEWAY_IP)) == 1 and not len(world.table(FIRST))


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_nat_gateway_of_another_lb_does(protocol) -> None:
    world = world_with(nat_gateway(load_balancer="lb-b"))
    for flags in (SYN, ACK, ACK):
        (sent,) = world.send(outward(protocol), INTERNAL, flags, mac=SERVER_MAC)
        assert (sent.port, unpack_key(key_of(sent))[1]) == (EXTERNAL, GATEWAY_IP)
    assert world.counter("passed_on") == 3 and not world.switches["lb-a"].entries()
    (told,) = world.send(outward(protocol, 5001), INTERNAL, ACK, mac=SERVER_MAC)
    assert kind_of(told) == ("rst" if protocol == TCP else "packet"), "a datagram opens what it needs"


def test_a_late_answer_is_no_connection_outside() -> None:
    world = world_with(nat_gateway())
    (told,) = world.send(pack_key(UDP, SERVER, 80, CLIENT, 5000), INTERNAL, mac=SERVER_MAC)
    assert kind_of(told) == "icmp3.3" and not len(world.table(GATEWAY_IP))


ANY = st.sampled_from([SERVER, OTHER, HOST, CLIENT, OUTSIDE, FIRST, SECOND, GATEWAY, GATEWAY_IP])
ANY_PORT = st.sampled_from([53, 80, 600, 5000, 8080])


ANY_FLAGS = st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK, RST])
ANY_PACKET = st.tuples(st.sampled_from([TCP, UDP]), ANY, ANY_PORT, ANY, ANY_PORT, ANY_FLAGS,
                       st.sampled_from([EXTERNAL, INTERNAL]))


@given(st.lists(ANY_PACKET, min_size=1, max_size=12), st.sampled_from(["lb-a", "lb-b"]))
def test_no_packet_ends_the_controller(sent, gateway_at) -> None:
    world = world_with(nat_gateway(load_balancer=gateway_at))
    for protocol, src, src_port, dst, dst_port, flags, port in sent:
        world.send(pack_key(protocol, src, src_port, dst, dst_port), port, flags)
    for serving in world.control.ground.external_ips:
        for entry in serving.table.entries():
            assert serving.outbound == bool(entry.inner_hop), "an outbound entry is a NAT gateway's, and no other is"


def test_a_kernel_takes_the_gateway_for_a_client_inside() -> None:
    """The copy `sockets`: who that is, the table tells."""
    world = world_with()
    key, sent = call(world)
    serving = world.control.ground.external_ips.by_address[SECOND]
    _, gateway, port, server, server_port = unpack_key(key_of(sent))

    def row(client: bytes, client_port: int) -> Row:
        carried = pack_key(TCP, client, client_port, SECOND, 80)
        return Row(carried, reply_key(carried, server, server_port), NO_HOP, 0)

    rows = _with_clients_inside(serving, [row(gateway, port), row(gateway, port + 1), row(CLIENT, 5000)])
    assert [found.key for found in rows] == [key, row(CLIENT, 5000).key]


# Faults of the networks, as with clients outside.

def test_a_client_inside_is_followed_to_another_mac(world) -> None:
    key, sent = call(world)
    ins, other = world.counter("packet_ins"), bytes.fromhex("0200000077aa")
    world.send(key, INTERNAL, ACK, mac=SERVER_MAC)
    assert world.counter("packet_ins") == ins, "the switch alone"
    (again,) = world.send(key, INTERNAL, ACK, mac=other)
    assert key_of(again) == key_of(sent) and world.counter("hops_followed") == 1
    (back,) = world.send(reply_to(sent), INTERNAL, ACK)
    assert (back.port, back.frame[:6]) == (INTERNAL, other)
    ins = world.counter("packet_ins")
    world.send(key, INTERNAL, ACK, mac=other)
    assert world.counter("packet_ins") == ins


@pytest.mark.parametrize("gateway_at", ["lb-a", "lb-b"])
def test_fragments_of_a_client_inside(gateway_at) -> None:
    """They open a connection, and find it; to the outside, too."""
    world = world_with(nat_gateway(load_balancer=gateway_at))
    for dst, port in ((SECOND, 53), (OUTSIDE, 443)):
        frame = datagram(SERVER, dst, 5000, port, bytes(range(200)), lb_mac(world), SERVER_MAC)
        for _ in range(2):
            sent = [item for piece in pieces(frame, 64) for item in world.through(piece, INTERNAL)]
            assert whole([item.frame[14:] for item in sent])[28:] == bytes(range(200))
            assert {item.port for item in sent} == {INTERNAL if dst == SECOND else EXTERNAL}
    assert not world.control.ground.astray, "who has sent it is right about its next hop"


@pytest.mark.parametrize("internal, pieces_each_way", [(1400, 2), (9000, 1)])
def test_what_is_too_large_for_the_internal_network(internal, pieces_each_way) -> None:
    """The limit of a client's answers is that of its own network; there may be none."""
    world = world_with(internal_mtu=internal)
    key, sent = call(world, UDP)
    for carried in (key, reply_to(sent)):
        _, src, src_port, dst, dst_port = unpack_key(carried)
        frame = datagram(src, dst, src_port, dst_port, bytes(1420), lb_mac(world), SERVER_MAC)
        found = world.through(patched(frame, {20: 0, 24: 0, 25: 0}), INTERNAL)
        assert [item.port for item in found] == [INTERNAL] * pieces_each_way
        assert sum(len(item.frame) - 34 for item in found) == 1428


def lb_mac(world: World) -> bytes:
    return bytes.fromhex(world.switches["lb-a"].ports[INTERNAL - 1].mac.replace(":", ""))
