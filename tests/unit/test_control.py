"""The control function's edges: switches that are not welcome, ports, orders that can't be carried out, odd tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbctl.frames import icmp, packets
from lbctl.frames.packets import ACK, SYN
from lbctl.ground.effects import Save
from lbctl.openflow.cookies import Kind, flow_cookie
from lbctl.openflow.errors import Refusal
from lbctl.openflow.messages import AddFlows, PacketOut
from lbctl.store import State
from lbctl.values.owners import owner_of
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy, TransferMode
from tests.unit.fake_site import FakeSite, site
from tests.unit.fake_switch import flow_removed, packet_in
from tests.unit.frames import CLIENT, CLIENT_MAC, EXTERNAL, LB_MAC, datagram, patched, segment, segment_v6

ADDRESS = IPv4Address("198.51.100.1")


def test_a_switch_that_connects_from_elsewhere_is_not_the_lb() -> None:
    plain = site()
    first, second = plain.load_balancers
    home, elsewhere = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
    world = FakeSite(replace(plain, load_balancers=(replace(first, management_address=home), second)))
    ports = world.switches["lb-a"].ports
    for stranger in (elsewhere, None):
        with pytest.raises(Refused, match="connects from 192.0.2.1"):
            world.control.switch_connected(0xAA, ports, world.now, stranger)
    assert world.control.ground.counters["switches_refused"] == 2
    assert world.control.switch_connected(0xAA, ports, world.now, home)[0] == "lb-a"
    assert world.control.switch_connected(0xAB, world.switches["lb-b"].ports, world.now, elsewhere)[0] == "lb-b"


def order(world, address=ADDRESS, to="lb-b", strategy=Strategy.PRECOPY):
    move, out = world.control.movement.start(address, to, strategy, world.now)
    world.post(out)
    return move


# Switches.

def test_an_unknown_switch_is_refused(world) -> None:
    with pytest.raises(Refused, match="no load balancer .* dpid 0000000000000bad; add it") as refused:
        world.control.switch_connected(0xBAD, [], world.now)
    assert refused.value.status == 404 and world.control.ground.counters["switches_refused"] == 1


def test_a_second_switch_with_a_dpid_is_refused_and_the_first_stays(world) -> None:
    with pytest.raises(Refused, match="lb-a .* is connected already"):
        world.control.switch_connected(0xAA, world.switches["lb-a"].ports, world.now)
    assert world.control.ground.switches["lb-a"].ready
    world.open(0)
    world.settle(1.0)
    world.check_settled()


def test_a_switch_without_its_ports_serves_when_they_come(world) -> None:
    switch = world.switches["lb-a"]
    world.disconnect("lb-a", lose_tables=True)
    ports, switch.ports = switch.ports, []
    world.connect("lb-a")
    world.drain()
    assert "no port lb-a-ext" in world.control.ground.switches["lb-a"].reason
    switch.ports = ports
    world.post(world.control.ports_changed("lb-a", ports, world.now))
    world.settle(2.0)
    conversation = world.open(0)
    world.drain()
    assert conversation.live
    world.check_settled()


def test_a_port_that_comes_back_is_announced(world) -> None:
    world.settle(10.0)
    down = [replace(world.switches["lb-a"].ports[0], up=False), world.switches["lb-a"].ports[1]]
    assert world.control.ports_changed("lb-a", down, world.now) == []
    out = world.control.ports_changed("lb-a", world.switches["lb-a"].ports, world.now)
    assert sum(isinstance(message, PacketOut) for _, message in out) >= 4, "two external IPs, two gateways"
    assert not any(isinstance(message, AddFlows) for _, message in out)


# What switches may send.

patches = st.dictionaries(st.integers(0, 200), st.integers(0, 255), max_size=4)
"""Other bytes at some places, also behind the end."""
MANY, ENOUGH = 1500, 100
"""Examples, however few others look at: so many that their ends are spread as these tests assert."""


def nearly(data: bytes, patch: dict[int, int]) -> bytes:
    return patched(data, {place: value for place, value in patch.items() if place < len(data)})


def right_packets(source: int = 40000) -> dict[str, tuple[Kind, int, bytes]]:
    """What the flows send to the controller, one of a kind: the kind of flow, the port it came in by, the frame.

    source: the client's port.
    """
    server = bytes([10, 0, 0, 11])
    from_server = {
        "eth_dst": LB_MAC,
        "eth_src": CLIENT_MAC,
        "src": server,
        "src_port": 8080,
        "dst": CLIENT,
        "dst_port": source,
    }
    from_client = {"eth_dst": LB_MAC, "eth_src": CLIENT_MAC, "src": CLIENT, "src_port": source, "dst": EXTERNAL,
                   "dst_port": 80}
    quoted = packets.tcp_segment(CLIENT_MAC, LB_MAC, EXTERNAL, 80, CLIENT, 40000, flags=ACK, seq=1)
    error = icmp.error(quoted, icmp.too_big(1300), CLIENT_MAC, bytes([203, 0, 113, 1]))
    assert error is not None
    return {
        "SYN": (Kind.NEW, 1, packets.tcp_segment(**from_client, flags=SYN, seq=1)),
        "ACK": (Kind.STRAY, 1, packets.tcp_segment(**from_client, flags=ACK, seq=1)),
        "datagram": (Kind.NEW, 1, datagram(src_port=source, dst_port=80)),
        "RST": (Kind.STRAY, 1, segment(flags=packets.RST)),
        "answer": (Kind.STRAY, 2, packets.tcp_segment(**from_server, flags=ACK, seq=1)),
        "held": (Kind.HOLD, 1, segment(flags=ACK)),
        "not here": (Kind.UNASSIGNED, 1, segment(flags=ACK)),
        "elsewhere": (
            Kind.RESET,
            1,
            packets.tcp_segment(LB_MAC, CLIENT_MAC, CLIENT, 40000, EXTERNAL, 81, flags=SYN, seq=1),
        ),
        "fragment": (Kind.FRAGMENT, 1, patched(datagram(), {20: 0x20})),
        "echo": (Kind.ECHO, 1, icmp.message(LB_MAC, CLIENT_MAC, CLIENT, EXTERNAL, 8, 0, 0x00070001, b"ping")),
        "error": (Kind.TRANSLATE_ICMP, 1, error),
        "last hop": (Kind.EXPIRED, 1, patched(segment(), {22: 1})),
        "too big": (Kind.TOO_BIG, 1, segment(flags=ACK, payload=bytes(1400))),
        "ARP": (Kind.SERVER_ARP, 2, packets.arp_question(CLIENT_MAC, LB_MAC, server, LB_MAC, bytes([10, 0, 0, 1]))),
        "IPv6": (Kind.STRAY, 1, segment_v6()),
    }


@pytest.mark.parametrize("nat", ["destination", "full"])
@pytest.mark.long
def test_any_packet_from_a_switch_is_survived(nat) -> None:
    """Right packets and nearly right ones, by the right flow and by any other: none raises, and they come to all ends
    that there are."""
    world = FakeSite(site(nat=nat, udp=True))
    world.settle(1.0)
    owners = [0, *(owner_of(serving.address.packed) for serving in world.control.ground.external_ips)]
    ends: Counter[str] = Counter()

    def arrives(kind: Kind, port: int, owner: int, name: str, frame: bytes) -> None:
        event = packet_in(flow_cookie(kind, owner, name), port, frame)
        before = Counter(world.control.ground.switches["lb-a"].counters)
        out = world.control.packet_in("lb-a", *event.arguments, world.now)
        ends.update(world.control.ground.switches["lb-a"].counters - before)
        ends.update(type(getattr(effect, "message", effect)).__name__ for effect in out)

    @settings(max_examples=MANY)
    @given(name=st.sampled_from(sorted(right_packets())), kind=st.one_of(st.none(), st.sampled_from(Kind)),
           port=st.one_of(st.none(), st.integers(0, 3)), owner=st.sampled_from(owners), source=st.integers(1, 0xFFFF),
           patch=st.one_of(st.just({}), patches), cut=st.one_of(st.just(0), st.integers(0, 60)))
    def survive(name, kind, port, owner, source, patch, cut) -> None:
        right_kind, right_port, frame = right_packets(source)[name]
        arrives(right_kind if kind is None else kind, right_port if port is None else port, owner, name,
                nearly(frame, patch)[:len(frame) - cut])

    for owner in owners:
        for name, (kind, port, frame) in right_packets().items():
            arrives(kind, port, owner, name, frame)
    survive()
    assert ends["dropped_undecodable"] == 0, "the header was right"
    assert ends.keys() >= {"PacketOut", "AddEntries", "connections_opened", "connections_refused", "entries_put_back",
                           "errors_sent", "dropped_malformed", "dropped_unknown_flow", "dropped_ttl_expired"}, ends
    most = max(count for end, count in ends.items() if end.startswith("dropped"))
    assert most < MANY / 2, "half of all, by one reason"


@given(st.binary(max_size=120))
def test_any_bytes_from_a_switch_are_survived(data) -> None:
    """What is no message at all."""
    world = test_any_bytes_from_a_switch_are_survived.world
    counters = world.control.ground.switches["lb-a"].counters
    before = counters["dropped_undecodable"]
    assert world.control.packet_in("lb-a", data, world.now) == [] and counters["dropped_undecodable"] == before + 1
    assert world.control.flow_removed("lb-a", data, world.now) == []
    assert world.control.flow_stats(12345, data, False, world.now) == []


test_any_bytes_from_a_switch_are_survived.world = FakeSite(site())
test_any_bytes_from_a_switch_are_survived.world.settle(1.0)


@pytest.mark.long
def test_any_flow_that_a_switch_says_has_run_out_is_survived() -> None:
    """One direction of a connection has run out; of the other it says the same, or nearly: some end the entry, some are
    not believed."""
    world = FakeSite(site())
    world.settle(1.0)
    entries_ended: Counter[bool] = Counter()

    @settings(max_examples=ENOUGH)
    @example(reason=0, direction="access_in", patch={})
    @example(reason=0, direction="access_in", patch={8: 0})  # the cookie: no flow of ours
    @given(reason=st.integers(0, 2), direction=st.sampled_from(["access_in", "access_out"]),
           patch=st.one_of(st.just({}), patches))
    def survive(reason, direction, patch) -> None:
        conversation = world.open(0)
        world.drain()
        key = world.key(conversation)
        flows = world.switches["lb-a"].flows()
        mine = {item.flow.table: item for item in flows if item.entry and item.entry[0] == key}
        last = mine.pop(direction)
        for item in mine.values():
            world.control.flow_removed("lb-a", flow_removed(item, world.now), world.now)
        world.control.flow_removed("lb-a", nearly(flow_removed(last, world.now, reason), patch), world.now)
        serving = next(iter(world.control.ground.external_ips))
        entries_ended[serving.table.by_key(key) is None] += 1

    survive()
    assert entries_ended[True] and entries_ended[False], entries_ended


@pytest.mark.long
def test_any_statistics_while_reading_are_survived() -> None:
    """Whatever a switch claims to hold, nearly what it does hold or anything, it becomes ready."""
    known: Counter[int] = Counter()

    @settings(max_examples=ENOUGH)
    @example(patch={}, instead=None)
    @example(patch={}, instead=b"")
    @example(patch={274: 3}, instead=None)  # A flow in a table that is none of ours.
    @given(patch=st.one_of(st.just({}), st.dictionaries(st.integers(0, 900), st.integers(0, 255), max_size=4)),
           instead=st.one_of(st.none(), st.binary(max_size=200)))
    def survive(patch, instead) -> None:
        world = FakeSite(site())
        world.settle(1.0)
        for _ in range(3):
            world.open(0)
        world.drain()
        world.restart_control()
        world.connect("lb-a")
        world.deliver("lb-a")
        for event in list(world.to_control["lb-a"]):
            if event.name == "flow_stats":
                token, body, more = event.arguments
                body = nearly(body, patch) if instead is None else instead
                world.control.flow_stats(token, body, more, world.now)
        assert world.control.ground.switches["lb-a"].ready
        known[len(next(iter(world.control.ground.external_ips)).table)] += 1

    survive()
    assert known[3] and known.keys() & {0, 1, 2}, "what was right is known, what was not is not"


def test_tokens_that_nobody_waits_for(world) -> None:
    assert world.control.confirmed(0xFFFFFF, world.now) == []
    assert world.control.failed("lb-a", 0xFFFFFF, Refusal("a question", "error", order=False), world.now) == []
    assert world.control.not_saved(0xFFFFFF, "disk full", world.now) == []
    assert world.control.flow_stats(0xFFFFFF, b"", False, world.now) == []


def test_what_was_asked_of_a_lost_lb_is_forgotten(world) -> None:
    world.settle(3.0)
    world.post(world.control.tick(world.now + 60))
    assert len(world.control.ground.tokens)
    for name in world.switches:
        world.disconnect(name)
    assert len(world.control.ground.tokens) == 0


# Orders.

@pytest.mark.parametrize("address, to, status, words", [
    ("198.51.100.99", "lb-b", 404, "no external IP"), ("198.51.100.1", "lb-z", 404, "no load balancer lb-z"),
    ("198.51.100.1", "lb-a", 409, "assigned to lb-a already")])
def test_orders_that_make_no_sense(world, address, to, status, words) -> None:
    with pytest.raises(Refused, match=words) as refused:
        order(world, IPv4Address(address), to)
    assert refused.value.status == status and not world.control.movement.records()


def test_a_second_order_for_a_moving_external_ip(world) -> None:
    order(world)
    with pytest.raises(Refused, match="is being moved to lb-b"):
        order(world)
    order(world, IPv4Address("198.51.100.2"))


@pytest.mark.parametrize("name", ["lb-a", "lb-b"])
def test_an_lb_that_is_not_connected(world, name) -> None:
    world.disconnect(name)
    with pytest.raises(Refused, match=f"{name} is disconnected"):
        order(world)


def test_a_target_with_a_port_down(world) -> None:
    down = [world.switches["lb-b"].ports[0], replace(world.switches["lb-b"].ports[1], up=False)]
    world.control.ports_changed("lb-b", down, world.now)
    with pytest.raises(Refused, match="lb-b: port lb-b-int is down"):
        order(world)


def test_a_target_that_does_not_reach_the_servers(world) -> None:
    del world.control.ground.switches["lb-b"].neighbours[IPv4Address("10.0.0.11")]
    with pytest.raises(Refused, match="lb-b has no ARP answer from 10.0.0.11 yet"):
        order(world)


def test_aborts(world) -> None:
    with pytest.raises(Refused, match="no record of a move 9"):
        world.control.movement.abort("9", world.now)
    move = order(world)
    world.post(world.control.movement.abort(move.id, world.now))
    assert (move.state, move.reason) == ("aborted", "on request")
    with pytest.raises(Refused, match="has ended"):
        world.control.movement.abort(move.id, world.now)
    world.settle(1.0)
    world.check_settled()
    second = order(world)
    while second.step != "normal":
        world.round()
    with pytest.raises(Refused, match="can only be moved back"):
        world.control.movement.abort(second.id, world.now)


@pytest.mark.long
def test_records_are_kept_but_not_for_ever(world) -> None:
    for number in range(210):
        order(world)
        world.post(world.control.movement.abort(str(number + 1), world.now))
    records = world.control.movement.records()
    assert len(records) <= 201 and "210" in records and "1" not in records


def test_the_store_that_cannot_save_undoes_the_move(world) -> None:
    move = order(world)
    while not any(message.token for message in world.saves):
        world.round() if not world.saves else None
        world.saves = type(world.saves)(message for message in world.saves if message.token)
    token = world.saves.popleft().token
    world.post(world.control.not_saved(token, "no space left", world.now))
    assert (move.state, move.reason) == ("rolled-back", "no space left")
    world.settle(5.0)
    world.check_settled()


def test_a_switch_that_refuses_the_entries_undoes_the_move(world) -> None:
    world.open(0)
    world.settle(1.0)
    move = order(world)
    while move.step != "copy":
        world.round()
    token = next(message.token for message in world.to_switch["lb-b"] if getattr(message, "entries", None))
    world.post(world.control.failed("lb-b", token, Refusal("a bundle", "table full"), world.now))
    assert (move.state, move.reason) == ("rolled-back", "lb-b: it refuses a bundle: table full")
    world.settle(5.0)
    world.check_settled()


# The state.

def test_a_stored_lb_that_is_gone_counts_for_nothing() -> None:
    world = FakeSite(site())
    world.stored = State({ADDRESS: "lb-gone"})
    world.restart_control()
    assert world.serving(ADDRESS).assigned == "lb-a"
    world.stored = State({ADDRESS: "lb-b"})
    world.restart_control()
    assert world.serving(ADDRESS).assigned == "lb-b"
    world.settle(1.0)
    roles = world.control.ground.switches["lb-b"].roles
    assert {ip: role.mode for ip, role in roles.items() if role.mode} == {ADDRESS: TransferMode.NORMAL}


def test_the_first_state_is_saved() -> None:
    control = FakeSite(site()).control
    saves = [effect for effect in control.tick(1e6) if isinstance(effect, Save)]
    assert saves == [Save(control.ground.state)] and not [
        effect for effect in control.tick(1e6 + 1) if isinstance(effect, Save)
    ]
