"""What is ordered is confirmed: what a switch refuses, and what somebody changes by hand."""

from __future__ import annotations

import struct
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.failures.audits import FIRST_RETRY, LAST_RETRY, PERIOD
from lbctl.failures.comeback import READ_WITHIN, TRY_AGAIN
from lbctl.openflow.cookies import MARK, Kind, flow_cookie
from lbctl.openflow.errors import Refusal, decode_error
from lbctl.openflow.messages import AddFlows, ReadFlows
from lbctl.openflow.tables import TABLES, number
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.effects import fail_over
from tests.unit.fake_site import FakeSite, site
from tests.unit.fake_switch import Event, Installed

ADDRESS = IPv4Address("198.51.100.1")


def conditions(world: FakeSite) -> list[str]:
    return [switch.condition for switch in world.control.ground.switches.values()]


def put_right(world: FakeSite) -> int:
    return world.control.ground.switches["lb-a"].counters["flows_put_right"]


def long(world: FakeSite) -> None:
    """Each LB is looked at once, at least."""
    world.settle(2 * PERIOD, step=0.5)


# What somebody changes.


def test_what_is_as_ordered_is_left_alone(world) -> None:
    world.open(0)
    long(world)
    assert put_right(world) == 0 and conditions(world) == ["ready", "ready"]
    assert world.control.ground.switches["lb-a"].counters["audits"] >= 1


@given(st.data())
def test_flows_that_are_deleted_come_back(data) -> None:
    world = FakeSite(site())
    world.settle(1.0)
    switch = world.switches["lb-a"]
    before = switch.hash()
    rows = [(table, identity) for table, found in switch.tables.items() for identity in found]
    gone = data.draw(st.lists(st.sampled_from(rows), min_size=1, max_size=20, unique=True))
    for table, identity in gone:
        del switch.tables[table][identity]
    long(world)
    assert switch.hash() == before and put_right(world) >= 1
    world.check_settled()


def test_flows_that_are_deleted_with_their_meters_come_back(world) -> None:
    switch = world.switches["lb-a"]
    before, meters = switch.hash(), dict(switch.meters)
    switch.meters.clear()
    for rows in switch.tables.values():
        for identity in [identity for identity, item in rows.items() if item.flow.meter is not None]:
            del rows[identity]
    long(world)
    assert (switch.hash(), switch.meters) == (before, meters)


def test_flows_whose_actions_are_changed_are_made_anew(world) -> None:
    """Their cookies stay as they were."""
    long(world)
    switch = world.switches["lb-a"]
    before = switch.hash()
    item = next(item for item in switch.tables["transfer_mode"].values() if item.flow.actions)
    item.flow = replace(item.flow, actions=())
    long(world)
    assert switch.hash() == before and put_right(world) == 1
    long(world)
    assert put_right(world) == 1


def test_flows_with_our_mark_that_nobody_ordered_go(world) -> None:
    switch = world.switches["lb-a"]
    before = switch.hash()
    item = next(iter(switch.tables["transfer_mode"].values()))
    stale = replace(item.flow, priority=777, cookie=flow_cookie(Kind.MODE, 1, "of another site file"))
    switch.tables["transfer_mode"][stale.identity] = Installed(stale, world.now, world.now)
    twice = replace(item.flow, priority=778)  # somebody has copied one
    switch.tables["transfer_mode"][twice.identity] = Installed(twice, world.now, world.now)
    long(world)
    assert switch.hash() == before


def test_flows_of_others_are_counted_and_left_alone(world) -> None:
    switch, known = world.switches["lb-a"], world.control.ground.switches["lb-a"]
    item = next(iter(switch.tables["arp"].values()))
    other = replace(item.flow, priority=9, cookie=0)
    switch.tables["arp"][other.identity] = Installed(other, world.now, world.now)
    long(world)
    assert other.identity in switch.tables["arp"] and known.foreign == 1 and known.fit
    del switch.tables["arp"][other.identity]
    long(world)
    assert known.foreign == 0


def test_what_changes_while_it_is_looked_at_is_not_wrong(world) -> None:
    """A move's orders pass the question, or the answer."""
    for turn in range(int(PERIOD) * 4):
        if turn % 10 == 0 and not world.serving(ADDRESS).move:
            to = "lb-b" if world.serving(ADDRESS).assigned == "lb-a" else "lb-a"
            world.post(world.control.movement.start(ADDRESS, to, Strategy.PRECOPY, world.now)[1])
        world.tick(0.5)
        world.round()
    world.settle(10.0)
    assert all(switch.counters["flows_put_right"] == 0 for switch in world.control.ground.switches.values())
    world.check_settled()


# What is refused.


def test_an_lb_that_refuses_is_unfit_until_it_takes_it(world) -> None:
    switch = world.switches["lb-b"]
    switch.full = {"arp", "transfer_mode"}
    move, out = world.control.movement.start(ADDRESS, "lb-b", Strategy.PRECOPY, world.now)
    world.post(out)
    while move.state == "running":
        world.tick(0.05)
        world.drain()
    assert move.state == "rolled-back" and "that table is full" in move.reason
    assert conditions(world) == ["ready", "unfit"]
    with pytest.raises(Refused, match="unfit"):
        world.control.movement.start(ADDRESS, "lb-b", Strategy.PRECOPY, world.now)
    with pytest.raises(Refused, match="no load balancer but"):
        fail_over(world.control, "lb-a", world.now)
    assert world.control.balancing.problem().capacities[1].drained
    switch.full = set()
    world.settle(2 * LAST_RETRY, step=0.5)
    assert conditions(world) == ["ready", "ready"]
    world.post(world.control.movement.start(ADDRESS, "lb-b", Strategy.PRECOPY, world.now)[1])
    world.settle(5.0)
    assert world.serving(ADDRESS).assigned == "lb-b"
    world.check_settled()


def test_what_is_refused_is_tried_again_less_and_less_often(world) -> None:
    switch = world.switches["lb-b"]
    world.disconnect("lb-b")
    switch.lose_tables()
    switch.full = {"arp"}
    world.connect("lb-b")
    world.settle(1.0)
    assert conditions(world) == ["ready", "unfit"]
    tries: list[float] = []
    for _ in range(int(3 * LAST_RETRY * 2)):
        world.tick(0.5)
        if any(isinstance(message, ReadFlows) and message.table == "sources" for message in world.to_switch["lb-b"]):
            tries.append(world.now)
        world.drain()
    waits = [after - before for before, after in zip(tries, tries[1:], strict=False)]
    assert waits == sorted(waits) and waits[0] <= 4 * FIRST_RETRY and waits[-1] <= LAST_RETRY + 1, waits


def test_the_refusal_of_one_connections_flow_undoes_no_move(world) -> None:
    move, out = world.control.movement.start(ADDRESS, "lb-b", Strategy.PRECOPY, world.now)
    world.post(out)
    refusal = Refusal("a flow of table access_in (20)", "that table is full", of_entry=True)
    world.post(world.control.failed("lb-a", 0, refusal, world.now))
    world.settle(5.0)
    assert move.state == "done"


def test_an_lb_is_ready_when_it_has_confirmed_its_flows() -> None:
    world = FakeSite(site())
    world.connect("lb-a")
    known, seen = world.control.ground.switches["lb-a"], []
    ordered = None
    while known.condition != "ready":
        seen.append((known.condition, known.ready))
        ordered = ordered or ({flow.identity for flow in known.held.flows()} if known.ready else None)
        world.round()
    assert ("reading", True) in seen, "its flows were under way"
    assert {item.flow.identity for item in world.switches["lb-a"].flows()} >= ordered


# Reading back.


def test_an_lb_that_does_not_tell_what_it_holds_is_asked_again(world) -> None:
    world.disconnect("lb-b")
    world.connect("lb-b")
    world.to_switch["lb-b"].clear()
    world.tick(READ_WITHIN / 2)
    world.drain()
    assert conditions(world)[1] == "reading"
    world.tick(READ_WITHIN)
    world.settle(1.0)
    assert conditions(world)[1] == "ready"


def test_an_lb_that_refuses_to_tell_is_asked_again_soon(world) -> None:
    world.disconnect("lb-b")
    world.connect("lb-b")
    token = next(message.token for message in world.to_switch["lb-b"] if isinstance(message, ReadFlows))
    world.to_switch["lb-b"].clear()
    world.to_control["lb-b"].append(Event("failed", (token, Refusal("a question", "error", order=False))))
    world.drain()
    world.tick(2 * TRY_AGAIN)
    world.settle(1.0)
    assert conditions(world)[1] == "ready"
    assert len(world.control.ground.tokens) == 0


# The words.


def error(kind: int, code: int, refused: bytes) -> bytes:
    return struct.pack("!BBHIHH", 5, 1, 12 + len(refused), 0x4C000000, kind, code) + refused


def flow_mod(cookie: int, table: str) -> bytes:
    return struct.pack("!BBHIQQB", 5, 14, 80, 0x4C000000, cookie, 0, number(table)) + bytes(39)


def test_a_full_table() -> None:
    found = decode_error(error(5, 1, flow_mod(MARK << 56 | Kind.ARP << 48, "arp")))
    assert str(found) == "it refuses a flow of table arp (1): that table is full"
    assert found.order and not found.of_entry and "flow_limit" in found.mend


@pytest.mark.parametrize("kind", [Kind.ENTRY_IN, Kind.ENTRY_OUT])
def test_the_flow_of_an_entry(kind: Kind) -> None:
    found = decode_error(error(5, 1, flow_mod(MARK << 56 | kind << 48, "access_in")))
    assert found.of_entry and found.order


def test_no_meters() -> None:
    found = decode_error(error(12, 10, struct.pack("!BBHI", 5, 29, 32, 0) + bytes(24)))
    assert str(found) == "it refuses a meter: it has no meters, or no more" and "4.15" in found.mend
    assert "needs a meter" in str(decode_error(error(12, 3, flow_mod(MARK << 56, "arp"))))


def test_a_meter_that_is_there_already_is_no_error() -> None:
    assert decode_error(error(12, 1, struct.pack("!BBHI", 5, 29, 32, 0))) is None


def test_a_packet_or_question_is_no_order() -> None:
    for kind in (13, 18):
        found = decode_error(error(1, 2, struct.pack("!BBHI", 5, kind, 16, 0)))
        assert not found.order and "type 1 code 2" in str(found)


@given(st.binary(max_size=100))
def test_any_error_has_words(rest: bytes) -> None:
    found = decode_error(struct.pack("!BBHI", 5, 1, 12, 0) + (rest + bytes(4))[:max(4, len(rest))])
    assert found is None or str(found).isprintable()


def test_there_is_a_question_for_each_table(world) -> None:
    asked = set()
    for _ in range(int(PERIOD) + 1):
        world.tick(1.0)
        asked |= {message.table for message in world.to_switch["lb-a"] if isinstance(message, ReadFlows)}
        assert not any(isinstance(message, AddFlows) for message in world.to_switch["lb-a"])
        world.drain()
    assert set(TABLES) <= asked
