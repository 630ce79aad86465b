"""Our bytes against Ryu's encoder and parser, and our decoders against any bytes."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbctl.entries.access_table import Entry, Shape
from lbctl.ground.effects import Save
from lbctl.openflow import inbound
from lbctl.openflow import messages as m
from lbctl.openflow.cookies import MARK, Kind, entry_cookie
from lbctl.openflow.delivery_rules import delivery_flows
from lbctl.openflow.entry_flows import entry_flows
from lbctl.openflow.flow import Flow
from lbctl.openflow.layout import SHAPES, stats_layout
from lbctl.openflow.outbound import EntryCodec, packet_out
from lbctl.openflow.ports import Port, Ports
from lbctl.openflow.rules import Role, all_flows
from lbctl.openflow.slice_rules import Sliced, SliceState, slice_flows
from lbctl.openflow.tables import number
from lbctl.site.model import Hop
from lbctl.store import State
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import pack_key, reply_key, unpack_key
from lbctl.values.side import EXTERNAL, Side
from lbctl.values.transfer import TransferMode
from ryu_apps.library.names import ofp as ofproto_v1_4
from ryu_apps.library.names import parser as ofproto_v1_4_parser
from ryu_apps.library.openflow import encode
from ryu_apps.shell.wire import XID_MARK, token_of
from tests.unit import fake_switch, kinds
from tests.unit.fake_site import site
from tests.unit.fake_switch import FakeSwitch, Installed

PORTS = Ports(Port(1, "02:00:00:00:aa:01"), Port(2, "02:00:00:00:aa:02"))
LINGER = 5
CODEC = EntryCodec(LINGER)


class Datapath:
    """As much of Ryu's Datapath as its encoder looks at."""

    ofproto, ofproto_parser = ofproto_v1_4, ofproto_v1_4_parser


numbers = st.integers(0, 0xFFFF)
macs = st.binary(min_size=6, max_size=6)


def entries_of(shape: Shape) -> st.SearchStrategy[Entry]:
    """Any entry of that shape."""
    size = 4 if shape.version == 4 else 16
    address = st.binary(min_size=size, max_size=size)

    def build(
        client, port, external, external_port, server, server_port, internal, internal_port, hop, inner_hop
    ) -> Entry:
        key = pack_key(shape.protocol, client, port, external, external_port)
        reply = (pack_key(shape.protocol, server, server_port, internal, internal_port) if shape.full
                 else reply_key(key, server, server_port))
        return Entry(key, reply, hop, 0.0, inner_hop=inner_hop if shape.inner_hop else b"")

    made = st.builds(build, address, numbers, address, numbers, address, numbers, address, numbers, macs, macs)
    return made.filter(lambda entry: entry.shape == shape)


entries = st.sampled_from(SHAPES).flatmap(entries_of)


def entry_of(shape: Shape) -> Entry:
    """One entry of that shape."""
    client, external, server, internal = (ip_address(text).packed for text in (
        ("203.0.113.9", "198.51.100.1", "10.0.0.11", "10.0.0.101") if shape.version == 4 else
        ("2001:db8:c::9", "2001:db8::1", "fd00::11", "fd00::101")))
    key = pack_key(shape.protocol, client, 40001, external, 80)
    reply = pack_key(shape.protocol, server, 8080, internal, 1024) if shape.full else reply_key(key, server, 8080)
    return Entry(
        key,
        reply,
        bytes.fromhex("02000000c0fe"),
        0.0,
        inner_hop=bytes.fromhex("02000000aa01") if shape.inner_hop else b"",
    )


def one_entry() -> Entry:
    return entry_of(SHAPES[0])


def words(shape: Shape) -> str:
    """For the names of tests."""
    nat = "full" if shape.full else "outbound" if shape.inner_hop else "destination"
    return f"IPv{shape.version}-{'tcp' if shape.protocol == 6 else 'udp'}-{nat}"


def test_there_are_all_shapes() -> None:
    assert len(SHAPES) == len(set(SHAPES)) == 12
    assert [entry_of(shape).shape for shape in SHAPES] == list(SHAPES)


def split(data: bytes) -> list[bytes]:
    """The OpenFlow messages in a row of them."""
    found = []
    while data:
        size = struct.unpack_from("!H", data, 2)[0]
        found.append(data[:size])
        data = data[size:]
    return found


def body(flow_mod: bytes) -> tuple:
    """What a flow-mod says, by Ryu's parser, its xid left out; the match as a dict, since its order is free."""
    mod = ofproto_v1_4_parser.OFPFlowMod.parser(Datapath, 5, 14, len(flow_mod), 0, bytearray(flow_mod))
    instructions = [part.to_jsondict() for part in mod.instructions]
    return (
        mod.cookie,
        mod.cookie_mask,
        mod.table_id,
        mod.command,
        mod.priority,
        mod.flags,
        mod.buffer_id,
        mod.out_port,
        mod.out_group,
        mod.idle_timeout,
        mod.hard_timeout,
        dict(mod.match.items()),
        instructions,
    )


# Entries.

@pytest.mark.parametrize("shape", SHAPES, ids=words)
def test_each_shape_says_what_the_pipeline_says(shape) -> None:
    entry = entry_of(shape)
    theirs = split(encode(m.AddFlows(entry_flows(entry, LINGER)), CODEC))
    assert list(map(body, split(CODEC.add(entry)))) == list(map(body, theirs))
    assert entry.shape == shape


@given(entries)
def test_an_added_entry_says_what_the_pipeline_says(entry) -> None:
    ours = split(CODEC.add(entry))
    theirs = split(encode(m.AddFlows(entry_flows(entry, LINGER)), CODEC))
    assert list(map(body, ours)) == list(map(body, theirs))
    assert list(map(len, ours)) == list(map(len, theirs))


@given(st.lists(entries, min_size=1, max_size=3))
def test_a_deleted_entry_says_what_the_pipeline_says(some) -> None:
    """Only less strictly: a flow with an entry's match is the entry's, whatever its cookie."""
    def where(mod: tuple) -> tuple:
        _, _, table, command, priority, *_, match, instructions = mod
        return table, command, priority, match, instructions

    ours = list(map(body, split(CODEC.delete(some))))
    theirs = [body(message) for entry in some
              for message in split(encode(m.DeleteFlows(entry_flows(entry, LINGER)), CODEC))]
    assert list(map(where, ours)) == list(map(where, theirs))
    assert {mod[1] for mod in ours} == {0}


@given(st.lists(entries, min_size=1, max_size=5))
def test_a_bundle_holds_the_same_flow_mods(some) -> None:
    xid = XID_MARK | 77
    opened, *adds, commit = split(CODEC.bundle(some, xid))
    for message, kind in ((opened, 0), (commit, 4)):
        assert struct.unpack("!BBHIIHH", message) == (5, 33, 16, xid, xid, kind, 3)
    inner = []
    for message in adds:
        parsed = struct.unpack_from("!BBHIIHH", message)
        assert parsed[:2] + parsed[3:] == (5, 34, xid, xid, 0, 3)
        assert struct.unpack_from("!I", message, 20)[0] == xid, (
            "OVS wants the inner message to have its bundle-add's xid"
        )
        inner.append(body(message[16:]))
    alone = [body(message) for entry in some for message in split(CODEC.add(entry))]
    assert sorted(inner, key=repr) == sorted(alone, key=repr)
    assert [mod[2] for mod in inner] == [20] * len(some) + [21] * len(some)


def test_a_bundle_of_all_shapes() -> None:
    some = [entry_of(shape) for shape in SHAPES for _ in range(3)]
    messages = split(CODEC.bundle(some, 7))
    assert len(messages) == 2 + 2 * len(some)
    assert {body(message[16:])[0] for message in messages[1:-1]} == {
        flow.cookie for entry in some for flow in entry_flows(entry, LINGER)
    }


def test_entries_are_sent_by_the_codec() -> None:
    some = (one_entry(), one_entry())
    assert encode(m.AddEntries(some), CODEC) == CODEC.add(some[0]) * 2
    assert encode(m.AddEntries(some, 5), CODEC) == CODEC.bundle(some, XID_MARK | 5)
    assert encode(m.DeleteEntries(some), CODEC) == CODEC.delete(some)


# Everything else that is sent.

@pytest.mark.parametrize("role", [Role(TransferMode.NORMAL, arp=True), Role(TransferMode.TRANSITION),
                                  Role(TransferMode.TRANSITION, hold_all=True), Role()])
def test_every_flow_of_the_pipeline_can_be_encoded(role) -> None:
    external_ips = kinds.EXTERNAL_IPS.values()
    flows = all_flows(external_ips, {ip.address: role for ip in external_ips}, kinds.NEIGHBOURS, kinds.PORTS)
    mods = [body(message) for message in split(encode(m.AddFlows(tuple(flows)), CODEC))]
    for flow, mod in zip(flows, mods, strict=True):
        assert (mod[0], mod[2], mod[4]) == (flow.cookie, number(flow.table), flow.priority), flow.text()
        assert len(mod[11]) == len(flow.match), flow.text()
        assert {name.removesuffix("_nxm") for name in mod[11]} == {name for name, _ in flow.match}
        goto = [part["OFPInstructionGotoTable"]["table_id"] for part in mod[12] if "OFPInstructionGotoTable" in part]
        assert goto == ([number(flow.goto)] if flow.goto else []), flow.text()
    deletes = [body(message) for message in split(encode(m.DeleteFlows(tuple(flows)), CODEC))]
    assert {mod[1] for mod in deletes} == {(1 << 64) - 1}, "deleted by cookie as well"
    assert {mod[3] for mod in deletes} == {ofproto_v1_4.OFPFC_DELETE_STRICT}


def test_prefixes_are_encoded_with_their_mask() -> None:
    gateway = replace(
        kinds.EXTERNAL_IPS["nat-gateway", 4], inside=(ip_network("10.0.0.192/26"), ip_network("fd00:1::/64"))
    )
    flows = [flow for flow in all_flows([gateway], {}, {}, PORTS)
             if flow.table == "transfer_mode" and any("/" in str(value) for _, value in flow.match)]
    found = [dict(body(message)[11]) for message in split(encode(m.AddFlows(tuple(flows)), CODEC))]
    assert [match.get("ipv4_src") or match.get("ipv6_src") for match in found] == [
        ("10.0.0.192", "255.255.255.192"), ("fd00:1::", "ffff:ffff:ffff:ffff::")]


def statistics_of(flow: Flow, packets: int) -> bytes:
    """A whole record: match and instructions are those of the flow-mod that adds it."""
    rest = encode(m.AddFlows((flow,)), CODEC)[48:]
    return struct.pack("!HB9xH10xQQQ", 48 + len(rest), number(flow.table), flow.priority, flow.cookie, packets,
                       100 * packets) + rest


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("affinity", ["connection", "client"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_slices_have_carried(version: int, affinity: str, protocol: str) -> None:
    owner = Endpoint(ip_address("10.0.0.11" if version == 4 else "fd00::11"), 80)
    service = replace(kinds.SLICED[version].services[0], affinity=affinity, protocol=protocol, port=8053)
    sliced = Sliced(kinds.SLICED[version].address, service, (SliceState(owner, owner, True, True),) * 256, frozenset())
    flows = [flow for flow in slice_flows(sliced) if flow.table == "slices_in"]
    data = b"".join(statistics_of(flow, packets) for packets, flow in enumerate(flows))
    found = list(inbound.decode_slice_stats(data))
    assert [stats.packets for stats in found] == list(range(3 * 256)) and len({each[:2] for each in found}) == 3 * 256
    assert {stats[2:4] for stats in found} == {(6 if protocol == "tcp" else 17, 8053)}
    assert [stats.number for stats in found] == [number for number in range(256) for _ in range(3)]


@given(st.binary(max_size=80), st.integers(1, 0xFFFFFF00), st.one_of(st.integers(1, 100), st.just(m.OUTPUT_TABLE)))
def test_packet_out_as_ryu_would_pack_it(frame, in_port, output) -> None:
    port = ofproto_v1_4.OFPP_TABLE if output == m.OUTPUT_TABLE else output
    theirs = ofproto_v1_4_parser.OFPPacketOut(Datapath, ofproto_v1_4.OFP_NO_BUFFER, in_port,
                                              [ofproto_v1_4_parser.OFPActionOutput(port, 0xFFFF)], frame)
    theirs.set_xid(9)
    theirs.serialize()
    assert packet_out(m.PacketOut(frame, in_port, output), 9) == bytes(theirs.buf)


def test_packet_out_through_one_table() -> None:
    theirs = ofproto_v1_4_parser.OFPPacketOut(Datapath, ofproto_v1_4.OFP_NO_BUFFER, 1, [
        ofproto_v1_4_parser.NXActionResubmitTable(0xFFF8, number("access_in"))], b"frame")
    theirs.set_xid(9)
    theirs.serialize()
    assert packet_out(m.PacketOut(b"frame", 1, "access_in"), 9) == bytes(theirs.buf)


@pytest.mark.parametrize("message, kinds", [
    (m.Configure(), [28]), (m.SetMeter(1, 100, 50), [29, 29]), (m.Barrier(3), [20]),
    (m.ReadFlows("access_in", 1, 2, 3), [18]), (m.ReadFlows(None, 1, 2, 3), [18]), (m.DeleteCookie("arp", 1, 2), [14])])
def test_other_messages(message, kinds) -> None:
    packed = split(encode(message, CODEC))
    assert [item[1] for item in packed] == kinds
    tokens = {token_of(struct.unpack_from("!I", item, 4)[0]) for item in packed}
    assert tokens == {getattr(message, "token", 0)}


def test_what_is_not_for_a_switch_is_refused() -> None:
    with pytest.raises(TypeError, match="not for a switch"):
        encode(Save(State), CODEC)


def test_tokens() -> None:
    assert token_of(XID_MARK | 0xABCDEF) == 0xABCDEF
    assert token_of(0x4D000001) is None


# What switches send.

OUR_COOKIES = st.builds(
    lambda kind, rest: MARK << 56 | kind << 48 | rest, st.sampled_from(Kind), st.integers(0, (1 << 48) - 1)
)


@given(
    st.one_of(st.integers(0, (1 << 64) - 1), OUR_COOKIES),
    st.integers(0, 0xFFFFFFFF),
    st.binary(max_size=100),
    st.integers(0, 5),
)
def test_packet_in(cookie, in_port, frame, reason) -> None:
    message = fake_switch.packet_in(cookie, in_port, frame, reason).arguments[0]
    theirs = ofproto_v1_4_parser.OFPPacketIn.parser(Datapath, 5, 10, len(message), 0, bytearray(message))
    ours = inbound.decode_packet_in(message)
    kind = next((kind for kind in Kind if theirs.cookie >> 48 == MARK << 8 | kind), None)
    assert ours == (theirs.reason, theirs.cookie, kind, theirs.match["in_port"], bytes(theirs.data))
    assert ours.frame == frame


def test_packet_in_with_in_port_behind_other_fields() -> None:
    """OVS reports registers, too, and in its own order."""
    fields = struct.pack("!II", 0x80000408, 1) + bytes(4) + struct.pack("!II", 0x80000004, 7)
    match = struct.pack("!HH", 1, 4 + len(fields)) + fields
    match += bytes(-len(match) % 8)
    message = struct.pack("!BBHIIHBBQ", 5, 10, 0, 0, 0xFFFFFFFF, 5, 1, 0, 99) + match + bytes(2) + b"frame"
    assert inbound.decode_packet_in(message) == (1, 99, None, 7, b"frame")


@given(entries, st.booleans(), st.integers(0, 100))
def test_flow_removed(entry, inward, seconds) -> None:
    flow = entry_flows(entry, LINGER)[0 if inward else 1]
    message = fake_switch.flow_removed(Installed(flow, 0.0, 0.0), float(seconds))
    theirs = ofproto_v1_4_parser.OFPFlowRemoved.parser(Datapath, 5, 11, len(message), 0, bytearray(message))
    ours = inbound.decode_entry_removed(message)
    assert (ours.side is EXTERNAL, ours.cookie, ours.duration) == (
        theirs.table_id == 20,
        theirs.cookie,
        theirs.duration_sec,
    )
    assert ours.key == (entry.key if inward else entry.reply)
    protocol, source, source_port, destination, destination_port = unpack_key(ours.key)
    version, transport = 4 if len(source) == 4 else 6, "tcp" if protocol == 6 else "udp"
    fields = dict(theirs.match.items())
    for side, address, port in (("src", source, source_port), ("dst", destination, destination_port)):
        assert ip_address(fields[f"ipv{version}_{side}"]).packed == address
        assert fields[f"{transport}_{side}"] == port


@given(entries, st.randoms(use_true_random=False))
def test_flow_removed_with_the_match_in_any_order(entry, chance) -> None:
    message = fake_switch.flow_removed(Installed(entry_flows(entry, LINGER)[0], 0.0, 0.0), 1.0)
    length = int.from_bytes(message[50:52]) - 4
    fields, found = message[52:52 + length], []
    while fields:
        found.append(fields[:4 + fields[3]])
        fields = fields[4 + fields[3]:]
    chance.shuffle(found)
    assert inbound.decode_entry_removed(message[:52] + b"".join(found) + message[52 + length:]).key == entry.key


@pytest.mark.parametrize("shape", SHAPES, ids=words)
def test_flow_removed_without_a_field_is_none_of_ours(shape) -> None:
    message = fake_switch.flow_removed(Installed(entry_flows(entry_of(shape), LINGER)[0], 0.0, 0.0), 1.0)
    end = 48 + int.from_bytes(message[50:52])
    at = 52
    while at < end:
        size = 4 + message[at + 3]
        without = message[:50] + (end - 48 - size).to_bytes(2) + message[52:at] + message[at + size:end] + bytes(8)
        # The Ethernet type says nothing that the addresses do not.
        assert (inbound.decode_entry_removed(without) is None) == (
            message[at : at + 2] + message[at + 2 : at + 3] != b"\x80\x00\x0a"
        )
        at += size


@pytest.mark.parametrize("reason, understood", [(0, True), (1, True), (2, False), (3, False)])
def test_only_timeouts_end_an_entry(reason, understood) -> None:
    item = Installed(entry_flows(one_entry(), LINGER)[0], 0.0, 0.0)
    assert (inbound.decode_entry_removed(fake_switch.flow_removed(item, 1.0, reason)) is not None) == understood


def stats_by_ryu(data: bytes) -> list:
    found, offset = [], 0
    while offset < len(data):
        found.append(ofproto_v1_4_parser.OFPFlowStats.parser(data, offset))
        offset += found[-1].length
    return found


@settings(max_examples=200)
@given(st.lists(st.tuples(entries, st.integers(0, 1 << 40), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_entry_statistics(some) -> None:
    """Of mixed shapes and directions. The decoder puts alike records together, so the order is its own."""
    some = [(entry, packets, inward, finished and entry.key[0] == 6) for entry, packets, inward, finished in some]
    items = [Installed(entry_flows(entry, LINGER)[0 if inward else 1], 0.0, 0.0, packets, LINGER if finished else 0)
             for entry, packets, inward, finished in some]
    data = b"".join(fake_switch.stats_record(item, 12.0) for item in items)
    ours, others = inbound.EntryStatsDecoder().decode(data)
    assert others == []

    def order(stats) -> tuple:
        return stats.side is EXTERNAL, stats.key, stats.reply, stats.packets, stats.finished, stats.hop

    ordered = sorted(
        zip(stats_by_ryu(data), some, strict=True),
        key=lambda pair: (
            pair[1][2],
            pair[1][0].key,
            pair[1][0].reply,
            pair[1][1],
            pair[1][3],
            pair[1][0].inner_hop if pair[1][2] else pair[1][0].next_hop,
        ),
    )
    for stats, (theirs, (entry, packets, inward, finished)) in zip(sorted(ours, key=order), ordered, strict=True):
        assert (stats.side is EXTERNAL) == inward == (theirs.table_id == 20)
        assert stats.bytes == theirs.byte_count == 60 * packets
        assert (stats.key, stats.reply) == (entry.key, entry.reply)
        assert stats.hop == (entry.inner_hop if inward else entry.next_hop)
        assert (stats.packets, stats.duration, stats.finished) == (packets, theirs.duration_sec, finished)
        assert (theirs.packet_count, theirs.idle_timeout != 0, theirs.priority) == (packets, finished, 100)
        instructions = [part.to_jsondict() for part in theirs.instructions]
        made = body(split(encode(m.AddFlows((entry_flows(entry, LINGER)[0 if inward else 1],)), CODEC))[0])
        assert instructions == made[12], "the fake switch reports what was sent"


def test_statistics_of_flows_that_are_not_as_made_are_told_apart() -> None:
    good, bad = (
        fake_switch.stats_record(Installed(entry_flows(one_entry(), LINGER)[0], 0.0, 0.0), 1.0) for _ in range(2)
    )
    bad = bad[:16] + b"\x00\x63" + bad[18:]
    ours, others = inbound.EntryStatsDecoder().decode(good + bad)
    assert len(ours) == 1
    assert [(other.table, other.cookie) for other in others] == [
        (20, entry_cookie(EXTERNAL, 0xC6336401, one_entry().bucket))
    ]


def test_both_directions_in_one_reply() -> None:
    data = b"".join(
        fake_switch.stats_record(Installed(flow, 0.0, 0.0), 1.0) for flow in entry_flows(one_entry(), LINGER)
    )
    ours, others = inbound.EntryStatsDecoder().decode(data)
    assert [stats.key for stats in ours] == [one_entry().key] * 2 and not others


def test_flow_statistics_and_neighbours_of_a_whole_switch() -> None:
    configuration = site()
    switch = FakeSwitch("lb-a", 0xAA, "x", "y", LINGER)
    switch.meters = dict(fake_switch.METERS)
    neighbours = {server: f"02:01:0a:00:00:{server.packed[3]:02x}" for ip in configuration.external_ips
                  for server in ip.server_addresses()}
    flows = all_flows(configuration.external_ips, {}, neighbours, PORTS)
    switch.apply(m.AddFlows(tuple(flows)), 0.0)
    data = b"".join(event.arguments[1] for event in switch.apply(m.ReadFlows(None, 0, 0, 1), 0.0)[1])
    found = [(stats.table, stats.cookie) for stats in inbound.decode_flow_stats(data)]
    assert sorted(found) == sorted((number(flow.table), flow.cookie) for flow in flows)
    assert inbound.decode_neighbours(data) == {server.packed: bytes.fromhex(mac.replace(":", ""))
                                               for server, mac in neighbours.items()}


@given(
    st.dictionaries(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), macs, max_size=6), st.integers(1, 0xFFFFFF00)
)
def test_neighbours_are_read_from_their_flows(known, port) -> None:
    """Of both IP versions."""
    ports = Ports(PORTS.external, Port(port, PORTS.internal.mac))
    flows = delivery_flows(
        {server: Hop(server) for server in known}, {server: mac.hex(":") for server, mac in known.items()}, ports, {}
    )
    data = b"".join(fake_switch.stats_record(Installed(flow, 0.0, 0.0), 1.0) for flow in flows)
    assert inbound.decode_neighbours(data) == {server.packed: mac for server, mac in known.items()}


def test_neighbours_by_ryu_s_encoder() -> None:
    """The fake switch's bytes of a delivery flow are Ryu's."""
    for server in (IPv4Address("10.0.0.11"), IPv6Address("fd00::11")):
        (flow,) = delivery_flows({server: Hop(server)}, {server: "02:00:00:00:00:11"}, PORTS, {})
        record = fake_switch.stats_record(Installed(flow, 0.0, 0.0), 1.0)
        theirs = ofproto_v1_4_parser.OFPFlowStats.parser(record, 0)
        made = body(encode(m.AddFlows((flow,)), CODEC))
        assert dict(theirs.match.items()) == made[11]
        assert [part.to_jsondict() for part in theirs.instructions] == made[12]


# Any bytes.

RECORD = fake_switch.stats_record(Installed(entry_flows(one_entry(), LINGER)[1], 0.0, 0.0), 1.0)
RECORDS = [
    fake_switch.stats_record(Installed(flow, 0.0, 0.0), 1.0)
    for shape in SHAPES
    for flow in entry_flows(entry_of(shape), LINGER)
]
SAMPLES = [
    fake_switch.packet_in(1, 2, b"frame" * 20).arguments[0],
    RECORD * 2,
    *RECORDS,
    b"".join(RECORDS),
    *(fake_switch.flow_removed(Installed(entry_flows(entry_of(shape), LINGER)[0], 0.0, 0.0), 1.0) for shape in SHAPES),
]


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(0, 5))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[:draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(max_examples=400)
@given(st.one_of(st.binary(max_size=200), damaged()))
def test_no_bytes_raise(data) -> None:
    inbound.decode_packet_in(data)
    inbound.decode_entry_removed(data)
    inbound.decode_flow_stats(data)
    inbound.decode_neighbours(data)
    inbound.decode_way_back(data)
    list(inbound.decode_slice_stats(data))
    inbound.EntryStatsDecoder().decode(data)


def test_a_record_that_claims_to_be_longer_than_its_reply_is_left_out() -> None:
    data = RECORD + b"\xff\xff" + RECORD[2:]
    assert len(inbound.decode_flow_stats(data)) == 1


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("shape", SHAPES, ids=words)
def test_the_layout_is_as_long_as_the_record(shape, side) -> None:
    item = Installed(entry_flows(entry_of(shape), LINGER)[side.number], 0.0, 0.0)
    assert stats_layout(side, shape).size == len(fake_switch.stats_record(item, 0.0))


@settings(max_examples=200)
@given(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=6), st.data())
def test_a_damaged_record_does_not_hide_the_others(records, data) -> None:
    """One byte of one record is another: the others are decoded; that one is an entry of another key, or no entry."""
    which = data.draw(st.integers(0, len(records) - 1))
    at = data.draw(st.integers(3, len(records[which]) - 1))
    damaged = bytearray(records[which])
    damaged[at] ^= data.draw(st.integers(1, 255))
    decoder = inbound.EntryStatsDecoder()
    entries, others = decoder.decode(b"".join([*records[:which], bytes(damaged), *records[which + 1:]]))
    assert len(entries) + len(others) == len(records) and len(others) <= 1
    intact = Counter(decoder.decode(b"".join(records[:which] + records[which + 1:]))[0])
    assert intact <= Counter(entries)
