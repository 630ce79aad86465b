"""What packets of sliced services meet: each the server that its slice says, and each answer the client's next hop,
whatever else there is of a packet."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries.access_table import Entry
from lbctl.frames import packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.openflow import cookies
from lbctl.openflow.cookies import Kind
from lbctl.openflow.messages import AddEntries, AddFlows, DeleteFlows
from lbctl.openflow.rules import ABSENT, SERVING, Role, all_flows
from lbctl.openflow.slice_rules import SliceState, client_flows, router_flow, slice_flows
from lbctl.site.model import Tunnel
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.protocols import TCP, UDP
from lbctl.values.slices import slice_of_port
from lbctl.values.transfer import TransferMode
from tests.unit import kinds
from tests.unit.fake_switch import METERS, FakeSwitch
from tests.unit.frames import datagram
from tests.unit.kinds import ADDRESSES, EXTERNAL_MAC, INTERNAL_MAC, NEIGHBOURS, PORTS, SLICED, TUNNEL

EXTERNAL, INTERNAL, TUNNELED = 1, 2, 3
FLAGS = (SYN, ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, 0)
STRANGER, SECOND_ROUTER = bytes.fromhex("020000000077"), bytes.fromhex("020000000f02")
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def router_mac(version: int) -> bytes:
    return bytes.fromhex(NEIGHBOURS[ADDRESSES[version][5]].replace(":", ""))


def lb(version: int, role: Role = SERVING, neighbours=NEIGHBOURS, others: tuple = ()) -> FakeSwitch:
    config, switch = SLICED[version], FakeSwitch("lb-a", 0xAA, "ext", "int", 5)
    switch.meters = dict(METERS)
    flows = [*all_flows([config], {config.address: role}, neighbours, PORTS), *kinds.slices(version), *others]
    switch.apply(AddFlows(tuple(flows)), 0.0)
    return switch


def frame(version: int, protocol: int, source: tuple, destination: tuple, macs: tuple[bytes, bytes],
          flags: int = ACK) -> bytes:
    """source, destination: address and port."""
    if protocol == UDP:
        return datagram(source[0].packed, destination[0].packed, source[1], destination[1], eth_dst=macs[0],
                        eth_src=macs[1])
    return packets.tcp_segment(*macs, source[0].packed, source[1], destination[0].packed, destination[1], flags=flags)


def from_client(version: int, port: int, protocol: int = TCP, flags: int = ACK, mac: bytes | None = None,
                service: int | None = None) -> bytes:
    config, source = SLICED[version], (ADDRESSES[version][0], port)
    to = (config.address, service or (80 if protocol == TCP else 53))
    return frame(version, protocol, source, to, (EXTERNAL_MAC, mac or router_mac(version)), flags)


def shown(events: list) -> list[Kind]:
    return [Kind(cookies.kind_of(int.from_bytes(event.arguments[0][16:24]))) for event in events]


@given(st.sampled_from([4, 6]), st.sampled_from([TCP, UDP]), st.integers(0, 0xFFFF), st.sampled_from(FLAGS))
def test_each_packet_goes_where_its_slice_says(version, protocol, port, flags) -> None:
    """As far as the slice has a server: no other bit of its port, and no flag of TCP changes that."""
    servers = SLICED[version].services[0].servers
    sent, events = lb(version).receive(from_client(version, port, protocol, flags), EXTERNAL, 0.0)
    number = slice_of_port(port)
    if number >= len(servers):
        assert not sent and (events or flags in (RST, RST | ACK, SYN | FIN) and protocol == TCP)
        return
    [found], packet = sent, packets.decode(sent[0].frame)
    assert not events and found.tunnel == ((TUNNEL.remote, TUNNEL.key) if servers[number].tunnel else None)
    assert (ip_address(packet.dst), packet.dst_port, packet.src_port) == (*servers[number].endpoint, port)
    hop = NEIGHBOURS[servers[number].hop.address if not servers[number].tunnel else servers[number].address]
    assert (packet.eth_src, packet.eth_dst, packet.ttl) == (INTERNAL_MAC, bytes.fromhex(hop.replace(":", "")), 63)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("protocol", [TCP, UDP], ids=["tcp", "udp"])
@VERSIONS
def test_an_answer_goes_by_the_router(version, protocol, flags) -> None:
    config = SLICED[version]
    for server in config.services[0].servers:
        tunnel: Tunnel | None = server.tunnel
        port = TUNNELED if tunnel else INTERNAL
        answer = frame(version, protocol, server.endpoint, (ADDRESSES[version][0], 40000), (INTERNAL_MAC, STRANGER),
                       flags)
        [sent], events = lb(version).receive(answer, port, 0.0, tunnel)
        packet = packets.decode(sent.frame)
        assert not events and sent.port == EXTERNAL
        assert (ip_address(packet.src), packet.src_port) == (config.address, 80 if protocol == TCP else 53)
        assert (packet.eth_src, packet.eth_dst, packet.ttl) == (EXTERNAL_MAC, router_mac(version), 63)


@VERSIONS
def test_a_client_that_is_known_is_answered_to_its_own_mac(version) -> None:
    client, server = ADDRESSES[version][0], SLICED[version].services[0].servers[0]
    switch = lb(version, others=client_flows(client, STRANGER.hex(":")))
    assert len(switch.receive(from_client(version, 0, mac=STRANGER), EXTERNAL, 0.0)[0]) == 1
    answer = frame(version, TCP, server.endpoint, (client, 40000), (INTERNAL_MAC, STRANGER))
    [sent], _ = switch.receive(answer, INTERNAL, 0.0)
    assert packets.decode(sent.frame).eth_dst == STRANGER


@VERSIONS
@pytest.mark.parametrize(("mac", "others", "seen"), [
    (STRANGER, (), [Kind.HOP]),
    (SECOND_ROUTER, (router_flow(SECOND_ROUTER.hex(":")),), []),
    (SECOND_ROUTER, (), [Kind.HOP]),
    (None, (), []),
])
def test_who_comes_from_elsewhere_is_served_and_shown(version, mac, others, seen) -> None:
    switch = lb(version, others=others)
    sent, events = switch.receive(from_client(version, 0, mac=mac), EXTERNAL, 0.0)
    assert len(sent) == 1 and shown(events) == seen
    if seen:
        assert packets.decode(events[0].arguments[0][42:]).eth_src == mac


@VERSIONS
def test_without_a_router_nobody_unknown_is_answered(version) -> None:
    neighbours = {address: mac for address, mac in NEIGHBOURS.items() if address != ADDRESSES[version][5]}
    switch, server = lb(version, neighbours=neighbours), SLICED[version].services[0].servers[0]
    answer = frame(version, TCP, server.endpoint, (ADDRESSES[version][0], 40000), (INTERNAL_MAC, STRANGER))
    assert switch.receive(answer, INTERNAL, 0.0) == ([], [])


@VERSIONS
def test_another_service_and_other_packets_go_by_the_access_table(version) -> None:
    switch = lb(version)
    for flags, kind in ((SYN, Kind.NEW), (ACK, Kind.STRAY)):
        assert shown(switch.receive(from_client(version, 0, flags=flags, service=81), EXTERNAL, 0.0)[1]) == [kind]
    other = frame(version, TCP, (ADDRESSES[version][2], 8181), (ADDRESSES[version][0], 40000), (INTERNAL_MAC, STRANGER))
    assert shown(switch.receive(other, INTERNAL, 0.0)[1]) == [Kind.STRAY]
    address, macs = SLICED[version].address, (INTERNAL_MAC, STRANGER)
    inside = frame(version, TCP, (ADDRESSES[version][4], 2), (address, 80), macs, SYN)
    assert shown(switch.receive(inside, INTERNAL, 0.0)[1]) == [Kind.NEW], "a client inside has an entry of its own"
    gateway = frame(version, TCP, SLICED[version].services[0].servers[0].endpoint, (SLICED[version].gateway, 2000),
                    (INTERNAL_MAC, STRANGER))
    assert shown(switch.receive(gateway, INTERNAL, 0.0)[1]) == [Kind.STRAY], "and its answers come to the gateway"


@VERSIONS
@pytest.mark.parametrize(("role", "wanted"), [
    (Role(TransferMode.TRANSITION), "served"), (Role(TransferMode.TRANSITION, arp=True), "served"), (ABSENT, "shown")])
def test_in_transition_there_is_nothing_to_hold(version, role, wanted) -> None:
    sent, events = lb(version, role).receive(from_client(version, 0, flags=SYN), EXTERNAL, 0.0)
    assert (len(sent), shown(events)) == ((1, []) if wanted == "served" else (0, [Kind.UNASSIGNED]))


def changing(version: int, state: SliceState, entries: tuple = ()) -> FakeSwitch:
    """The first slice of TCP is like that, the others are plain."""
    service, switch = SLICED[version].services[0], lb(version)
    plain = kinds.sliced(version, service, *(server.endpoint for server in service.servers))
    switch.apply(DeleteFlows(tuple(slice_flows(plain))), 0.0)
    switch.apply(AddFlows(tuple(slice_flows(plain._replace(slices=(state, *plain.slices[1:]))))), 0.0)
    switch.apply(AddEntries(entries), 0.0)
    return switch


def server_of(sent: list) -> tuple:
    [found] = sent
    packet = packets.decode(found.frame)
    return ip_address(packet.dst), packet.dst_port


@VERSIONS
@pytest.mark.parametrize("asking", [True, False])
def test_a_slice_whose_packets_are_looked_at_one_by_one(version, asking) -> None:
    """What has an entry goes by it, other packets to the default; SYNs come to the controller as long as it asks."""
    new, old = (server.endpoint for server in SLICED[version].services[0].servers[:2])
    key = pack_key(TCP, ADDRESSES[version][0].packed, 0x200, SLICED[version].address.packed, 80)
    entry = Entry(key, reply_key(key, new.address.packed, new.port), router_mac(version), 0.0)
    switch = changing(version, SliceState(new, old, by_entry=True, asking=asking), (entry,))
    assert server_of(switch.receive(from_client(version, 0x200), EXTERNAL, 0.0)[0]) == new
    assert server_of(switch.receive(from_client(version, 0x400), EXTERNAL, 0.0)[0]) == old
    sent, events = switch.receive(from_client(version, 0x400, flags=SYN), EXTERNAL, 0.0)
    assert (shown(events) == [Kind.NEW] and not sent) if asking else server_of(sent) == old
    assert server_of(switch.receive(from_client(version, 0x402, flags=SYN), EXTERNAL, 0.0)[0]) == old, "another slice"
    for port in (0x200, 0x400):
        answer = frame(version, TCP, (new if port == 0x200 else old), (ADDRESSES[version][0], port),
                       (INTERNAL_MAC, STRANGER))
        [sent], events = switch.receive(answer, INTERNAL, 0.0)
        packet = packets.decode(sent.frame)
        assert not events and (ip_address(packet.src), packet.src_port) == (SLICED[version].address, 80)
        assert packet.eth_dst == router_mac(version)


@VERSIONS
def test_a_slice_that_changes_hands_has_the_same_identity(version) -> None:
    """So that one flow-mod replaces the other, and no packet meets neither."""
    [config] = [SLICED[version]]
    first, second = (server.endpoint for server in config.services[0].servers[:2])
    slices = [list(kinds_of(version, (owner,))) for owner in (first, second, None)]
    assert slices[0][0].identity == slices[1][0].identity and slices[0][0].cookie != slices[1][0].cookie
    assert slices[0][0].identity not in {flow.identity for flow in slices[2]}
    switch = lb(version)
    switch.apply(DeleteFlows((slices[0][0],)), 0.0)
    assert shown(switch.receive(from_client(version, 0, flags=SYN), EXTERNAL, 0.0)[1]) == [Kind.NEW]


def kinds_of(version: int, owners: tuple) -> list:
    return list(slice_flows(kinds.sliced(version, SLICED[version].services[0], *owners)))
