"""What packets meet at an LB, for each kind of NAT, IPv4 and IPv6, TCP and UDP, on the network and through tunnels."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from lbctl.frames import discovery, icmp, packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.openflow import cookies
from lbctl.openflow.cookies import Kind
from lbctl.openflow.flow import CONTROLLER
from lbctl.openflow.hop_rules import hop_flow
from lbctl.openflow.messages import AddEntries, AddFlows, PacketOut
from lbctl.openflow.rules import ABSENT, SERVING, Role, all_flows
from lbctl.site.model import ExternalIp, Server, Service, Tunnel
from lbctl.values.keys import inverse_key, pack_key, unpack_key
from lbctl.values.owners import owner_of
from lbctl.values.protocols import ICMP, ICMPV6, TCP, UDP
from lbctl.values.side import Side
from lbctl.values.transfer import TransferMode
from tests.unit import kinds
from tests.unit.fake_switch import METERS, FakeSwitch, Sent
from tests.unit.frames import datagram, patched, with_extension
from tests.unit.kinds import (
    ADDRESSES,
    EXTERNAL_IPS,
    EXTERNAL_MAC,
    INSIDE_MAC,
    INTERNAL_MAC,
    NEIGHBOURS,
    PORTS,
    ROUTER_MAC,
    TUNNEL,
)

ROLES = {"normal": SERVING, "hold-unknown": Role(TransferMode.TRANSITION), "absent": ABSENT,
         "hold-all": Role(TransferMode.TRANSITION, hold_all=True, arp=True)}
ORDER = ("normal", "hold-unknown", "hold-all", "absent")
EVERY = [pytest.param(kind, version, id=f"{kind}-IPv{version}") for kind, version in EXTERNAL_IPS]
NOT_TUNNELED = [param for param in EVERY if "tunnel" not in param.id]
PROTOCOLS = pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
EXTERNAL, INTERNAL, TUNNELED = 1, 2, 3


def lb(kind: str, version: int, role: Role = SERVING, entries: tuple = ()) -> FakeSwitch:
    """It knows every external IP, and has that role for one; for the others none."""
    switch = FakeSwitch("lb-a", 0xAA, "ext", "int", 5)
    switch.meters = dict(METERS)
    roles = {EXTERNAL_IPS[kind, version].address: role}
    switch.apply(AddFlows(tuple(all_flows(EXTERNAL_IPS.values(), roles, NEIGHBOURS, PORTS))), 0.0)
    switch.apply(AddFlows((hop_flow(Side.EXTERNAL, ROUTER_MAC), hop_flow(Side.INTERNAL, INSIDE_MAC))), 0.0)
    switch.apply(AddEntries(entries), 0.0)
    return switch


def carrying(key: bytes, inward: bool, flags: int = ACK, **fields) -> bytes:
    """A frame to the LB whose packet carries that key."""
    protocol, source, source_port, destination, destination_port = unpack_key(key)
    macs = (EXTERNAL_MAC, ROUTER_MAC) if inward else (INTERNAL_MAC, INSIDE_MAC)
    if protocol == UDP:
        return datagram(source, destination, source_port, destination_port, eth_dst=macs[0], eth_src=macs[1], **fields)
    return packets.tcp_segment(*macs, source, source_port, destination, destination_port, flags=flags, **fields)


def key_of(frame: bytes) -> bytes:
    packet = packets.decode(frame)
    return pack_key(packet.protocol, packet.src, packet.src_port, packet.dst, packet.dst_port)


def inside(kind: str) -> tuple[int, Tunnel | None]:
    """How its servers' packets come in."""
    return (TUNNELED, TUNNEL) if kind.startswith("tunnel") else (INTERNAL, None)


def outcome(switch: FakeSwitch, frame: bytes, port: int, tunnel: Tunnel | None = None) -> str:
    """delivered, answered (by the port that it came by), dropped, or the kind of the flow that shows it to the
    controller."""
    sent, events = switch.receive(frame, port, 0.0, tunnel)
    words = [("answered" if item.port == port else "delivered") for item in sent]
    words += [Kind(cookies.kind_of(int.from_bytes(event.arguments[0][16:24]))).name for event in events]
    return "+".join(words) or "dropped"


def outcomes(
    kind: str, version: int, frame: bytes, port: int, tunnel: Tunnel | None = None, entries: tuple = ()
) -> str:
    """In the roles of ORDER."""
    return " ".join(outcome(lb(kind, version, ROLES[role], entries), frame, port, tunnel) for role in ORDER)


# Connections.

@PROTOCOLS
@pytest.mark.parametrize("kind, version", EVERY)
def test_a_connection_is_translated_both_ways(kind, version, protocol) -> None:
    entry, (port, tunnel) = kinds.entry(kind, version, protocol), inside(kind)
    switch = lb(kind, version, entries=(entry,))
    (sent,), events = switch.receive(carrying(entry.key, True), EXTERNAL, 0.0)
    assert not events and sent.port == port
    assert sent.tunnel == ((tunnel.remote, tunnel.key) if tunnel else None)
    packet = packets.decode(sent.frame)
    assert key_of(sent.frame) == inverse_key(entry.reply)
    hop = entry.inner_hop or bytes.fromhex(NEIGHBOURS[ip_address(packet.dst)].replace(":", ""))
    assert (packet.eth_src, packet.eth_dst, packet.ttl) == (INTERNAL_MAC, hop, 63)

    (sent,), events = switch.receive(carrying(entry.reply, False), port, 0.0, tunnel)
    assert not events and sent.port == EXTERNAL and sent.tunnel is None
    packet = packets.decode(sent.frame)
    assert key_of(sent.frame) == inverse_key(entry.key)
    assert (packet.eth_src, packet.eth_dst, packet.ttl) == (EXTERNAL_MAC, entry.next_hop, 63)


@PROTOCOLS
@pytest.mark.parametrize("kind, version", EVERY)
def test_where_packets_of_a_connection_go(kind, version, protocol) -> None:
    entry, (port, tunnel) = kinds.entry(kind, version, protocol), inside(kind)
    known, unknown = "delivered delivered HOLD UNASSIGNED", "STRAY HOLD HOLD UNASSIGNED"
    opens = {True: "NEW HOLD HOLD UNASSIGNED" if kind != "nat-gateway" else unknown,
             False: "NEW HOLD HOLD UNASSIGNED" if kind == "nat-gateway" else unknown}
    for inward, key, way in ((True, entry.key, (EXTERNAL, None)), (False, entry.reply, (port, tunnel))):
        assert outcomes(kind, version, carrying(key, inward), *way, entries=(entry,)) == known
        # Any datagram opens a connection; of segments only a SYN.
        assert outcomes(kind, version, carrying(key, inward), *way) == (opens[inward] if protocol == UDP else unknown)
    if protocol == UDP:
        return
    for inward, key, way in ((True, entry.key, (EXTERNAL, None)), (False, entry.reply, (port, tunnel))):
        assert outcomes(kind, version, carrying(key, inward, SYN), *way) == opens[inward]
        assert outcomes(kind, version, carrying(key, inward, SYN | ACK), *way) == unknown
        assert outcomes(kind, version, carrying(key, inward, FIN | ACK), *way, entries=(entry,)) == known
        assert outcomes(kind, version, carrying(key, inward, RST), *way, entries=(entry,)) == (
            "delivered+RESET delivered+RESET HOLD UNASSIGNED")
        assert outcomes(kind, version, carrying(key, inward, RST), *way) == "dropped HOLD HOLD UNASSIGNED"


@pytest.mark.parametrize("kind, version", EVERY)
def test_a_new_connection_goes_on_through_the_access_table(kind, version) -> None:
    """The controller sends the packet that opened it through the table that has just got its entry."""
    entry, (port, _) = kinds.entry(kind, version), inside(kind)
    inward = kind != "nat-gateway"
    frame = carrying(entry.opening_key, inward, SYN)
    message = PacketOut(frame, EXTERNAL if inward else port, "access_in" if inward else "access_out")
    sent, events = lb(kind, version, entries=(entry,)).apply(message, 0.0)
    assert not events and [item.port for item in sent] == [port if inward else EXTERNAL]
    assert lb(kind, version).apply(message, 0.0) == ([], []), (
        "without its entry it is dropped, and the sender asks again"
    )


@pytest.mark.parametrize("kind, version", NOT_TUNNELED)
def test_packets_of_strangers_are_dropped(kind, version) -> None:
    entry = kinds.entry(kind, version)
    protocol, client, client_port, _, _ = unpack_key(entry.key)
    stranger, other = (ip_address(text).packed for text in (
        ("10.0.0.99", "198.51.100.77") if version == 4 else ("fd00::99", "2001:db8::77")))
    for frame, port in (
        (carrying(pack_key(protocol, client, client_port, other, 80), True), EXTERNAL),
        (carrying(pack_key(protocol, stranger, 8080, client, client_port), False), INTERNAL),
        (patched(carrying(entry.key, True), {5: 0x99}), EXTERNAL),
        (carrying(entry.key, True), INTERNAL),
    ):
        assert outcomes(kind, version, frame, port, entries=(entry,)) == "dropped dropped dropped dropped"


@PROTOCOLS
@pytest.mark.parametrize("kind, version", EVERY)
def test_the_end_of_a_ttl_is_shown_to_the_controller(kind, version, protocol) -> None:
    entry, (port, tunnel) = kinds.entry(kind, version, protocol), inside(kind)
    switch = lb(kind, version, entries=(entry,))
    for ttl in (0, 1):
        assert outcome(switch, carrying(entry.key, True, ttl=ttl), EXTERNAL) == "EXPIRED"
        assert outcome(switch, carrying(entry.reply, False, ttl=ttl), port, tunnel) == "EXPIRED"


@pytest.mark.parametrize("kind, version", EVERY)
def test_fragments_are_shown_to_the_controller(kind, version) -> None:
    entry, (port, tunnel) = kinds.entry(kind, version), inside(kind)
    for frame, way in ((carrying(entry.key, True), (EXTERNAL, None)), (carrying(entry.reply, False), (port, tunnel))):
        pieces = [with_extension(frame, 44)] if version == 6 else [
            patched(frame, {20: first, 21: second}) for first, second in ((0x20, 0), (0x20, 5), (0, 5))]
        for piece in pieces:
            assert outcomes(kind, version, piece, *way, entries=(entry,)) == "FRAGMENT FRAGMENT FRAGMENT FRAGMENT"


# ICMP.

def echo(version: int, src: bytes, dst: bytes, inward: bool, reply: bool = False) -> bytes:
    macs = (EXTERNAL_MAC, ROUTER_MAC) if inward else (INTERNAL_MAC, INSIDE_MAC)
    kind = {(4, False): 8, (4, True): 0, (6, False): 128, (6, True): 129}[version, reply]
    return icmp.message(*macs, src, dst, kind, 0, 0x12340001, b"ping", ttl=9)


@pytest.mark.parametrize("kind, version", NOT_TUNNELED)
def test_ping_is_answered_in_the_switch(kind, version) -> None:
    config, client = EXTERNAL_IPS[kind, version], ADDRESSES[version][0].packed
    # Only who may send to the inner side of an external IP at all gets an answer there.
    asker = ADDRESSES[version][4 if kind == "nat-gateway" else 2].packed
    for source, address, inward in (
        (client, config.address, True),
        *((asker, inner, False) for inner in config.internal_addresses()),
    ):
        frame, port = echo(version, source, address.packed, inward), EXTERNAL if inward else INTERNAL
        assert outcomes(kind, version, frame, port) == "answered answered answered UNASSIGNED"
        (sent,), _ = lb(kind, version).receive(frame, port, 0.0)
        packet = packets.decode(sent.frame)
        own, other = (EXTERNAL_MAC, ROUTER_MAC) if inward else (INTERNAL_MAC, INSIDE_MAC)
        assert (packet.eth_dst, packet.eth_src, packet.src, packet.dst, packet.ttl) == (
            other,
            own,
            address.packed,
            source,
            64,
        )
        start = packet.payload_offset
        assert sent.frame[start] == (0 if version == 4 else 129)
        assert sent.frame[start + 4:] == frame[start + 4:], "identifier, number and data are the request's"


@pytest.mark.parametrize("kind, version", NOT_TUNNELED)
def test_echo_through_a_nat_gateway_is_for_the_controller(kind, version) -> None:
    config, outside, host = EXTERNAL_IPS[kind, version], ADDRESSES[version][0].packed, ADDRESSES[version][4].packed
    going, coming = echo(version, host, outside, False), echo(version, outside, config.address.packed, True, reply=True)
    if kind == "nat-gateway":
        assert outcomes(kind, version, going, INTERNAL) == "TRANSLATE_ICMP HOLD HOLD UNASSIGNED"
        assert outcomes(kind, version, coming, EXTERNAL) == "TRANSLATE_ICMP HOLD HOLD UNASSIGNED"
    else:
        assert outcomes(kind, version, coming, EXTERNAL) == "dropped HOLD HOLD UNASSIGNED"


@pytest.mark.parametrize("kind, version", EVERY)
def test_icmp_errors_are_for_the_controller_in_any_role(kind, version) -> None:
    entry = kinds.entry(kind, version)
    for key, inward, way in ((entry.key, True, (EXTERNAL, None)), (entry.reply, False, inside(kind))):
        # Its receiver complains about a packet that the LB has sent.
        packet = carrying(inverse_key(key), inward)
        for error in (icmp.HOST_UNREACHABLE, icmp.TTL_EXPIRED, icmp.too_big(1300)):
            told = packet[:12] + icmp.error(packet, error, ROUTER_MAC, unpack_key(key)[1])[12:]
            assert outcomes(kind, version, told, *way) == "TRANSLATE_ICMP TRANSLATE_ICMP TRANSLATE_ICMP TRANSLATE_ICMP"


def test_other_icmp_is_dropped() -> None:
    for version in (4, 6):
        client, address = ADDRESSES[version][0].packed, EXTERNAL_IPS["destination", version].address.packed
        frame = icmp.message(EXTERNAL_MAC, ROUTER_MAC, client, address, 13 if version == 4 else 139, 0, 0, b"")
        assert packets.decode(frame).protocol == (ICMP if version == 4 else ICMPV6)
        assert outcome(lb("destination", version), frame, EXTERNAL) == "dropped"


# Who is meant.

def test_a_server_of_two_external_ips_is_told_by_the_internal_ip() -> None:
    server = Server(ADDRESSES[4][2], 80)
    first, second = (
        ExternalIp(
            ip_address(f"198.51.100.{n}"),
            "lb-a",
            None,
            "full",
            (Service("tcp", 80, servers=(server,)),),
            internal_ips=(ip_address(f"10.0.0.10{n}"),),
        )
        for n in (1, 2)
    )
    switch = FakeSwitch("lb-a", 0xAA, "ext", "int", 5)
    switch.meters = dict(METERS)
    switch.apply(AddFlows(tuple(all_flows([first, second], {first.address: SERVING}, NEIGHBOURS, PORTS))), 0.0)
    for config, expected in ((first, "STRAY"), (second, "UNASSIGNED")):
        key = pack_key(TCP, server.address.packed, 80, config.internal_ips[0].packed, 1024)
        assert outcome(switch, carrying(key, False), INTERNAL) == expected


def test_an_inside_host_that_is_a_server_keeps_to_its_external_ip() -> None:
    """The gateway's prefix holds the server of destination NAT, and the internal IPs of full NAT."""
    gateway = replace(EXTERNAL_IPS["nat-gateway", 4], inside=(ip_network("10.0.0.0/24"),))
    others = [EXTERNAL_IPS["destination", 4], EXTERNAL_IPS["full", 4]]
    for serving, expected in ((gateway, {"server": "UNASSIGNED", "inner": "UNASSIGNED", "host": "NEW"}),
                              (others[0], {"server": "STRAY", "inner": "UNASSIGNED", "host": "UNASSIGNED"}),
                              (others[1], {"server": "UNASSIGNED", "inner": "STRAY", "host": "UNASSIGNED"})):
        switch = FakeSwitch("lb-a", 0xAA, "ext", "int", 5)
        switch.meters = dict(METERS)
        switch.apply(AddFlows(tuple(all_flows([gateway, *others], {serving.address: SERVING}, NEIGHBOURS, PORTS))), 0.0)
        client, server, host = (ADDRESSES[4][place].packed for place in (0, 2, 4))
        keys = {"server": pack_key(TCP, server, 5000, client, 443), "host": pack_key(TCP, host, 5000, client, 443),
                "inner": pack_key(TCP, server, 8080, others[1].internal_ips[0].packed, 1024)}
        assert {name: outcome(switch, carrying(key, False, SYN), INTERNAL) for name, key in keys.items()} == expected


# Tunnels.

@pytest.mark.parametrize("kind", ["tunnel", "tunnel-full"])
def test_a_tunnel_is_believed_about_its_own_servers_only(kind) -> None:
    entry = kinds.entry(kind, 4)
    switch, frame = lb(kind, 4, entries=(entry,)), carrying(entry.reply, False)
    assert outcome(switch, frame, TUNNELED, TUNNEL) == "delivered"
    for port, tunnel in (
        (TUNNELED, replace(TUNNEL, key=78)),
        (TUNNELED, replace(TUNNEL, remote=ip_address("198.18.2.10"))),
        (TUNNELED, None),
    ):
        assert outcome(switch, frame, port, tunnel) == "dropped"
    assert outcome(switch, frame, INTERNAL) == ("dropped" if kind == "tunnel" else "delivered"), (
        "an internal IP's network is trusted"
    )
    network = kinds.entry("destination", 4)
    assert (
        outcome(lb("destination", 4, entries=(network,)), carrying(network.reply, False), TUNNELED, TUNNEL) == "dropped"
    )


@pytest.mark.parametrize("kind", ["tunnel", "tunnel-full"])
def test_what_is_larger_than_the_tunnel_is_shown_to_the_controller(kind) -> None:
    entry = kinds.entry(kind, 4)
    switch, head = lb(kind, 4, entries=(entry,)), len(carrying(entry.key, True))
    for size, expected in ((14 + TUNNEL.mtu, "delivered"), (14 + TUNNEL.mtu + 1, "TOO_BIG")):
        assert outcome(switch, carrying(entry.key, True, payload=bytes(size - head)), EXTERNAL) == expected


@pytest.mark.parametrize("kind", ["tunnel", "tunnel-full"])
def test_arp_through_a_tunnel_is_answered_through_it(kind) -> None:
    address = EXTERNAL_IPS[kind, 4].internal_addresses()[0]
    request = packets.arp_announcement(INSIDE_MAC, ADDRESSES[4][2].packed)[:38] + address.packed
    (sent,), events = lb(kind, 4).receive(request, TUNNELED, 0.0, TUNNEL)
    assert not events and (sent.port, sent.tunnel) == (TUNNELED, (TUNNEL.remote, TUNNEL.key))
    assert packets.decode_arp(sent.frame).sha == INTERNAL_MAC
    assert lb(kind, 4).receive(request, TUNNELED, 0.0, replace(TUNNEL, key=1)) == ([], [])


# Neighbour discovery.

def solicitation(target: bytes, source: bytes = ADDRESSES[6][2].packed, hop_limit: int = 255) -> bytes:
    """RFC 4861 4.3; without a source it has no option (duplicate address detection)."""
    group = bytes.fromhex("ff0200000000000000000001ff") + target[13:]
    option = b"\1\1" + INSIDE_MAC if any(source) else b""
    return icmp.message(
        discovery.multicast_mac(group), INSIDE_MAC, source, group, 135, 0, 0, target + option, ttl=hop_limit
    )


@pytest.mark.parametrize("kind", ["destination", "full", "nat-gateway"])
@pytest.mark.parametrize(
    "role, answers", [("normal", True), ("hold-all", True), ("hold-unknown", False), ("absent", False)]
)
def test_solicitations_are_answered_by_who_announces(kind, role, answers) -> None:
    config, switch = EXTERNAL_IPS[kind, 6], lb(kind, 6, ROLES[role])
    inner = [(address, INTERNAL, INTERNAL_MAC) for address in config.internal_addresses()]
    for address, port, mac in ((config.address, EXTERNAL, EXTERNAL_MAC), *inner):
        sent, events = switch.receive(solicitation(address.packed), port, 0.0)
        assert not events and bool(sent) == answers
        if not sent:
            continue
        packet = packets.decode(sent[0].frame)
        assert (packet.eth_dst, packet.eth_src, packet.src, packet.dst, packet.ttl) == (
            INSIDE_MAC, mac, address.packed, ADDRESSES[6][2].packed, 255)
        assert discovery.decode(sent[0].frame) == (address.packed, mac) and sent[0].port == port
        flags = int.from_bytes(sent[0].frame[58:62])
        assert flags == discovery.SOLICITED | discovery.OVERRIDE | (
            discovery.ROUTER if address == config.gateway else 0
        )
        assert switch.receive(solicitation(address.packed), EXTERNAL + INTERNAL - port, 0.0) == ([], []), (
            "not on the other side"
        )
        assert switch.receive(solicitation(address.packed, hop_limit=64), port, 0.0) == ([], []), (
            "a router has forwarded it"
        )


def test_who_is_about_to_take_an_address_is_told_that_it_is_taken() -> None:
    """RFC 4862 5.4.3; everyone hears it, since the asker has no address yet."""
    address = EXTERNAL_IPS["destination", 6].address.packed
    (sent,), _ = lb("destination", 6).receive(solicitation(address, source=bytes(16)), EXTERNAL, 0.0)
    packet = packets.decode(sent.frame)
    assert (packet.eth_dst, packet.dst, packet.src) == (
        discovery.multicast_mac(discovery.ALL_NODES),
        discovery.ALL_NODES,
        address,
    )
    assert int.from_bytes(sent.frame[58:62]) == discovery.OVERRIDE


def test_advertisements_of_next_hops_are_for_the_controller() -> None:
    """Those that answer the LB's own probes, and those that a known next hop sends unasked."""
    switch, server, stranger = lb("destination", 6), ADDRESSES[6][2].packed, ip_address("fd00::77").packed
    told = discovery.announcements(INSIDE_MAC, server, False)[0]
    assert outcome(switch, told, INTERNAL) == "SERVER_ARP"
    assert outcome(switch, discovery.announcements(INSIDE_MAC, stranger, False)[0], INTERNAL) == "dropped"
    assert (
        outcome(switch, INTERNAL_MAC + discovery.announcements(INSIDE_MAC, stranger, False)[0][6:], INTERNAL)
        == "SERVER_ARP"
    )


# All kinds at once.

@pytest.mark.parametrize("role", ORDER)
def test_all_kinds_fit_into_one_lb(role) -> None:
    flows = all_flows(
        EXTERNAL_IPS.values(), {config.address: ROLES[role] for config in EXTERNAL_IPS.values()}, NEIGHBOURS, PORTS
    )
    assert len({item.identity for item in flows}) == len(flows)
    for item in flows:
        assert (item.meter is not None) == (CONTROLLER in item.actions), item.text()
        assert cookies.kind_of(item.cookie) in set(Kind)
        assert cookies.owner_in(item.cookie) in {
            0,
            *(owner_of(config.address.packed) for config in EXTERNAL_IPS.values()),
        }


@pytest.mark.parametrize("kind, version", EVERY)
def test_an_entry_is_the_same_on_every_lb(kind, version) -> None:
    for protocol in (TCP, UDP):
        entry = kinds.entry(kind, version, protocol)
        switch = lb(kind, version, entries=(entry,))
        assert switch.entries(EXTERNAL_IPS[kind, version].address) == {entry.key: {"access_in", "access_out"}}
        for item in switch.flows():
            if item.entry:
                assert not any(port.mac in item.flow.text() for port in (PORTS.external, PORTS.internal))


def test_only_frames_of_one_kind_leave() -> None:
    """No LB that is absent sends anything by itself."""
    for kind, version in EXTERNAL_IPS:
        entry, (port, tunnel) = kinds.entry(kind, version), inside(kind)
        switch = lb(kind, version, ABSENT, (entry,))
        sent: list[Sent] = []
        for frame, way in (
            (carrying(entry.key, True), (EXTERNAL, None)),
            (carrying(entry.reply, False), (port, tunnel)),
        ):
            sent += switch.receive(frame, way[0], 0.0, way[1])[0]
        assert not sent
