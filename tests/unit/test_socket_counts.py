"""How many connections the servers of sliced services have, by their keepers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lbctl.connections.socket_counts import FORGOTTEN, INTERVAL
from lbctl.ground.effects import CountSockets
from lbctl.site.model import Keeper, Keepers
from tests.unit.fake_site import FakeSite, site

PLACE = (6, 80)


@pytest.fixture
def world() -> FakeSite:
    """Its first external IP is sliced; one of the two servers has a keeper."""
    plain = site()
    first, *rest = plain.external_ips
    sliced = replace(first, services=tuple(replace(service, entries="slices") for service in first.services))
    keeper = Keeper(first.services[0].servers[0].address, "http://10.0.0.10:6654")
    world = FakeSite(replace(plain, external_ips=(sliced, *rest), keepers=Keepers((keeper,))))
    world.settle(2.0)
    return world


def asked(world: FakeSite) -> list[CountSockets]:
    """What keepers have been asked since this was last called."""
    found = [call for call in world.calls if isinstance(call, CountSockets)]
    world.calls.clear()
    return found


def counted(world: FakeSite) -> list[int | None]:
    slicing = world.serving(world.site.external_ips[0].address).slices[PLACE]
    return [slicing.counted(server.endpoint) for server in world.site.external_ips[0].services[0].servers]


def test_servers_with_keepers_are_counted_again_and_again(world) -> None:
    for number in range(3):
        world.settle(INTERVAL)
        *_, call = asked(world)
        assert call.server == world.site.external_ips[0].services[0].servers[0].address
        world.control.sockets_counted(call.token, {80: 7 + number}, world.now)
        assert counted(world) == [7 + number, None]


@pytest.mark.parametrize("told", [None, {}, {8080: 3}])
def test_a_count_that_is_old_is_forgotten(world, told) -> None:
    world.settle(INTERVAL)
    *_, call = asked(world)
    world.control.sockets_counted(call.token, {80: 7}, world.now)
    for _ in range(int(FORGOTTEN / INTERVAL) + 1):
        world.settle(INTERVAL)
        for call in asked(world):
            world.control.sockets_counted(call.token, told, world.now)
    assert counted(world) == [None, None]
