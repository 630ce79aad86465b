"""Switches are brought up to date a few flows at a time: whatever else is ordered meanwhile, in the end they hold what
the site wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.ground import resyncs
from lbctl.ground.resyncs import FLOWS_AT_ONCE
from lbctl.openflow import rules
from lbctl.site.model import Server, ServiceName, Site
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.effects import use_file
from tests.unit.fake_site import FakeSite, site

FIRST, SECOND = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")


@contextmanager
def few() -> Iterator[None]:
    """Of flows at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resyncs, "FLOWS_AT_FIRST", 7)
        patch.setattr(resyncs, "FLOWS_AT_ONCE", 7)
        patch.setattr(rules, "BATCH", 2)
        yield


def with_servers(base: Site, numbers: tuple[int, ...]) -> Site:
    """The first external IP has these servers."""
    first, *rest = base.external_ips
    service = replace(first.services[0], servers=tuple(Server(IPv4Address(f"10.0.0.{n}"), 80) for n in numbers))
    return replace(base, external_ips=(replace(first, services=(service,)), *rest))


def check(world: FakeSite) -> None:
    """Each switch holds what the site wants, and nothing else."""
    world.check_settled()
    for switch in world.control.ground.switches.values():
        portions = switch.portions(world.control.ground.configs())
        wanted = {flow.identity: flow for portion in portions for flow in portion}
        assert {flow.identity: flow for flow in switch.held.flows()} == wanted


def test_a_small_site_is_up_to_date_at_once() -> None:
    world = FakeSite(site())
    world.settle(1.0)
    world.post(use_file(world.control, with_servers(world.site, (10, 12)), world.now))
    assert not world.control.hurried
    world.drain()
    check(world)


@few()
def test_of_a_large_one_a_few_flows_are_looked_at_at_once() -> None:
    world = FakeSite(site())
    world.settle(1.0)
    world.post(use_file(world.control, with_servers(world.site, (10, 12)), world.now))
    turns = 1
    while world.control.hurried:
        world.post(world.control.ground.resyncs.step(world.now))
        turns += 1
    flows = sum(len(list(switch.held.flows())) for switch in world.control.ground.switches.values())
    assert turns > flows / 40 and flows < 2 * FLOWS_AT_ONCE
    world.drain()
    check(world)


@few()
def test_what_fails_in_between_is_begun_anew(monkeypatch) -> None:
    """Else what was not compared would be taken for needless. What was made together with it is missed by an audit."""
    world = FakeSite(site())
    world.settle(1.0)
    world.post(use_file(world.control, with_servers(world.site, (10, 12)), world.now))
    with monkeypatch.context() as patch:
        patch.setattr(rules, "external_ip_flows", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            for _ in range(100):
                world.post(world.control.ground.resyncs.step(world.now))
    assert world.control.hurried
    world.settle(70.0)
    check(world)


def move(world: FakeSite, address: IPv4Address) -> None:
    to = "lb-b" if world.serving(address).assigned == "lb-a" else "lb-a"
    world.post(world.control.movement.start(address, to, Strategy.PRECOPY, world.now)[1])


def another_file(world: FakeSite, numbers: tuple[int, ...]) -> None:
    world.site = with_servers(world.site, numbers)
    world.present |= {IPv4Address(f"10.0.0.{number}").packed for number in numbers}
    world.post(use_file(world.control, world.site, world.now))


def another_mac(world: FakeSite, number: int) -> None:
    address = IPv4Address(f"10.0.0.{number}")
    for name, switch in world.control.ground.switches.items():
        if behind := world.control.ground.external_ips.behind(address):
            digit = int(switch.neighbours.get(address, "0")[-1], 16)
            world.to_switch[name].extend(switch.set_neighbour(address, f"02:00:00:00:09:{digit + 1:02x}", behind))


def another_server(world: FakeSite, number: int) -> None:
    service, server = ServiceName(FIRST, "tcp", 80), Server(IPv4Address(f"10.0.0.{number}"), 80)
    world.post(world.control.services.add_server(service, server))


def steps(world: FakeSite, count: int) -> None:
    for _ in range(count):
        world.post(world.control.ground.resyncs.step(world.now))
        world.round()


def reconnect(world: FakeSite, name: str) -> None:
    if name in world.connected:
        world.disconnect(name)
        world.connect(name)


NUMBERS = st.integers(10, 14)
ORDERS = st.one_of(
    st.tuples(st.just(another_file), st.lists(NUMBERS, min_size=1, max_size=3, unique=True).map(tuple)),
    st.tuples(st.just(move), st.sampled_from([FIRST, SECOND])),
    st.tuples(st.just(another_mac), NUMBERS),
    st.tuples(st.just(another_server), NUMBERS),
    st.tuples(st.just(steps), st.integers(1, 5)),
    st.tuples(st.just(reconnect), st.sampled_from(["lb-a", "lb-b"])),
)


@given(orders=st.lists(ORDERS, max_size=15))
@few()
def test_whatever_is_ordered_meanwhile(orders) -> None:
    world = FakeSite(site(grace=0.2, automatic_failover=False))
    world.settle(1.0)
    for order, what in orders:
        with suppress(Refused):
            order(world, what)
    while world.control.hurried:
        world.tick(0.05)
        world.drain()
    world.settle(10.0)
    check(world)
