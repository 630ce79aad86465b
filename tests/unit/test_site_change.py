"""Another site file: the difference is sent, connections of what stays are not touched, and what can't be is refused.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.frames.packets import ACK, FIN, RST
from lbctl.ground.effects import Save
from lbctl.openflow.messages import AddFlows, DeleteEntries, DeleteFlows
from lbctl.site.model import ExternalIp, LoadBalancer, Server, Service, Settings, Site
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.effects import sent, use_file
from tests.unit.fake_site import FakeSite, site
from tests.unit.fake_switch import FakeSwitch


def busy_site() -> FakeSite:
    """Two connections at each of two external IPs, both at lb-a."""
    world = FakeSite(site())
    world.settle(1.0)
    for number in range(4):
        world.open(number % 2)
    world.settle(1.0)
    return world


@pytest.fixture
def world() -> FakeSite:
    return busy_site()


def change(world: FakeSite, new: Site) -> list:
    out = use_file(world.control, new, world.now)
    world.site = new
    world.present = {server.packed for ip in new.external_ips for server in ip.server_addresses()}
    world.post(out)
    return out


def with_service(world: FakeSite, *servers: Server, port: int = 80) -> Site:
    """The site with these servers for its first external IP."""
    first, *rest = world.site.external_ips
    return replace(
        world.site, external_ips=(replace(first, services=(Service("tcp", port, "round-robin", servers),)), *rest)
    )


def everybody_talks(world: FakeSite) -> None:
    for conversation in world.conversations:
        if conversation.live:
            for send in (world.from_client, world.from_server):
                send(conversation)
                world.drain()
                assert world.data[-1].arrivals == 1, conversation
    world.check_now()


def flows_to(out, name: str) -> list:
    return [
        flow for message in sent(out, name) if isinstance(message, AddFlows | DeleteFlows) for flow in message.flows
    ]


def test_the_same_file_changes_nothing(world) -> None:
    before = world.switches["lb-a"].hash()
    out = change(world, world.site)
    assert not flows_to(out, "lb-a") and not flows_to(out, "lb-b")
    world.settle(1.0)
    assert world.switches["lb-a"].hash() == before


def test_another_start_does_not_move_an_external_ip(world) -> None:
    first, *rest = world.site.external_ips
    change(world, replace(world.site, external_ips=(replace(first, load_balancer="lb-b"), *rest)))
    world.settle(1.0)
    assert world.serving(first.address).assigned == "lb-a"
    everybody_talks(world)


def test_another_start_does_not_move_it_at_the_next_start_either(world) -> None:
    """Its entries are at lb-a."""
    first, *rest = world.site.external_ips
    world.site = replace(world.site, external_ips=(replace(first, load_balancer="lb-b"), *rest))
    world.restart_control()
    world.settle(2.0)
    assert world.serving(first.address).assigned == "lb-a"
    everybody_talks(world)


def test_a_server_more(world) -> None:
    first = world.site.external_ips[0]
    change(world, with_service(world, *first.services[0].servers, Server(IPv4Address("10.0.0.12"), 80)))
    world.settle(2.0)
    everybody_talks(world)
    new = [world.open(0) for _ in range(3)]
    world.drain()
    assert {str(conversation.server) for conversation in new} == {"10.0.0.10:80", "10.0.0.11:8080", "10.0.0.12:80"}
    world.check_settled()


def test_a_server_less_keeps_its_connections(world) -> None:
    first = world.site.external_ips[0]
    change(world, with_service(world, first.services[0].servers[0]))
    world.settle(1.0)
    everybody_talks(world)
    new = [world.open(0) for _ in range(3)]
    world.drain()
    assert {str(conversation.server) for conversation in new} == {"10.0.0.10:80"}


def test_a_server_less_keeps_its_connections_when_they_move(world) -> None:
    first = world.site.external_ips[0]
    change(world, with_service(world, first.services[0].servers[0]))
    world.settle(1.0)
    world.post(world.control.movement.start(first.address, "lb-b", Strategy.PRECOPY, world.now)[1])
    world.settle(10.0)
    assert world.serving(first.address).assigned == "lb-b"
    everybody_talks(world)


def test_a_server_less_keeps_its_connections_at_a_restart(world) -> None:
    first = world.site.external_ips[0]
    change(world, with_service(world, first.services[0].servers[0]))
    world.settle(1.0)
    world.restart_control()
    world.settle(2.0)
    everybody_talks(world)


def test_an_external_ip_less(world) -> None:
    first, second = world.site.external_ips
    out = change(world, replace(world.site, external_ips=(first,)))
    assert any(isinstance(message, DeleteEntries) for message in sent(out))
    world.drain()
    assert not world.switches["lb-a"].entries(second.address)
    assert not world.answers_arp(second.address.packed, 1)
    world.conversations = [
        conversation for conversation in world.conversations if conversation.external.address == first.address
    ]
    everybody_talks(world)
    world.settle(1.0)
    world.check_settled()


def test_an_external_ip_less_while_its_lb_is_away(world) -> None:
    first, second = world.site.external_ips
    world.disconnect("lb-a")
    change(world, replace(world.site, external_ips=(first,)))
    world.settle(2.0)
    assert (
        not world.switches["lb-a"].entries(second.address) and len(world.switches["lb-a"].entries(first.address)) == 2
    )


def test_an_external_ip_more(world) -> None:
    third = ExternalIp(IPv4Address("198.51.100.3"), "lb-b", IPv4Address("10.0.0.3"), "destination", (
        Service("tcp", 80, "round-robin", (Server(IPv4Address("10.0.0.30"), 80),)),))
    change(world, replace(world.site, external_ips=(*world.site.external_ips, third)))
    world.settle(3.0)
    conversation = world.open(2)
    world.drain()
    assert str(conversation.server) == "10.0.0.30:80"
    everybody_talks(world)
    world.check_settled()


def test_an_lb_more_and_a_move_to_it_and_one_less(world) -> None:
    lb = LoadBalancer("lb-c", 0xCC, "lb-c-ext", "lb-c-int")
    world.switches["lb-c"] = FakeSwitch("lb-c", 0xCC, "lb-c-ext", "lb-c-int", 5)
    world.to_switch["lb-c"], world.to_control["lb-c"] = type(world.saves)(), type(world.saves)()
    change(world, replace(world.site, load_balancers=(*world.site.load_balancers, lb)))
    world.settle(3.0)
    for ip in world.site.external_ips:
        world.post(world.control.movement.start(ip.address, "lb-c", Strategy.PRECOPY, world.now)[1])
    world.settle(12.0)
    everybody_talks(world)
    change(world, replace(world.site, load_balancers=world.site.load_balancers[1:],
                          external_ips=tuple(replace(ip, load_balancer="lb-c") for ip in world.site.external_ips)))
    del world.switches["lb-a"], world.to_switch["lb-a"], world.to_control["lb-a"]
    world.connected.discard("lb-a")
    world.settle(3.0)
    everybody_talks(world)
    world.check_settled()


def test_another_service_port(world) -> None:
    first = world.site.external_ips[0]
    change(world, with_service(world, *first.services[0].servers, port=8000))
    world.settle(1.0)
    everybody_talks(world)
    conversation = world.open(0)
    world.drain()
    assert conversation.server is None, "port 80 is no service any more"


def test_the_turn_goes_on_where_it_was(world) -> None:
    """A scheduler whose service has not changed does not start anew."""
    servers = []
    for _ in range(4):
        conversation = world.open(0)
        world.drain()
        servers.append(str(conversation.server))
        change(world, world.site)
    assert servers[0] != servers[1] and servers[:2] == servers[2:]


def test_other_settings_are_used(world) -> None:
    out = change(world, replace(world.site, settings=Settings(linger=9, new_rate=7)))
    assert {message.rate for message in sent(out) if type(message).__name__ == "SetMeter"} >= {7}
    conversation = world.open(0)
    world.drain()
    world.from_client(conversation, RST)
    count = len(world.serving(conversation.external.address).table)
    world.settle(8.0)
    assert len(world.serving(conversation.external.address).table) == count
    world.settle(2.0)
    assert len(world.serving(conversation.external.address).table) == count - 1, "it lingers for 9 s"


@pytest.mark.parametrize("what, words", [
    ("drop the moving one", "is being moved"), ("drop the LB in use", "lb-a still has 198.51.100"),
    ("change the dpid", "dpid of lb-b can't change"), ("give a busy server away", "still has connections")])
def test_what_cannot_be_is_refused_and_nothing_changes(world, what, words) -> None:
    first, second = world.site.external_ips
    a, b = world.site.load_balancers
    if what == "drop the moving one":
        world.post(world.control.movement.start(second.address, "lb-b", Strategy.PRECOPY, world.now)[1])
        new = replace(world.site, external_ips=(first,))
    elif what == "drop the LB in use":
        new = replace(world.site, load_balancers=(b,), external_ips=(replace(first, load_balancer="lb-b"), replace(
            second, load_balancer="lb-b")))
    elif what == "change the dpid":
        new = replace(world.site, load_balancers=(a, replace(b, dpid=0x77)))
    else:
        new = replace(world.site, external_ips=(
            replace(first, services=(Service("tcp", 80, "round-robin", (Server(IPv4Address("10.0.0.11"), 8080),)),)),
            replace(second, services=(Service("tcp", 80, "round-robin", (Server(IPv4Address("10.0.0.10"), 80),)),))))
    before, state = world.control.ground.site, world.control.ground.state()
    with pytest.raises(Refused, match=words) as refused:
        use_file(world.control, new, world.now)
    assert refused.value.status == 409
    assert world.control.ground.site is before and world.control.ground.state() == state
    world.settle(10.0)
    everybody_talks(world)
    world.check_settled()


def test_a_change_is_kept(world) -> None:
    """The state on disk names the external IPs of the new file."""
    out = change(world, replace(world.site, external_ips=world.site.external_ips[:1]))
    assert [effect.state().assigned for effect in out if isinstance(effect, Save)][-1] == {
        world.site.external_ips[0].address: "lb-a"}


def test_former_servers_leave_when_their_connections_have_ended(world) -> None:
    first = world.site.external_ips[0]
    dropped = first.services[0].servers[1]
    new = with_service(world, first.services[0].servers[0])
    change(world, new)
    world.settle(1.0)
    for conversation in world.conversations:
        if conversation.server.address == dropped.address:
            world.from_client(conversation, FIN | ACK)
            world.from_server(conversation, FIN | ACK)
    world.settle(8.0)
    change(world, new)
    world.settle(1.0)
    assert not any(str(dropped.address) in item.flow.text() for item in world.switches["lb-a"].flows())
