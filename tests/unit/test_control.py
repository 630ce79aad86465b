"""The control function's edges: switches that are not welcome, ports, orders that can't be carried out, odd tokens."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.ground.effects import Save
from lbctl.openflow.messages import AddFlows, PacketOut
from lbctl.store import State
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy, TransferMode
from tests.unit.fake_site import FakeSite, site

ADDRESS = IPv4Address("198.51.100.1")


@pytest.fixture
def world() -> FakeSite:
    world = FakeSite(site())
    world.settle(1.0)
    return world


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


@given(st.binary(max_size=120))
def test_any_bytes_from_a_switch_are_survived(data) -> None:
    world = test_any_bytes_from_a_switch_are_survived.world
    for name in world.switches:
        world.control.packet_in(name, data, world.now)
        world.control.flow_removed(name, data, world.now)
        world.control.flow_stats(12345, data, False, world.now)


test_any_bytes_from_a_switch_are_survived.world = FakeSite(site())
test_any_bytes_from_a_switch_are_survived.world.settle(1.0)


@given(st.binary(max_size=200))
def test_any_statistics_while_reading_are_survived(data) -> None:
    """Whatever a switch claims to hold, it becomes ready."""
    world = FakeSite(site())
    world.connect("lb-a")
    world.deliver("lb-a")
    for event in list(world.to_control["lb-a"]):
        if event.name == "flow_stats":
            token, _, more = event.arguments
            world.control.flow_stats(token, data, more, world.now)
    assert world.control.ground.switches["lb-a"].ready


def test_tokens_that_nobody_waits_for(world) -> None:
    assert world.control.confirmed(0xFFFFFF, world.now) == []
    assert world.control.failed("lb-a", 0xFFFFFF, "error", world.now) == []
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
    world.post(world.control.failed("lb-b", token, "table full", world.now))
    assert (move.state, move.reason) == ("rolled-back", "table full")
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
    assert {ip: role.mode for ip, role in world.control.ground.switches["lb-b"].roles.items() if role.mode} == {ADDRESS: TransferMode.NORMAL}


def test_the_first_state_is_saved() -> None:
    control = FakeSite(site()).control
    saves = [effect for effect in control.tick(1e6) if isinstance(effect, Save)]
    assert saves == [Save(control.ground.state())] and not [effect for effect in control.tick(1e6 + 1) if isinstance(effect, Save)]
