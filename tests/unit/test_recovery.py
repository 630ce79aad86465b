"""What the controller makes of the entries that it reads back: after its own restart, the switch's, or a cut
connection."""

from __future__ import annotations

import pytest

from lbctl.entries.access_table import Entry
from lbctl.frames.packets import ACK, FIN, RST, SYN
from lbctl.openflow.messages import AddEntries, AddFlows, DeleteCookie, DeleteEntries, DeleteFlows
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.transfer import Strategy
from tests.unit.fake_site import FakeSite, site

CHANGES = (AddFlows, DeleteFlows, DeleteCookie, AddEntries, DeleteEntries)


@pytest.fixture
def world() -> FakeSite:
    """Three connections at each of two external IPs, both at lb-a; everything settled."""
    world = FakeSite(site())
    world.settle(1.0)
    for number in range(6):
        world.open(number % 2)
    world.settle(1.0)
    return world


def changes(world: FakeSite, name: str = "lb-a") -> list:
    """Connects the LB, delivers until it is ready, and returns the changes that were sent to it."""
    found = []
    world.connect(name)
    while world.to_switch[name] or world.to_control[name]:
        found += [message for message in world.to_switch[name] if isinstance(message, CHANGES)]
        world.deliver(name)
        world.hear(name)
    assert world.control.ground.switches[name].state == "ready"
    return found


def table(world: FakeSite, place: int = 0):
    return world.serving(world.site.external_ips[place].address).table


def test_a_restarted_controller_changes_nothing(world) -> None:
    before = {name: switch.hash() for name, switch in world.switches.items()}
    old = {entry.key: entry.connection for entry in table(world).entries()}
    world.restart_control()
    for name in world.switches:
        assert changes(world, name) == []
    assert {name: switch.hash() for name, switch in world.switches.items()} == before
    assert {entry.key: entry.connection for entry in table(world).entries()} == old
    world.check_now()
    world.settle(5.0)
    world.check_settled()


def test_a_restarted_switch_gets_everything_back(world) -> None:
    before = world.switches["lb-a"].hash()
    world.disconnect("lb-a", lose_tables=True)
    changes(world)
    assert world.switches["lb-a"].hash() == before
    world.settle(5.0)
    world.check_settled()


def test_entries_come_before_the_flows_that_use_them(world) -> None:
    """Else a packet of a known connection would get a RST in between."""
    world.disconnect("lb-a", lose_tables=True)
    kinds = [type(message) for message in changes(world)]
    assert kinds.index(AddEntries) < kinds.index(AddFlows)


def test_a_cut_connection_changes_nothing(world) -> None:
    before = world.switches["lb-a"].hash()
    world.disconnect("lb-a")
    assert changes(world) == []
    assert world.switches["lb-a"].hash() == before


def test_what_ended_while_nobody_looked_is_forgotten(world) -> None:
    conversation = world.conversations[0]
    world.disconnect("lb-a")
    world.from_client(conversation, FIN | ACK)
    world.from_server(conversation, FIN | ACK)
    world.tick(6.0)
    changes(world)
    assert len(table(world)) == 2
    world.settle(1.0)
    world.check_settled()


def test_half_closed_and_ended_while_nobody_looked(world) -> None:
    world.from_client(world.conversations[0], FIN | ACK)
    world.settle(8.0)
    assert next(iter(table(world).entries())).state == "half-closed"
    world.disconnect("lb-a")
    world.from_server(world.conversations[0], FIN | ACK)
    world.tick(6.0)
    changes(world)
    assert len(table(world)) == 2


def begin_grace_with_the_source_being_read_back(world) -> None:
    """The answers of lb-a are under way, and a connection is made at lb-b."""
    world.post(world.control.movement.start(world.site.external_ips[0].address, "lb-b", Strategy.PRECOPY, world.now)[1])
    while world.control.movement.records()["1"].step != "grace":
        world.round()
    world.disconnect("lb-a")
    world.drain()
    world.connect("lb-a")
    world.deliver("lb-a")
    conversation = world.open(0)
    for _ in range(3):
        world.hear("lb-b")
        world.deliver("lb-b")
    assert conversation.live


def test_an_entry_made_elsewhere_while_an_lb_is_read_back(world) -> None:
    """Then the target dies, so that the source serves on."""
    begin_grace_with_the_source_being_read_back(world)
    world.disconnect("lb-b", lose_tables=True)
    world.drain()
    world.check_now()
    world.settle(3.0)
    assert world.serving(world.site.external_ips[0].address).assigned == "lb-a"
    world.check_now()
    world.check_settled()


def test_an_lb_that_is_read_back_while_the_move_ends_forgets_all(world) -> None:
    begin_grace_with_the_source_being_read_back(world)
    world.tick(4.0)
    assert world.control.movement.records()["1"].ended
    world.settle(3.0)
    world.check_now()
    world.check_settled()


def test_one_direction_that_ended_while_nobody_looked(world) -> None:
    world.disconnect("lb-a")
    world.from_client(world.conversations[0], FIN | ACK)
    world.tick(6.0)
    changes(world)
    assert sorted(entry.state for entry in table(world).entries()) == ["half-closed", "open", "open"]
    world.from_server(world.conversations[0], FIN | ACK)
    world.settle(8.0)
    assert len(table(world)) == 2 and len(world.switches["lb-a"].entries()) == 5


@pytest.mark.parametrize("client_first", [True, False])
def test_half_closed_connections_survive_a_restart(world, client_first) -> None:
    first, second = (world.from_client, world.from_server) if client_first else (world.from_server, world.from_client)
    first(world.conversations[0], FIN | ACK)
    world.settle(8.0)
    world.restart_control()
    world.settle(1.0)
    for _ in range(2):
        second(world.conversations[0])
        world.from_client(world.conversations[0])
        world.drain()
    world.check_now()
    assert world.data[-2].arrivals == world.data[-1].arrivals == 1
    second(world.conversations[0], FIN | ACK)
    world.settle(12.0)
    assert len(table(world)) == 2 and len(world.switches["lb-a"].entries()) == 5


def test_a_client_comes_again_whose_answers_flow_has_run_out_while_nobody_looked(world) -> None:
    """Its SYN tells where it is answered to, which the flow that is left did not."""
    ended = world.conversations[0]
    world.restart_control()
    world.connect("lb-a")
    world.from_server(ended, RST)
    world.tick(4.8)
    world.settle(0.0)
    world.open(0, reuse=ended)
    world.settle(1.0)
    world.check_now()
    assert world.conversations[-1].live


def test_ages_are_read_back(world) -> None:
    """An entry must not seem younger than its flows: their end would be taken for an earlier connection's."""
    conversation = world.conversations[0]
    world.settle(20.0)
    world.from_client(conversation, FIN | ACK)
    world.settle(8.0)
    world.from_client(conversation)
    world.settle(1.0)
    assert world.switches["lb-a"].entries()[world.key(conversation)] == {"access_in", "access_out"}
    world.restart_control()
    world.settle(1.0)
    world.from_server(conversation, FIN | ACK)
    world.from_client(conversation, FIN | ACK)
    world.settle(12.0)
    assert table(world).by_key(world.key(conversation)) is None


def strange_entry(world, address: bytes) -> Entry:
    key = pack_key(6, bytes([203, 0, 113, 99]), 7, address, 80)
    return Entry(key, reply_key(key, bytes([10, 0, 0, 10]), 80), bytes.fromhex("02000000c0fe"), world.now)


@pytest.mark.parametrize(
    "address", [bytes([198, 51, 100, 1]), bytes([198, 51, 100, 200])], ids=["ours", "no external IP"]
)
def test_entries_that_nobody_knows_are_deleted(world, address) -> None:
    world.disconnect("lb-a")
    world.switches["lb-a"].apply(AddEntries((strange_entry(world, address),)), world.now)
    (sent,) = changes(world)
    assert isinstance(sent, DeleteEntries) and len(sent.entries) == 1
    assert len(world.switches["lb-a"].entries()) == 6


def test_entries_at_an_lb_that_is_not_the_holder_are_deleted(world) -> None:
    world.disconnect("lb-b")
    world.switches["lb-b"].apply(AddEntries(tuple(table(world).entries())), world.now)
    changes(world, "lb-b")
    assert not world.switches["lb-b"].entries() and len(table(world)) == 3


def test_a_strange_entry_with_a_known_key_is_replaced(world) -> None:
    """The switch says another server than the controller: the controller is right."""
    entry = next(iter(table(world).entries()))
    wrong = Entry(entry.key, reply_key(entry.key, bytes([10, 0, 0, 99]), 80), entry.next_hop, world.now)
    world.disconnect("lb-a")
    world.switches["lb-a"].apply(DeleteEntries((entry,)), world.now)
    world.switches["lb-a"].apply(AddEntries((wrong,)), world.now)
    changes(world)
    world.settle(1.0)
    world.from_client(world.conversations[0])
    world.from_server(world.conversations[0])
    world.drain()
    world.check_now()


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("rounds", range(0, 14))
def test_a_controller_that_dies_in_a_move(world, strategy, rounds) -> None:
    """At whatever message: the new one finishes the move or has it undone, and everybody goes on talking."""
    world.post(world.control.movement.start(world.site.external_ips[0].address, "lb-b", strategy, world.now)[1])
    for _ in range(rounds):
        world.round()
    world.restart_control()
    for conversation in world.conversations:
        world.from_client(conversation)
        world.from_server(conversation)
    world.settle(20.0)
    world.check_now()
    world.check_settled()


def test_a_move_back_before_the_first_lb_has_forgotten(world) -> None:
    """An entry that ends in between is not left there."""
    address = world.site.external_ips[0].address
    world.post(world.control.movement.start(address, "lb-b", Strategy.PRECOPY, world.now)[1])
    while world.serving(address).move:
        world.round()
        world.tick(0.1)
    assert world.switches["lb-a"].entries(address)
    world.from_client(world.conversations[0], RST)
    world.round()
    world.post(world.control.connections.tick(world.now + 6))
    world.post(world.control.movement.start(address, "lb-a", Strategy.PRECOPY, world.now)[1])
    world.settle(5.0)
    assert world.serving(address).assigned == "lb-a" and len(world.switches["lb-a"].entries(address)) == 2
    world.check_settled()


@pytest.mark.parametrize("missing", ["lb-a", "lb-b"])
@pytest.mark.parametrize("rounds", range(3, 8))
def test_a_restart_in_a_move_with_only_one_lb_left(world, missing, rounds) -> None:
    world.post(world.control.movement.start(world.site.external_ips[0].address, "lb-b", Strategy.PRECOPY, world.now)[1])
    for _ in range(rounds):
        world.round()
    world.restart_control()
    other = "lb-b" if missing == "lb-a" else "lb-a"
    world.connect(other)
    for _ in range(60):
        world.drain()
        world.tick(0.25)
    serving = world.serving(world.site.external_ips[0].address)
    assert serving.move is None, "it doesn't wait for ever"
    world.check_now()
    world.settle(10.0)
    world.check_now()
    world.check_settled()


def test_a_switch_that_is_lost_while_it_is_read_back(world) -> None:
    world.disconnect("lb-a")
    world.connect("lb-a")
    world.deliver("lb-a", 5)
    world.hear("lb-a", 2)
    world.disconnect("lb-a")
    assert changes(world) == [] and len(table(world)) == 3


def test_a_syn_while_reading_is_not_lost_for_good(world) -> None:
    world.disconnect("lb-a")
    world.connect("lb-a")
    conversation = world.open(0)
    world.drain()
    world.from_client(conversation, SYN)
    world.drain()
    assert conversation.live
