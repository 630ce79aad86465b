"""The flows of an LB as `ovs-ofctl` text (golden/*.txt), and what a packet meets in them.

LBCTL_WRITE_GOLDEN=1 writes the golden files anew: read their difference before you commit it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lbctl.entries.access_table import Entry
from lbctl.frames import packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.openflow import cookies
from lbctl.openflow.cookies import Kind
from lbctl.openflow.delivery_rules import delivery_flows
from lbctl.openflow.entry_flows import entry_flows
from lbctl.openflow.flow import CONTROLLER, Flow, Output, PipelineError, Resubmit, SetField, flow
from lbctl.openflow.hop_rules import hop_flow
from lbctl.openflow.messages import AddEntries, AddFlows
from lbctl.openflow.ports import Port, Ports
from lbctl.openflow.rules import ABSENT, SERVING, Role, all_flows, base_flows, external_ip_flows
from lbctl.openflow.tables import TABLES, name_of, number
from lbctl.site.model import ExternalIp, Hop, Server, Service
from lbctl.values.keys import BUCKETS, bucket_of_key, pack_key, reply_key
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import EXTERNAL
from lbctl.values.transfer import TransferMode
from tests.bed.frames import tagged
from tests.unit import kinds
from tests.unit.fake_switch import METERS, FakeSwitch
from topologies import programs

GOLDEN = Path(__file__).parent / "golden"
PORTS = Ports(Port(1, "02:00:00:00:aa:01"), Port(2, "02:00:00:00:aa:02"))
LB_EXTERNAL, LB_INTERNAL = (bytes.fromhex(port.mac.replace(":", "")) for port in (PORTS.external, PORTS.internal))
ROUTER, SERVER_MAC = bytes.fromhex("02000000c0fe"), bytes.fromhex("02000000000b")
CLIENT, ADDRESS, GATEWAY = IPv4Address("203.0.113.9"), IPv4Address("198.51.100.1"), IPv4Address("10.0.0.1")
SERVERS = IPv4Address("10.0.0.11"), IPv4Address("10.0.0.12")
EXTERNAL_IP = ExternalIp(ADDRESS, "lb-a", GATEWAY, "destination", (
    Service("tcp", 80, "round-robin", (Server(SERVERS[0], 80), Server(SERVERS[1], 8080))),
    Service("tcp", 443, "round-robin", (Server(SERVERS[0], 443),))))
NEIGHBOURS = {SERVERS[0]: "02:00:00:00:00:0b"}
ROLES = {"normal": SERVING, "hold-unknown": Role(TransferMode.TRANSITION), "absent": ABSENT,
         "hold-all": Role(TransferMode.TRANSITION, hold_all=True, arp=True)}


def entry(server_port: int = 8080) -> Entry:
    key = pack_key(6, CLIENT.packed, 40001, ADDRESS.packed, 80)
    return Entry(key, reply_key(key, SERVERS[0].packed, server_port), ROUTER, 0.0)


# The text.

def flows_by_file() -> dict[str, list[Flow]]:
    """The flows of any LB; of one external IP in each role; and of one of each kind, with what is there for it
    alone."""
    base = [*base_flows(PORTS), *delivery_flows({server: Hop(server) for server in SERVERS}, NEIGHBOURS, PORTS, {})]
    anyway = {item.text() for item in base_flows(kinds.PORTS)}
    return {
        "base": base,
        **{name: list(external_ip_flows(EXTERNAL_IP, role, PORTS)) for name, role in ROLES.items()},
        **{
            f"{kind}-{version}": [
                item
                for item in all_flows([config], {config.address: SERVING}, kinds.NEIGHBOURS, kinds.PORTS)
                if item.text() not in anyway
            ]
            for (kind, version), config in kinds.EXTERNAL_IPS.items()
        },
        **{
            f"sliced-{version}": [
                item
                for item in [
                    *all_flows([config], {config.address: SERVING}, kinds.NEIGHBOURS, kinds.PORTS),
                    *kinds.slices(version),
                ]
                if item.text() not in anyway
            ]
            for version, config in kinds.SLICED.items()
        },
        "entries": [
            item
            for kind, version in kinds.EXTERNAL_IPS
            for protocol in (TCP, UDP)
            for item in entry_flows(kinds.entry(kind, version, protocol), 5)
        ],
    }


SLICED = ["sliced-4", "sliced-6"]
FILES = ["base", "entries", *ROLES, *SLICED, *(f"{kind}-{version}" for kind, version in kinds.EXTERNAL_IPS)]


@pytest.mark.parametrize("name", FILES)
def test_flows_are_the_golden_ones(name) -> None:
    text = "".join(item.text() + "\n" for item in flows_by_file()[name])
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("LBCTL_WRITE_GOLDEN"):
        file.write_text(text)
    assert text.splitlines() == file.read_text().splitlines()


def test_there_are_no_other_golden_files() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(FILES) == flows_by_file().keys()


@pytest.mark.parametrize("name", FILES)
def test_ovs_understands_the_text(name) -> None:
    command = ["ovs-ofctl", "-O", "OpenFlow14", "parse-flows", GOLDEN / f"{name}.txt"]
    done = programs.run(command, capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ADD") == len((GOLDEN / f"{name}.txt").read_text().splitlines())


def test_no_two_flows_have_one_identity() -> None:
    second = replace(EXTERNAL_IP, address=IPv4Address("198.51.100.2"), gateway=IPv4Address("10.0.0.2"), services=(
        Service("tcp", 80, "round-robin", (Server(IPv4Address("10.0.0.21"), 80),)),))
    for roles in ({ADDRESS: SERVING, second.address: SERVING}, {ADDRESS: ROLES["hold-all"]}, {}):
        flows = all_flows([EXTERNAL_IP, second], roles, NEIGHBOURS, PORTS)
        assert len({item.identity for item in flows}) == len(flows)
        assert len({(item.table, item.cookie) for item in flows}) == len(flows), (
            "a flow is told from others by its cookie"
        )


def test_only_the_arp_rules_and_the_mode_differ_between_roles() -> None:
    """So that a role changes with few messages, none of which touches the way of known connections."""
    texts = {
        name: {item.text() for item in external_ip_flows(EXTERNAL_IP, role, PORTS)} for name, role in ROLES.items()
    }
    changed = texts["normal"] ^ texts["hold-unknown"]
    assert {text.split("table=")[1].split(",")[0] for text in changed} == {"1", "10", "30"}


def test_an_entry_is_the_same_on_every_lb() -> None:
    for item in entry_flows(entry(), 5):
        for mac in (PORTS.external.mac, PORTS.internal.mac):
            assert mac not in item.text()


# The declaration.

@pytest.mark.parametrize("wrong, words", [
    ({"match": (("tcp_flags", 2),)}, "may not match tcp_flags"),
    ({"actions": (SetField("ipv4_dst", "10.0.0.1"),)}, "may not write ipv4_dst"),
    ({"goto": "deliver_client"}, "may not go to deliver_client"),
    ({"goto": "classify"}, "may not go to classify"),
    ({"actions": (Resubmit("access_in"),)}, "may not resubmit to access_in")])
def test_a_flow_that_the_declaration_does_not_allow(wrong, words) -> None:
    fields = {"table": "transfer_mode", "priority": 1, "match": ()} | wrong
    with pytest.raises(PipelineError, match=words):
        Flow(**fields)


def test_tables_only_lead_forward_or_to_themselves() -> None:
    for table in TABLES.values():
        assert all(number(name) >= table.number for name in table.next)
    assert name_of(20) == "access_in" and name_of(99) == "99"


# Cookies.

def test_cookies_say_whose_a_flow_is() -> None:
    for item in all_flows([EXTERNAL_IP], {ADDRESS: SERVING}, NEIGHBOURS, PORTS):
        assert cookies.kind_of(item.cookie) in set(Kind)
        assert cookies.owner_in(item.cookie) in (0, int(ADDRESS))
    assert cookies.kind_of(0x1C << 56) is None


def test_another_content_has_another_cookie() -> None:
    match = {"in_port": 1}
    plain = flow(Kind.PIPELINE, 0, "classify", 1, match, Output(1))
    for other in (
        flow(Kind.PIPELINE, 0, "classify", 1, match, Output(2)),
        flow(Kind.VLAN, 0, "classify", 1, match),
        flow(Kind.PIPELINE, 0, "classify", 2, match, Output(1)),
        flow(Kind.PIPELINE, 0, "classify", 1, {}, Output(1)),
        flow(Kind.PIPELINE, 0, "classify", 1, match, Output(1), meter=1),
        flow(Kind.PIPELINE, 0, "classify", 1, match, Output(1), goto="arp"),
        flow(Kind.PIPELINE, 7, "classify", 1, match, Output(1)),
    ):
        assert other.cookie != plain.cookie, other.text()


def test_buckets_spread_clients_and_ports() -> None:
    one_client = {bucket_of_key(pack_key(6, CLIENT.packed, port, ADDRESS.packed, 80)) for port in range(40000, 41024)}
    one_port = {
        bucket_of_key(pack_key(6, (10 << 24 | last).to_bytes(4), 40000, ADDRESS.packed, 80)) for last in range(1024)
    }
    assert len(one_client) == len(one_port) == BUCKETS


# What packets meet.

def lb(role: Role, with_entry: bool) -> FakeSwitch:
    switch = FakeSwitch("lb-a", 0xAA, "ext", "int", 5)
    switch.meters = dict(METERS)
    switch.apply(AddFlows(tuple(all_flows([EXTERNAL_IP], {ADDRESS: role}, NEIGHBOURS, PORTS))), 0.0)
    if with_entry:
        switch.apply(AddEntries((entry(),)), 0.0)
        switch.apply(AddFlows((hop_flow(EXTERNAL, entry().next_hop),)), 0.0)
    return switch


def from_client(
    flags: int, port: int = 80, dst: IPv4Address = ADDRESS, mac: bytes = LB_EXTERNAL, ttl: int = 64
) -> bytes:
    return packets.tcp_segment(mac, ROUTER, CLIENT.packed, 40001, dst.packed, port, flags=flags, ttl=ttl)


def from_server(flags: int, src: IPv4Address = SERVERS[0]) -> bytes:
    return packets.tcp_segment(LB_INTERNAL, SERVER_MAC, src.packed, 8080, CLIENT.packed, 40001, flags=flags)


DELIVERED, DROPPED = "delivered", "dropped"


def outcome(switch: FakeSwitch, frame: bytes, port: int) -> str:
    """Delivered, dropped, or the kind of the flow that shows it to the controller; a RST may be both."""
    sent, events = switch.receive(frame, port, 0.0)
    kinds = [Kind(cookies.kind_of(int.from_bytes(event.arguments[0][16:24]))).name for event in events]
    return " ".join(([DELIVERED] if sent else []) + kinds) or DROPPED


TO_CLIENT = from_server(ACK)
CASES = [
    # frame, port; with an entry: normal, hold-unknown, hold-all, absent; without: the same
    ("SYN", from_client(SYN), 1, "NEW HOLD HOLD UNASSIGNED", "NEW HOLD HOLD UNASSIGNED"),
    ("SYN to no service", from_client(SYN, 22), 1, "STRAY HOLD HOLD UNASSIGNED", "STRAY HOLD HOLD UNASSIGNED"),
    ("data", from_client(ACK), 1, "delivered delivered HOLD UNASSIGNED", "STRAY HOLD HOLD UNASSIGNED"),
    (
        "SYN+ACK of a client",
        from_client(SYN | ACK),
        1,
        "delivered delivered HOLD UNASSIGNED",
        "STRAY HOLD HOLD UNASSIGNED",
    ),
    ("FIN", from_client(FIN | ACK), 1, "delivered delivered HOLD UNASSIGNED", "STRAY HOLD HOLD UNASSIGNED"),
    ("RST", from_client(RST), 1, "delivered+RESET delivered+RESET HOLD UNASSIGNED", "dropped HOLD HOLD UNASSIGNED"),
    ("answer", from_server(ACK), 2, "delivered delivered HOLD UNASSIGNED", "STRAY HOLD HOLD UNASSIGNED"),
    ("SYN+ACK", from_server(SYN | ACK), 2, "delivered delivered HOLD UNASSIGNED", "STRAY HOLD HOLD UNASSIGNED"),
    (
        "server's RST",
        from_server(RST),
        2,
        "delivered+RESET delivered+RESET HOLD UNASSIGNED",
        "dropped HOLD HOLD UNASSIGNED",
    ),
    (
        "another address",
        from_client(ACK, dst=IPv4Address("198.51.100.77")),
        1,
        *["dropped dropped dropped dropped"] * 2,
    ),
    ("another MAC", from_client(ACK, mac=ROUTER), 1, *["dropped dropped dropped dropped"] * 2),
    ("from a stranger inside", from_server(ACK, IPv4Address("10.0.0.99")), 2, *["NO_WAY NO_WAY NO_WAY NO_WAY"] * 2),
]


@pytest.mark.parametrize("frame, port, known, unknown", [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_where_packets_go(frame, port, known, unknown) -> None:
    for with_entry, expected in ((True, known), (False, unknown)):
        found = [outcome(lb(ROLES[name], with_entry), frame, port).replace(" ", "+")
                 for name in ("normal", "hold-unknown", "hold-all", "absent")]
        assert found == expected.split(), f"with entry: {with_entry}"


@pytest.mark.parametrize("frame, port", [(from_client(SYN), 1), (from_client(ACK), 1), (TO_CLIENT, 2)])
def test_a_priority_tag_is_taken_away(frame: bytes, port: int) -> None:
    """Field report F12: VLAN 0 is none."""
    plain, with_priority = (lb(SERVING, True).receive(each, port, 0.0) for each in (frame, tagged(frame, 0xA000)))
    assert plain == with_priority and any(plain)


def test_what_belongs_to_a_vlan_is_dropped() -> None:
    assert outcome(lb(SERVING, True), tagged(from_client(ACK), 5), 1) == DROPPED


def test_a_packet_is_translated_on_its_way_in() -> None:
    sent, _ = lb(SERVING, True).receive(from_client(ACK), 1, 0.0)
    packet = packets.decode(sent[0].frame)
    assert sent[0].port == 2
    assert (packet.eth_src, packet.eth_dst, packet.ttl) == (LB_INTERNAL, SERVER_MAC, 63)
    assert (packet.src, packet.src_port, packet.dst, packet.dst_port) == (CLIENT.packed, 40001, SERVERS[0].packed, 8080)


def test_a_packet_is_translated_on_its_way_out() -> None:
    sent, _ = lb(SERVING, True).receive(from_server(ACK), 2, 0.0)
    packet = packets.decode(sent[0].frame)
    assert sent[0].port == 1
    assert (packet.eth_src, packet.eth_dst, packet.ttl) == (LB_EXTERNAL, ROUTER, 63)
    assert (packet.src, packet.src_port, packet.dst, packet.dst_port) == (ADDRESS.packed, 80, CLIENT.packed, 40001)


def test_a_packet_at_the_end_of_its_life_is_not_delivered() -> None:
    sent, events = lb(SERVING, True).receive(from_client(ACK, ttl=1), 1, 0.0)
    assert not sent and events


def test_a_reset_is_delivered_once() -> None:
    sent, events = lb(SERVING, True).receive(from_client(RST), 1, 0.0)
    assert (len(sent), len(events)) == (1, 1)


def test_fragments_are_shown_to_the_controller() -> None:
    """Those to the LB's own MAC."""
    frame = bytearray(from_client(ACK))
    for first, second in ((0x20, 0), (0x20, 5), (0, 5)):
        frame[20:22] = bytes([first, second])
        assert outcome(lb(SERVING, True), bytes(frame), 1) == "FRAGMENT"
        assert outcome(lb(SERVING, True), bytes(6) + bytes(frame[6:]), 1) == DROPPED


def ask(address: IPv4Address) -> bytes:
    request = packets.arp_announcement(ROUTER, bytes([198, 51, 100, 250]))
    return request[:38] + address.packed


@pytest.mark.parametrize(
    "name, answers", [("normal", True), ("hold-all", True), ("hold-unknown", False), ("absent", False)]
)
def test_arp_is_answered_by_who_announces(name, answers) -> None:
    switch = lb(ROLES[name], False)
    for address, port, mac in ((ADDRESS, 1, LB_EXTERNAL), (GATEWAY, 2, LB_INTERNAL)):
        sent, _ = switch.receive(ask(address), port, 0.0)
        assert bool(sent) == answers
        if sent:
            reply = packets.decode_arp(sent[0].frame)
            assert sent[0].port == port
            assert reply == packets.Arp(packets.ARP_REPLY, mac, address.packed, ROUTER, bytes([198, 51, 100, 250]))
            assert (sent[0].frame[:6], sent[0].frame[6:12]) == (ROUTER, mac)


def test_arp_is_not_answered_on_the_other_side() -> None:
    switch = lb(SERVING, False)
    assert not switch.receive(ask(ADDRESS), 2, 0.0)[0]
    assert not switch.receive(ask(GATEWAY), 1, 0.0)[0]


def test_whatever_goes_to_the_controller_is_metered() -> None:
    for role in ROLES.values():
        for item in all_flows([EXTERNAL_IP], {ADDRESS: role}, NEIGHBOURS, PORTS):
            assert (item.meter is not None) == (CONTROLLER in item.actions), item.text()
