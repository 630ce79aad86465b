"""A long answer lets others run meanwhile, who may bring another site file: it is whole, and of what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.api import shown
from lbctl.api.dispatch import dispatch
from lbctl.http.message import Request, Response
from lbctl.site.model import ExternalIp, Server, Site
from tests.unit.effects import use_file
from tests.unit.fake_site import FakeSite, site

PATHS = ["/v1/external-ips", "/v1/load-balancers", "/metrics"]


class Orders:
    """Reading a site; each `pause` does what is next in `meanwhile`."""

    def __init__(self, world: FakeSite, meanwhile: Iterator[object]) -> None:
        self.shown, self.world, self.meanwhile = shown.of(world.control), world, meanwhile

    def now(self) -> float:
        return self.world.now

    def pause(self) -> None:
        next(self.meanwhile, None)

    def apart(self, function, *args):
        return function(*args)


def get(path: str, orders: Orders) -> Response:
    return dispatch(Request("GET", path, {}, {"host": "localhost"}, b""), orders)


def another_port(ip: ExternalIp) -> ExternalIp:
    service = replace(ip.services[0], port=8080, servers=(Server(IPv4Address("10.0.0.77"), 8080),))
    return replace(ip, services=(service,))


FILES: dict[str, Callable[[Site], Site]] = {
    "the last external IP goes": lambda old: replace(old, external_ips=old.external_ips[:-1]),
    "all get another service": lambda old: replace(old, external_ips=tuple(map(another_port, old.external_ips))),
    "a load balancer goes": lambda old: replace(old, load_balancers=old.load_balancers[:-1]),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("change", FILES)
@pytest.mark.parametrize("before", range(3))
def test_another_site_file_comes_while_it_is_made(path: str, change: str, before: int) -> None:
    """After so many pauses."""
    world = FakeSite(site(ips=4, lbs=3))
    world.settle(1.0)
    assert all(serving.assigned != "lb-c" for serving in world.control.ground.external_ips)

    def meanwhile() -> Iterator[None]:
        for _ in range(before):
            yield
        for out in world.control.services.use_file(FILES[change](world.site), world.now):
            world.post(out)
            yield

    assert get(path, Orders(world, meanwhile())).status == 200


@pytest.mark.parametrize("path", PATHS)
def test_between_any_two_steps_of_another_site_file(path: str) -> None:
    world = FakeSite(site(ips=3))
    world.settle(1.0)
    first, _, last = world.site.external_ips
    added = replace(last, address=IPv4Address("198.51.100.77"), services=another_port(last).services)
    new = replace(world.site, external_ips=(another_port(first), added))
    for out in world.control.services.use_file(new, world.now):
        world.post(out)
        assert get(path, Orders(world, iter(()))).status == 200


def test_what_is_there_by_then_is_shown_as_it_is_by_then() -> None:
    world = FakeSite(site(ips=3))
    world.settle(1.0)
    new = replace(world.site, external_ips=tuple(map(another_port, world.site.external_ips[:-1])))

    def meanwhile() -> Iterator[None]:
        world.post(use_file(world.control, new, world.now))
        yield

    orders = Orders(world, meanwhile())
    assert [ip.services[0].port for ip in orders.shown.each_external_ip(orders.pause)] == [80, 8080]
