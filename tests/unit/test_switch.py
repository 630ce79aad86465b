"""A switch as the controller sees it: only the difference is sent, and nothing that stays is ever missing."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.openflow.messages import AddFlows, DeleteCookie, DeleteFlows
from lbctl.openflow.rules import ABSENT, SERVING, Role
from lbctl.switches.switch import PortState, Switch
from lbctl.values.transfer import TransferMode
from tests.unit.effects import brought_up_to_date
from tests.unit.fake_site import site
from tests.unit.fake_switch import METERS, FakeSwitch

SITE = site()
FIRST, SECOND = SITE.external_ips
ROLES = [
    SERVING,
    ABSENT,
    Role(TransferMode.NORMAL),
    Role(TransferMode.TRANSITION),
    Role(TransferMode.TRANSITION, arp=True),
    Role(TransferMode.TRANSITION, hold_all=True),
    Role(TransferMode.TRANSITION, hold_all=True, arp=True),
]


def ports(**changes) -> list[PortState]:
    fields = {"number": 1, "mac": "02:00:00:00:aa:01", "up": True} | changes
    return [PortState("lb-a-ext", **fields), PortState("lb-a-int", 2, "02:00:00:00:aa:02", True),
            PortState("another", 3, "02:00:00:00:aa:03", True)]


def ready_switch() -> Switch:
    switch = Switch(SITE.load_balancers[0])
    switch.set_ports(ports())
    switch.state = "ready"
    return switch


def fake() -> FakeSwitch:
    real = FakeSwitch("lb-a", 0xAA, "lb-a-ext", "lb-a-int", 5)
    real.meters = dict(METERS)
    return real


def apply(real: FakeSwitch, messages) -> None:
    for message in messages:
        real.apply(message, 0.0)


def held(real: FakeSwitch) -> Counter:
    return Counter((item.flow.table, item.flow.cookie) for item in real.flows())


def wanted(switch: Switch) -> set[str]:
    return {flow.text() for portion in switch.portions(SITE.external_ips) for flow in portion}


def texts(real: FakeSwitch) -> set[str]:
    return {item.flow.text() for item in real.flows()}


# Reconciliation.

def test_an_empty_switch_gets_everything_and_then_nothing() -> None:
    switch, real = ready_switch(), fake()
    switch.roles[FIRST.address] = SERVING
    apply(real, brought_up_to_date(switch, SITE.external_ips, held(real)))
    assert texts(real) == wanted(switch)
    before = real.hash()
    again = ready_switch()
    again.roles[FIRST.address] = SERVING
    assert brought_up_to_date(again, SITE.external_ips, held(real)) == []
    assert real.hash() == before


@given(st.data())
def test_any_damage_is_mended_by_the_difference(data) -> None:
    switch, real = ready_switch(), fake()
    switch.roles[FIRST.address] = data.draw(st.sampled_from(ROLES))
    apply(real, brought_up_to_date(switch, SITE.external_ips, held(real)))
    flows = [item.flow for item in real.flows()]
    lost = data.draw(st.lists(st.sampled_from(flows), max_size=5, unique=True))
    real.apply(DeleteFlows(tuple(lost)), 0.0)
    switch.roles[FIRST.address] = data.draw(st.sampled_from(ROLES))
    messages = brought_up_to_date(switch, SITE.external_ips, held(real))
    apply(real, messages)
    assert texts(real) == wanted(switch)
    added = {flow.identity for message in messages if isinstance(message, AddFlows) for flow in message.flows}
    assert len(added) <= len(lost) + 20, "what was right is not sent again"


def test_flows_of_an_older_release_go() -> None:
    switch, real = ready_switch(), fake()
    apply(real, brought_up_to_date(switch, SITE.external_ips, held(real)))
    old = next(item.flow for item in real.flows() if item.flow.table == "transfer_mode")
    messages = brought_up_to_date(
        ready_switch(), SITE.external_ips, held(real) + Counter({("transfer_mode", old.cookie ^ 1 << 32): 1})
    )
    assert messages == [DeleteCookie("transfer_mode", old.cookie ^ 1 << 32, (1 << 64) - 1)]


def test_without_ports_there_is_nothing_to_hold() -> None:
    switch = Switch(SITE.load_balancers[0])
    switch.set_ports([])
    switch.state = "ready"
    assert brought_up_to_date(switch, SITE.external_ips, Counter()) == [] and switch.of_ports is None
    assert switch.set_role(FIRST, SERVING) == []
    assert switch.set_neighbour(IPv4Address("10.0.0.10"), "02:00:00:00:00:0a", SITE.external_ips) == []


# Changes.

@given(st.lists(st.tuples(st.sampled_from([FIRST, SECOND]), st.sampled_from(ROLES)), max_size=8))
def test_after_any_roles_the_switch_holds_what_it_should(steps) -> None:
    switch, real = ready_switch(), fake()
    apply(real, brought_up_to_date(switch, SITE.external_ips, held(real)))
    for external_ip, role in steps:
        apply(real, switch.set_role(external_ip, role))
        assert texts(real) == wanted(switch)
    assert brought_up_to_date(switch, SITE.external_ips) == []


def test_a_change_adds_before_it_deletes() -> None:
    switch = ready_switch()
    switch.roles[FIRST.address] = SERVING
    brought_up_to_date(switch, SITE.external_ips, Counter())
    messages = switch.set_role(FIRST, ABSENT)
    assert [type(message) for message in messages] == [AddFlows, DeleteFlows]
    assert not {flow.identity for flow in messages[0].flows} & {flow.identity for flow in messages[1].flows}


def test_the_same_role_again_sends_nothing() -> None:
    switch = ready_switch()
    brought_up_to_date(switch, SITE.external_ips, Counter())
    switch.set_role(FIRST, SERVING)
    assert switch.set_role(FIRST, SERVING) == []


def test_a_server_with_another_mac() -> None:
    switch, server = ready_switch(), IPv4Address("10.0.0.10")
    brought_up_to_date(switch, SITE.external_ips, Counter())
    assert len(switch.set_neighbour(server, "02:00:00:00:00:0a", SITE.external_ips)[0].flows) == 1
    assert switch.set_neighbour(server, "02:00:00:00:00:0a", SITE.external_ips) == []
    (changed,) = switch.set_neighbour(server, "02:00:00:00:00:0b", SITE.external_ips)[0].flows
    assert "02:00:00:00:00:0b" in changed.text()


def test_a_disconnected_switch_only_remembers() -> None:
    switch = ready_switch()
    switch.disconnected("cut", 5.0)
    assert switch.set_role(FIRST, SERVING) == [] and switch.role(FIRST.address) == SERVING
    assert (switch.state, switch.reason, switch.lost_at) == ("disconnected", "cut", 5.0)


# Ports.

def test_missing_ports_are_named() -> None:
    switch = Switch(SITE.load_balancers[0])
    switch.set_ports(ports()[1:])
    assert "no port lb-a-ext" in switch.reason and "ovs-vsctl add-port" in switch.reason
    switch.set_ports([])
    assert "lb-a-ext" in switch.reason and "lb-a-int" in switch.reason


def test_a_port_that_goes_down_and_comes_back() -> None:
    switch = ready_switch()
    switch.set_ports(ports(up=False))
    assert switch.reason == "port lb-a-ext is down" and switch.of_ports is not None
    switch.set_ports(ports()[1:])
    assert switch.ports["external"].number is None and switch.of_ports.external.number == 1, "remembered"
    switch.set_ports(ports())
    assert switch.reason is None


@pytest.mark.parametrize("change", [{"number": 9}, {"mac": "02:00:00:00:aa:99"}])
def test_a_port_with_another_number_or_mac_changes_the_flows(change) -> None:
    switch, real = ready_switch(), fake()
    switch.roles[FIRST.address] = SERVING
    apply(real, brought_up_to_date(switch, SITE.external_ips, held(real)))
    switch.set_ports(ports(**change))
    apply(real, brought_up_to_date(switch, SITE.external_ips))
    assert texts(real) == wanted(switch)
    assert any(str(value) in text for text in texts(real) for value in change.values())
