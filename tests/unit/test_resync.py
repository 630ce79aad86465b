"""Switches are brought up to date a few flows at a time: whatever else is ordered meanwhile, in the end they hold what
the site wants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from tests.unit.fake_site import FakeSite, site

FIRST, SECOND = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2")


@contextmanager
def few() -> Iterator[None]:
    """Of flows at once."""
    with pytest.MonkeyPatch.context() as patch:
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
    world.post(world.control.services.use_file(with_servers(world.site, (10, 12)), world.now))
    assert not world.control.hurried
    world.drain()
    check(world)


@few()
def test_of_a_large_one_a_few_flows_are_looked_at_at_once() -> None:
    world = FakeSite(site())
    world.settle(1.0)
    world.post(world.control.services.use_file(with_servers(world.site, (10, 12)), world.now))
    turns = 1
    while world.control.hurried:
        world.post(world.control.ground.resyncs.step())
        turns += 1
    flows = sum(len(list(switch.held.flows())) for switch in world.control.ground.switches.values())
    assert turns > flows / 40 and flows < 2 * FLOWS_AT_ONCE
    world.drain()
    check(world)


ORDERS = st.one_of(
    st.tuples(st.just("file"), st.lists(st.integers(10, 14), min_size=1, max_size=3, unique=True).map(tuple)),
    st.tuples(st.just("move"), st.sampled_from([FIRST, SECOND])),
    st.tuples(st.just("mac"), st.integers(10, 14)),
    st.tuples(st.just("server"), st.integers(10, 14)),
    st.tuples(st.just("step"), st.integers(1, 5)),
    st.tuples(st.just("lost"), st.sampled_from(["lb-a", "lb-b"])),
)


@given(orders=st.lists(ORDERS, max_size=15))
@few()
def test_whatever_is_ordered_meanwhile(orders) -> None:
    world = FakeSite(site(grace=0.2, automatic_failover=False))
    world.settle(1.0)
    macs = 0
    for order, what in orders:
        try:
            match order:
                case "file":
                    world.site = with_servers(world.site, what)
                    world.present |= {IPv4Address(f"10.0.0.{number}").packed for number in what}
                    world.post(world.control.services.use_file(world.site, world.now))
                case "move":
                    to = "lb-b" if world.serving(what).assigned == "lb-a" else "lb-a"
                    world.post(world.control.movement.start(what, to, Strategy.PRECOPY, world.now)[1])
                case "mac":
                    macs += 1
                    address = IPv4Address(f"10.0.0.{what}")
                    for name, switch in world.control.ground.switches.items():
                        behind = world.control.ground.external_ips.behind(address)
                        if behind:
                            mac = f"02:00:00:00:09:{macs:02x}"
                            world.to_switch[name].extend(switch.set_neighbour(address, mac, behind))
                case "server":
                    service = ServiceName(FIRST, "tcp", 80)
                    world.post(world.control.services.add_server(service, Server(IPv4Address(f"10.0.0.{what}"), 80)))
                case "lost":
                    if what in world.connected:
                        world.disconnect(what)
                        world.connect(what)
                case "step":
                    for _ in range(what):
                        world.post(world.control.ground.resyncs.step())
                        world.round()
        except Refused:
            pass
    while world.control.hurried:
        world.tick(0.05)
        world.drain()
    world.settle(10.0)
    check(world)
