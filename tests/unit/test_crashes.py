"""State has one owner: whenever the controller is killed, a new one finds all of it in the switches and in its state
file; at most what was not yet answered is missing."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

import pytest

from lbctl.site.model import ServiceName
from lbctl.values.addresses import Endpoint
from lbctl.values.protocols import TCP
from lbctl.values.transfer import Strategy
from tests.unit.fake_site import FakeSite, site

ADDRESS = IPv4Address("198.51.100.1")
SERVICE, SERVER = ServiceName(ADDRESS, "tcp", 80), Endpoint(IPv4Address("10.0.0.10"), 80)


class Killed(Exception):
    """The controller is gone."""


class Crashing(FakeSite):
    """Its controller is killed before step `left` from now: a message to a switch or from one, or a state saved."""

    left = 1 << 30

    def step(self, *parts) -> None:
        """One at a time, whatever is first."""
        for part in parts:
            while part():
                self.left -= 1
                if self.left <= 0:
                    raise Killed

    def go_on(self, seconds: float) -> None:
        """Raises Killed."""
        end = self.now + seconds
        while self.now < end:
            self.tick(0.25)
            for _ in range(6):  # answers to answers
                for name in self.switches:
                    self.step(lambda name=name: self.deliver(name, 1), lambda name=name: self.hear(name, 1))
                self.step(lambda: self.save(1))


def crashed(step: int, order) -> tuple[Crashing, bool]:
    """A site that was ordered something, and lost its controller so many steps later; had all been done by then?"""
    world = Crashing(site(ips=2, grace=1.0))
    world.settle(1.0)
    for _ in range(3):
        world.open(0)
    world.settle(1.0)
    world.left = step
    done = True
    try:
        order(world)
        world.go_on(6.0)
    except Killed:
        done = False
    world.left = 1 << 30
    world.restart_control()
    world.settle(20.0)
    world.check_settled()
    assert all(conversation.live for conversation in world.conversations)
    return world, done


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_move(strategy: Strategy) -> None:
    def order(world: Crashing) -> None:
        world.post(world.control.movement.start(ADDRESS, "lb-b", strategy, world.now)[1])

    found = set()
    for step in itertools.count(1):
        world, done = crashed(step, order)
        found.add(world.serving(ADDRESS).assigned)
        if done:
            break
    assert found == {"lb-a", "lb-b"} and world.serving(ADDRESS).assigned == "lb-b"


def test_orders() -> None:
    """What was answered, because it was saved, is there; the rest may be."""
    kept: list[tuple[bool, bool]] = []

    def order(world: Crashing) -> None:
        for out in (world.control.balancing.set_drained("lb-b", True),
                    world.control.services.change_server(SERVICE, SERVER, {}, True)):
            saved = len(world.saves)
            world.post(out)
            assert len(world.saves) > saved

    for step in itertools.count(1):
        world, done = crashed(step, order)
        drained = world.control.balancing.is_drained("lb-b")
        state = world.control.services.server_state(ADDRESS, world.serving(ADDRESS).services[TCP, 80],
                                                    world.serving(ADDRESS).services[TCP, 80].servers[0])
        kept.append((drained, state.state == "drained"))
        if done:
            break
    assert kept[-1] == (True, True) and kept == sorted(kept)
