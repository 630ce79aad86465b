"""Packets that come to the controller, and how entries come and go: events in, messages out."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from lbctl.connections import endings
from lbctl.connections.endings import CACHED_SECONDS, REMEMBERED_SECONDS
from lbctl.entries.access_table import FIN_IN, FIN_OUT, GONE, NO_HOP, Entry
from lbctl.frames import packets
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.openflow.cookies import Kind
from lbctl.openflow.entry_flows import entry_flows
from lbctl.openflow.messages import FROM_CONTROLLER, OUTPUT_TABLE, AddEntries, AddFlows, DeleteEntries, PacketOut
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.side import EXTERNAL
from lbctl.values.transfer import Strategy
from tests.unit import fake_switch
from tests.unit.effects import use_file
from tests.unit.fake_site import ROUTER_MAC, FakeSite, site
from tests.unit.fake_switch import Installed

CLIENT, ADDRESS = bytes([203, 0, 113, 9]), bytes([198, 51, 100, 1])
SERVERS = bytes([10, 0, 0, 10]), bytes([10, 0, 0, 11])
SERVER_MAC = FakeSite.server_mac(SERVERS[0])


@pytest.fixture
def world() -> FakeSite:
    return made()


def made() -> FakeSite:
    """Two LBs, all known: 198.51.100.1 is at lb-a, with the servers 10.0.0.10:80 and 10.0.0.11:8080."""
    world = FakeSite(site(misdirected="error"))
    world.control.ground.let_pass(EXTERNAL, ROUTER_MAC)
    world.settle(1.0)
    return world


def lb_mac(world: FakeSite, inward: bool, name: str = "lb-a") -> bytes:
    return bytes.fromhex(world.switches[name].ports[0 if inward else 1].mac.replace(":", ""))


def from_client(world, flags, port=40001, seq=1, dst=ADDRESS, dst_port=80, **fields) -> bytes:
    return packets.tcp_segment(
        lb_mac(world, True), ROUTER_MAC, CLIENT, port, dst, dst_port, flags=flags, seq=seq, **fields
    )


def from_server(world, flags, server=SERVERS[0], port=80, client_port=40001, **fields) -> bytes:
    return packets.tcp_segment(
        lb_mac(world, False), SERVER_MAC, server, port, CLIENT, client_port, flags=flags, **fields
    )


def packet_in(world, kind: Kind, frame: bytes, inward: bool = True, name: str = "lb-a"):
    cookie = 0x1B << 56 | kind << 48
    message = fake_switch.packet_in(cookie, 1 if inward else 2, frame).arguments[0]
    return world.control.packet_in(name, message, world.now)


def add(world, port: int = 40001, hop: bytes = ROUTER_MAC, age: float = 10.0) -> Entry:
    """An open connection of the client to the first server, as if a SYN had made it `age` seconds ago."""
    key = pack_key(6, CLIENT, port, ADDRESS, 80)
    entry = Entry(key, reply_key(key, SERVERS[0], 80), hop, world.now - age, isn=1)
    serving(world).table.add(entry)
    return entry


def serving(world):
    return world.serving(world.site.external_ips[0].address)


def summary(out) -> list[str]:
    """One word for each message: what it does, and where."""
    words = []
    for name, message in out:
        match message:
            case AddEntries():
                words.append(f"add@{name}")
            case AddFlows(flows):
                words.append(
                    "put-back-" + "-".join("in" if flow.table == "access_in" else "out" for flow in flows) + f"@{name}"
                )
            case DeleteEntries():
                words.append(f"delete@{name}")
            case PacketOut(frame, in_port, output):
                words.append(packet_word(frame, in_port, output) + f"@{name}")
            case _:
                words.append(type(message).__name__)
    return words


def packet_word(frame: bytes, in_port: int, output: int | str) -> str:
    packet = packets.decode(frame)
    side = {1: "external", 2: "internal"}.get(output)
    if in_port == FROM_CONTROLLER:
        return f"{'icmp' + str(frame[35]) if packet.protocol == 1 else 'rst'}-to-{side}"
    return f"on-from-{'external' if in_port == 1 else 'internal'}" + (
        "" if output == OUTPUT_TABLE else f"-through-{output}"
    )


# sentence; entry there?; kind of the flow; packet (from client unless "server"); messages; counter
TABLE = [
    (
        "a SYN makes an entry and goes on",
        False,
        Kind.NEW,
        "client SYN",
        ["add@lb-a", "on-from-external-through-access_in@lb-a"],
        "connections_opened",
    ),
    (
        "a repeated SYN makes no second one",
        True,
        Kind.NEW,
        "client SYN",
        ["add@lb-a", "on-from-external-through-access_in@lb-a"],
        "syn_retransmissions",
    ),
    ("a SYN to no service is refused", False, Kind.STRAY, "client SYN to 22", ["rst-to-external@lb-a"], "errors_sent"),
    ("a stray packet is refused", False, Kind.STRAY, "client ACK", ["rst-to-external@lb-a"], "errors_sent"),
    ("a stray RST is not answered", False, Kind.STRAY, "client RST", [], "dropped_no_error_allowed"),
    (
        "a stray packet from a server is refused",
        False,
        Kind.STRAY,
        "server ACK",
        ["rst-to-internal@lb-a"],
        "errors_sent",
    ),
    (
        "a known connection's lost flow is put back",
        True,
        Kind.STRAY,
        "client ACK",
        ["put-back-in@lb-a", "on-from-external@lb-a"],
        "entries_put_back",
    ),
    (
        "the other one, too",
        True,
        Kind.STRAY,
        "server ACK",
        ["put-back-out@lb-a", "on-from-internal@lb-a"],
        "entries_put_back",
    ),
    (
        "an error is for whom the address is not assigned here",
        False,
        Kind.UNASSIGNED,
        "client ACK",
        ["icmp1-to-external@lb-b"],
        "errors_sent",
    ),
    ("and for its servers", False, Kind.UNASSIGNED, "server ACK", ["icmp1-to-internal@lb-b"], "errors_sent"),
    (
        "a late unassigned packet goes on where it is assigned",
        False,
        Kind.UNASSIGNED,
        "client ACK at lb-a",
        ["on-from-external@lb-a"],
        None,
    ),
    (
        "a packet held by old flows goes to the LB that serves",
        True,
        Kind.HOLD,
        "client ACK at lb-b",
        ["on-from-external@lb-a"],
        None,
    ),
    ("also a new connection", False, Kind.NEW, "client SYN at lb-b", ["on-from-external@lb-a"], None),
    ("and a stray packet", False, Kind.STRAY, "server ACK at lb-b", ["on-from-internal@lb-a"], None),
    ("a RST only starts the linger", True, Kind.RESET, "client RST translated", [], None),
    (
        "the end of a TTL is told",
        True,
        Kind.EXPIRED,
        "client ACK translated",
        ["icmp0-to-external@lb-a"],
        "errors_sent",
    ),
    ("but not of what is no connection's", False, Kind.EXPIRED, "client ACK translated", [], "dropped_ttl_expired"),
    ("a flow that sends nothing here is not ours", False, Kind.PIPELINE, "client ACK", [], "dropped_unknown_flow"),
    ("an address that is no external IP", False, Kind.STRAY, "client ACK to .77", [], "dropped_unknown_address"),
]


def run(world, kind: Kind, words: str):
    inward = not words.startswith("server")
    name = "lb-b" if "at lb-b" in words or kind is Kind.UNASSIGNED and "at lb-a" not in words else "lb-a"
    flags = {"SYN": SYN, "ACK": ACK, "RST": RST}[words.split()[1]]
    if "translated" in words:
        frame = packets.tcp_segment(SERVER_MAC, lb_mac(world, False), CLIENT, 40001, SERVERS[0], 80, flags=flags)
    elif inward:
        frame = from_client(world, flags, dst=bytes([198, 51, 100, 77]) if ".77" in words else ADDRESS,
                            dst_port=22 if "22" in words else 80)
    else:
        frame = from_server(world, flags)
    return packet_in(world, kind, frame, inward, name), name


@pytest.mark.parametrize("there, kind, words, expected, counter", [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_packet_in(world, there, kind, words, expected, counter) -> None:
    if there:
        add(world, age=1.0)
    if counter:
        where = world.control.ground.switches["lb-b" if any("lb-b" in word for word in expected) else "lb-a"]
        before = where.counters[counter]
    out, _ = run(world, kind, words)
    assert summary(out) == expected
    if counter:
        assert where.counters[counter] == before + 1


def test_an_entry_holds_what_the_syn_said(world) -> None:
    packet_in(world, Kind.NEW, from_client(world, SYN, seq=77))
    (entry,) = serving(world).table.entries()
    connection = entry.connection
    assert (str(connection.client), str(connection.external), str(connection.server), connection.next_hop) == (
        "203.0.113.9:40001", "198.51.100.1:80", "10.0.0.10:80", ROUTER_MAC.hex(":"))
    assert (entry.isn, entry.created, entry.state) == (77, world.now, "open")


def test_servers_take_turns_also_on_another_port(world) -> None:
    for port in range(40001, 40005):
        packet_in(world, Kind.NEW, from_client(world, SYN, port))
    assert [str(entry.connection.server) for entry in serving(world).table.entries()] == [
        "10.0.0.10:80", "10.0.0.11:8080"] * 2


def test_a_server_whose_mac_is_not_known_gets_no_connections(world) -> None:
    neighbours = world.control.ground.switches["lb-a"].neighbours
    del neighbours[world.site.external_ips[0].services[0].servers[0].address]
    for port in (40001, 40002):
        packet_in(world, Kind.NEW, from_client(world, SYN, port))
    assert {str(entry.connection.server) for entry in serving(world).table.entries()} == {"10.0.0.11:8080"}
    neighbours.clear()
    assert packet_in(world, Kind.NEW, from_client(world, SYN, 40003)) == []
    assert world.control.ground.switches["lb-a"].counters["dropped_server_unresolved"] == 1


def test_two_connections_of_one_client_port_never_share_a_server_port(world) -> None:
    """A client may use one port for two services: their answers must be told apart."""
    ip = world.site.external_ips[0]
    both = replace(ip, services=(ip.services[0], replace(ip.services[0], port=443)))
    world.post(
        use_file(world.control,
            replace(world.site, external_ips=(both, *world.site.external_ips[1:])), world.now
        )
    )
    for port in (80, 443):
        packet_in(world, Kind.NEW, from_client(world, SYN, dst_port=port))
    replies = [entry.reply for entry in serving(world).table.entries()]
    assert len(set(replies)) == 2
    third = packet_in(world, Kind.NEW, from_client(world, SYN, dst_port=80, seq=5))
    assert len(serving(world).table) == 2 and "add@lb-a" in summary(third)


# How connections end.

def removed(world, entry: Entry, inward: bool, name: str = "lb-a", age: float = 9.0):
    item = Installed(entry_flows(entry, 5)[0 if inward else 1], world.now - age, world.now - 5)
    return world.control.flow_removed(name, fake_switch.flow_removed(item, world.now), world.now)


def test_fin_both_ways_ends_it_without_a_word(world) -> None:
    entry = add(world)
    assert removed(world, entry, True) == [] and entry.state == "half-closed"
    assert removed(world, entry, False) == [] and len(serving(world).table) == 0


def test_a_flow_that_was_put_back_is_deleted_at_the_end(world) -> None:
    entry = add(world)
    removed(world, entry, True)
    packet_in(world, Kind.STRAY, from_client(world, ACK))
    assert summary(removed(world, entry, False)) == ["delete@lb-a"]


def test_an_old_flow_does_not_end_a_new_connection(world) -> None:
    """The end of the earlier connection's flows crosses the SYN of the next one."""
    entry = add(world)
    packet_in(world, Kind.NEW, from_client(world, SYN, seq=999))
    removed(world, entry, True)
    removed(world, entry, False)
    assert serving(world).table.by_key(entry.key).state == "open"


def test_a_repeated_syn_that_crosses_the_end_leaves_no_flow(world) -> None:
    entry = add(world, age=1.0)
    packet_in(world, Kind.NEW, from_client(world, SYN))
    removed(world, entry, True, age=1.0)
    assert summary(removed(world, entry, False, age=1.0)) == ["delete@lb-a"]


def test_a_late_copy_of_its_own_syn_does_not_end_a_half_closed_connection(world) -> None:
    entry = add(world)
    removed(world, entry, False)
    assert summary(packet_in(world, Kind.NEW, from_client(world, SYN, seq=entry.isn))) == [
        "add@lb-a", "on-from-external-through-access_in@lb-a"]
    assert serving(world).table.by_key(entry.key) is entry


def half_close(world, entry: Entry) -> None:
    removed(world, entry, True)


def reset_by_client(world, _: Entry) -> None:
    run(world, Kind.RESET, "client RST translated")


def reset_by_server(world, _: Entry) -> None:
    frame = packets.tcp_segment(ROUTER_MAC, lb_mac(world, True), ADDRESS, 80, CLIENT, 40001, flags=RST)
    packet_in(world, Kind.RESET, frame, inward=False)


@pytest.mark.parametrize("later", [0.0, 5.0])
@pytest.mark.parametrize("end", [half_close, reset_by_client])
def test_a_syn_after_a_fin_or_rst_goes_to_the_same_server(world, end, later: float) -> None:
    """Both may be forged, and the connection alive: only its server can tell."""
    entry = add(world)
    end(world, entry)
    world.now += later
    world.control.connections.tick(world.now)
    out = packet_in(world, Kind.NEW, from_client(world, SYN, seq=999))
    assert summary(out) == ["add@lb-a", "on-from-external-through-access_in@lb-a"]
    assert serving(world).table.by_key(entry.key) is entry and entry.state == "open"
    world.now += 5.0
    assert world.control.connections.tick(world.now) == [], "nor does the linger end it"


@pytest.mark.parametrize("later", [0.0, 5.0])
def test_a_syn_after_its_servers_reset_makes_another_connection(world, later: float) -> None:
    entry = add(world)
    reset_by_server(world, entry)
    world.now += later
    ended = world.control.connections.tick(world.now)
    ended += packet_in(world, Kind.NEW, from_client(world, SYN, seq=999))
    assert summary(ended) == ["delete@lb-a", "add@lb-a", "on-from-external-through-access_in@lb-a"]
    assert serving(world).table.by_key(entry.key) is not entry


@pytest.mark.parametrize("later", [0.0, 5.0])
def test_a_syn_after_a_reset_goes_elsewhere_if_the_server_takes_no_connections(world, later: float) -> None:
    entry = add(world)
    reset_by_client(world, entry)
    parts, place = serving(world), (6, 80)
    parts.servers.configure(parts.services, [(place, Endpoint(ip_address(SERVERS[0]), 80))])
    world.now += later
    ended = world.control.connections.tick(world.now)
    ended += packet_in(world, Kind.NEW, from_client(world, SYN, seq=999))
    assert summary(ended) == ["delete@lb-a", "add@lb-a", "on-from-external-through-access_in@lb-a"]
    assert parts.table.by_key(entry.key).server == (SERVERS[1], 8080)


def test_a_reset_connection_lingers(world) -> None:
    entry = add(world)
    run(world, Kind.RESET, "client RST translated")
    assert entry.state == "reset"
    assert summary(world.control.connections.tick(world.now + world.site.settings.linger - 0.1)) == []
    assert summary(world.control.connections.tick(world.now + world.site.settings.linger + 0.1)) == ["delete@lb-a"]
    assert world.control.connections.tick(world.now + 50) == []


def test_a_server_may_reset_too(world) -> None:
    entry = add(world)
    frame = packets.tcp_segment(ROUTER_MAC, lb_mac(world, True), ADDRESS, 80, CLIENT, 40001, flags=RST)
    packet_in(world, Kind.RESET, frame, inward=False)
    assert entry.state == "reset"


def after_a_reset(world) -> Entry:
    """A connection that a RST has ended."""
    entry = add(world)
    run(world, Kind.RESET, "client RST translated")
    world.now += world.site.settings.linger + 0.1
    world.control.connections.tick(world.now)
    assert len(serving(world).table) == 0 and entry.flags & GONE
    return entry


@pytest.mark.parametrize("inward", [True, False])
def test_a_connection_goes_on_whose_hosts_have_ignored_a_reset(world, inward: bool) -> None:
    """Field report F3: its sequence number was wrong, which only they could tell."""
    entry = after_a_reset(world)
    frame = from_client(world, ACK, payload=b"x") if inward else from_server(world, ACK)
    flow, side = ("in", "external") if inward else ("out", "internal")
    expected = [f"put-back-{flow}@lb-a", f"on-from-{side}@lb-a"]
    assert summary(packet_in(world, Kind.STRAY, frame, inward)) == expected
    assert serving(world).table.by_key(entry.key) is entry and entry.state == "open"
    run(world, Kind.RESET, "client RST translated")
    world.now += world.site.settings.linger + 0.1
    assert summary(world.control.connections.tick(world.now)) == ["delete@lb-a"], "and it can be reset again"


def test_a_reset_connection_is_forgotten_in_the_end(world) -> None:
    after_a_reset(world)
    world.now += REMEMBERED_SECONDS + 0.1
    world.control.connections.tick(world.now)
    assert summary(packet_in(world, Kind.STRAY, from_client(world, ACK))) == ["rst-to-external@lb-a"]
    assert len(serving(world).table) == 0


def test_a_reset_connection_does_not_come_back_after_another_with_its_ports(world) -> None:
    after_a_reset(world)
    packet_in(world, Kind.NEW, from_client(world, SYN, seq=999))  # to the same server, which has taken it
    other = serving(world).table.entries()
    world.control.connections.end_all(serving(world), list(other), world.now)
    assert summary(packet_in(world, Kind.STRAY, from_client(world, ACK))) == ["rst-to-external@lb-a"]


def test_no_more_reset_connections_are_remembered_than_may_be(monkeypatch) -> None:
    monkeypatch.setattr(endings, "REMEMBERED", 2)
    world = made()
    ports = (40001, 40002, 40003)
    for port in ports:
        add(world, port)
        frame = packets.tcp_segment(SERVER_MAC, lb_mac(world, False), CLIENT, port, SERVERS[0], 80, flags=RST)
        packet_in(world, Kind.RESET, frame)
    world.now += world.site.settings.linger + 0.1
    world.control.connections.tick(world.now)
    answers = [summary(packet_in(world, Kind.STRAY, from_client(world, ACK, port)))[0] for port in ports]
    assert answers == ["rst-to-external@lb-a", "put-back-in@lb-a", "put-back-in@lb-a"]
    assert world.control.ground.counters["resets_forgotten_early"] == 1


def test_a_forged_syn_makes_no_connection_immortal(world) -> None:
    """Once the datapath's cache must have forgotten the flows, a FIN both ways is an end again."""
    entry = add(world)
    packet_in(world, Kind.NEW, from_client(world, SYN, seq=entry.isn + 5))
    world.now += CACHED_SECONDS + 1
    removed(world, entry, True, age=1)
    removed(world, entry, False, age=1)
    assert len(serving(world).table) == 0


@pytest.mark.parametrize("repeated", [False, True])
def test_a_syn_after_a_reset_is_not_ended_by_the_linger(world, repeated: bool) -> None:
    """Nor is a repeated one: the server had answered the first for an earlier connection, which the client has
    reset."""
    entry = add(world)
    run(world, Kind.RESET, "client RST translated")
    packet_in(world, Kind.NEW, from_client(world, SYN, seq=entry.isn if repeated else 999))
    assert serving(world).table.by_key(entry.key).state == "open"
    assert world.control.connections.tick(world.now + 6) == []
    assert len(serving(world).table) == 1


@pytest.mark.parametrize("flag, inward", [(FIN_IN, False), (FIN_OUT, True)])
def test_a_connection_that_ends_while_it_moves_is_deleted_at_both(world, flag, inward) -> None:
    entry = add(world)
    entry.flags |= flag
    serving(world).holders.add("lb-b")
    assert sorted(summary(removed(world, entry, inward))) == ["delete@lb-a", "delete@lb-b"]


def test_a_connection_half_closed_before_a_move_leaves_nothing(world) -> None:
    entry = add(world)
    removed(world, entry, True)
    world.post(world.control.movement.start(serving(world).address, "lb-b", Strategy.PRECOPY, world.now)[1])
    world.settle(10.0)
    assert world.switches["lb-b"].entries()
    world.post(removed(world, entry, False, "lb-b"))
    world.settle(1.0)
    assert not any(switch.entries() for switch in world.switches.values())


def test_the_next_hop_is_learned_anew_from_the_client(world) -> None:
    """After a restart, when the flow to the client had run out."""
    entry = add(world, hop=NO_HOP)
    assert summary(packet_in(world, Kind.STRAY, from_server(world, ACK), False)) == ["delete@lb-a"]
    assert entry.next_hop == NO_HOP
    out = packet_in(world, Kind.STRAY, from_client(world, ACK))
    assert summary(out) == ["put-back-in-out@lb-a", "on-from-external@lb-a"]
    assert entry.next_hop == ROUTER_MAC


def test_a_flow_of_no_external_ip_is_ignored(world) -> None:
    key = pack_key(6, CLIENT, 1, bytes([198, 51, 100, 99]), 80)
    assert removed(world, Entry(key, reply_key(key, SERVERS[0], 80), ROUTER_MAC, 0.0), True) == []


# UDP.

def test_datagrams_before_the_entry_is_in_force_go_on_by_it() -> None:
    """Its flows are sent with the first one, and again if one comes here much later: they are lost then."""
    world = FakeSite(site(udp=True))
    world.control.ground.let_pass(EXTERNAL, ROUTER_MAC)
    world.settle(1.0)
    port = next(service.port for service in world.site.external_ips[0].services if service.protocol == "udp")
    datagram = struct.pack("!HHHH", 40001, port, 12, 0) + b"what"
    frame = packets.ip_frame(lb_mac(world, True), ROUTER_MAC, CLIENT, ADDRESS, 17, datagram)
    assert [type(message) for _, message in packet_in(world, Kind.NEW, frame)] == [AddEntries, PacketOut]
    [entry] = serving(world).table.entries()
    created, counters = entry.created, world.control.ground.switches["lb-a"].counters
    for _ in range(3):
        assert [type(message) for _, message in packet_in(world, Kind.NEW, frame)] == [PacketOut]
    world.now += 2.0
    assert [type(message) for _, message in packet_in(world, Kind.NEW, frame)] == [AddEntries, PacketOut]
    assert (entry.created, counters["early_datagrams"], counters["connections_opened"], len(serving(world).table)) == (
        created,
        4,
        1,
        1,
    )


# Errors and malformed packets.

def test_errors_name_the_address_they_are_for(world) -> None:
    ((_, out),) = packet_in(world, Kind.STRAY, from_client(world, ACK, seq=5, ack=1234))
    reset = packets.decode(out.frame)
    assert (reset.src, reset.src_port, reset.dst, reset.dst_port, reset.seq) == (ADDRESS, 80, CLIENT, 40001, 1234)
    assert (out.frame[:6], out.frame[6:12]) == (ROUTER_MAC, lb_mac(world, True))
    ((_, out),) = packet_in(world, Kind.UNASSIGNED, from_server(world, ACK), False, "lb-b")
    error = packets.decode(out.frame)
    assert (error.src, error.dst, error.protocol) == (bytes([10, 0, 0, 1]), SERVERS[0], 1)


def test_other_protocols_without_an_entry_are_answered_with_icmp(world) -> None:
    """UDP: port unreachable (3); other protocols: protocol unreachable (2)."""
    for protocol, code in ((17, 3), (132, 2)):
        frame = bytearray(from_client(world, ACK))
        frame[23] = protocol
        assert summary(packet_in(world, Kind.STRAY, bytes(frame))) == [f"icmp{code}-to-external@lb-a"]


@pytest.mark.parametrize("frame, counter", [(b"", "dropped_malformed"), (b"\0" * 60, "dropped_malformed")])
@pytest.mark.parametrize("kind", [Kind.NEW, Kind.STRAY, Kind.HOLD, Kind.UNASSIGNED, Kind.RESET])
def test_malformed_frames_are_counted(world, kind, frame, counter) -> None:
    assert packet_in(world, kind, frame) == []
    assert world.control.ground.switches["lb-a"].counters[counter] == 1


@pytest.mark.parametrize("kind", [Kind.NEW, Kind.STRAY, Kind.HOLD, Kind.UNASSIGNED, Kind.RESET])
def test_frames_cut_anywhere_do_no_harm(world, kind) -> None:
    whole = from_client(world, SYN)
    for end in range(len(whole)):
        assert packet_in(world, kind, whole[:end]) == []
    assert not len(serving(world).table)


def test_a_truncated_openflow_message_is_counted(world) -> None:
    assert world.control.packet_in("lb-a", bytes(20), world.now) == []
    assert world.control.ground.switches["lb-a"].counters["dropped_undecodable"] == 1


def test_packets_from_a_switch_that_is_not_read_back_are_dropped(world) -> None:
    world.disconnect("lb-a")
    world.connect("lb-a")
    assert packet_in(world, Kind.STRAY, from_client(world, FIN | ACK)) == []
    assert world.control.ground.switches["lb-a"].counters["dropped_not_ready"] == 1


# Held packets.

def test_held_packets_go_on_in_order(world) -> None:
    """Both directions, with the MAC of the LB that they go through."""
    for port in (40001, 40002):
        add(world, port)
    world.post(world.control.movement.start(serving(world).address, "lb-b", Strategy.BUFFERED, world.now)[1])
    while not any("lb-b" == name for name in world.routes.values()):
        world.round()
    before = len(world.to_switch["lb-b"])
    for port in (40001, 40002):
        assert packet_in(world, Kind.HOLD, from_client(world, ACK, port), True, "lb-b") == []
    assert packet_in(world, Kind.HOLD, from_server(world, ACK), False, "lb-b") == []
    while serving(world).held.held > serving(world).held.released:
        world.round()
    sent = [
        message for message in list(world.to_switch["lb-b"]) if isinstance(message, PacketOut) and message.output == -1
    ]
    assert before >= 0 and [(message.in_port, packets.decode(message.frame).src_port) for message in sent] == [
        (1, 40001), (1, 40002), (2, 80)]
    assert [message.frame[:6] for message in sent] == [lb_mac(world, True, "lb-b")] * 2 + [lb_mac(world, False, "lb-b")]
    world.settle(5.0)
    move = world.control.movement.records()["1"]
    assert (move.packets_held, move.packets_released, move.packets_lost) == (3, 3, 0)


def test_without_an_lb_in_normal_mode_packets_are_dropped_and_counted(world) -> None:
    world.disconnect("lb-a")
    assert packet_in(world, Kind.HOLD, from_client(world, ACK), True, "lb-b") == []
    assert world.control.ground.switches["lb-b"].counters["dropped_no_normal_lb"] == 1
