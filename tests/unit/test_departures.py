"""UDP flows whose server has gone, and ports that are used again (field reports F8, F11); idle timeouts of services."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbctl.frames.packets import ACK, FIN, SYN
from lbctl.ground.effects import ToSwitch
from lbctl.openflow.messages import PacketOut
from lbctl.site.model import Site
from lbctl.values.keys import unpack_key
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import EXTERNAL as SIDE
from tests.unit.effects import use_file
from tests.unit.fake_site import EXTERNAL, INTERNAL, site
from tests.unit.test_opening import ADDRESS, World, from_client, key_of, reply_to

FIRST, SECOND = IPv4Address("10.0.0.10"), IPv4Address("10.0.0.11")
DRAIN = 20.0


def world_of(nat: str) -> World:
    return World(site(ips=1, nat=nat, udp=True, udp_drain_timeout=DRAIN, linger=3))


def server_of(sent) -> IPv4Address:
    [packet] = sent
    return IPv4Address(unpack_key(key_of(packet))[3])


def apply(world: World, wanted: Site) -> None:
    world.post(use_file(world.control, wanted, world.now))
    world.settle(0.3, 0.1)


def with_udp(world: World, **changes) -> Site:
    """The site, where the service by UDP has changed."""
    [ip] = world.site.external_ips
    tcp, udp = ip.services
    return replace(world.site, external_ips=(replace(ip, services=(tcp, replace(udp, **changes))),))


def drained(world: World) -> None:
    serving = world.serving(world.site.external_ips[0].address)
    serving.servers.configure(serving.services, [
        (place, server.endpoint) for place, service in serving.services.items()
        for server in service.servers if server.address == FIRST])


@pytest.mark.parametrize("nat", ["destination", "full"])
def test_flows_of_a_server_that_has_left_its_service_go_to_another_one(nat: str) -> None:
    world = world_of(nat)
    [_, udp] = world.site.external_ips[0].services
    flows = [from_client(UDP, port) for port in range(41000, 41006)]
    talks = [from_client(TCP, port) for port in range(42000, 42004)]
    went = {flow: server_of(world.send(flow, EXTERNAL)) for flow in flows}
    for talk in talks:
        world.send(talk, EXTERNAL)
    assert set(went.values()) == {FIRST, SECOND}
    before = {entry.key: entry for entry in world.table(ADDRESS).entries()}
    apply(world, with_udp(world, servers=udp.servers[1:]))
    left = {entry.key for entry in world.table(ADDRESS).entries()}
    assert left == before.keys() - {flow for flow in flows if went[flow] == FIRST}, "TCP stays, and the other flows"
    assert {server_of(world.send(flow, EXTERNAL)) for flow in flows} == {SECOND}


def test_flows_of_a_service_that_is_gone_stay() -> None:
    """Nothing else can have them."""
    world = world_of("destination")
    world.send(from_client(UDP, 41000), EXTERNAL)
    [ip] = world.site.external_ips
    apply(world, replace(world.site, external_ips=(replace(ip, services=ip.services[:1]),)))
    assert len(world.table(ADDRESS)) == 1


def test_flows_of_a_drained_server_stay_for_a_while() -> None:
    world = world_of("destination")
    flows = [from_client(UDP, port) for port in range(41000, 41004)]
    for flow in flows:
        world.send(flow, EXTERNAL)
    world.settle(3.0)
    drained(world)
    world.settle(DRAIN - 2.0)
    assert len(world.table(ADDRESS)) == 4
    world.settle(4.0)
    assert len(world.table(ADDRESS)) == 2
    assert {server_of(world.send(flow, EXTERNAL)) for flow in flows} == {SECOND}


def test_where_all_servers_are_silent_flows_stay() -> None:
    world = world_of("destination")
    for port in range(41000, 41004):
        world.send(from_client(UDP, port), EXTERNAL)
    world.present = frozenset({SECOND.packed})
    world.settle(20.0, 0.25)
    assert len(world.table(ADDRESS)) == 2, "one of them is missed"
    world.present = frozenset()
    world.settle(20.0, 0.25)
    assert len(world.table(ADDRESS)) == 2, "it may be the LB that hears nobody"


# Ports that are used again.


def opened(world: World) -> bytes:
    """A connection to FIRST, which has got its answer."""
    key = from_client(TCP, 41000)
    [sent] = world.send(key, EXTERNAL, SYN, seq=1)
    assert server_of([sent]) == FIRST
    world.send(reply_to(sent), INTERNAL, SYN | ACK)
    world.send(key, EXTERNAL, ACK, seq=2)
    return key


def test_a_syn_alone_ends_no_connection_of_a_drained_server() -> None:
    world = world_of("destination")
    key = opened(world)
    [entry] = world.table(ADDRESS).entries()
    drained(world)
    assert world.send(key, EXTERNAL, SYN, seq=90_000) == [], "the switch is asked first"
    world.now += 1.0
    sent = [effect.message for effect in world.control.tick(world.now) if isinstance(effect, ToSwitch)]
    assert any(isinstance(message, PacketOut) and message.output == SIDE.access_table for message in sent), "it goes on"
    assert list(world.table(ADDRESS).entries()) == [entry] and server_of(world.send(key, EXTERNAL, ACK, seq=3)) == FIRST


def test_after_fins_the_next_connection_goes_elsewhere() -> None:
    world = world_of("destination")
    key = opened(world)
    [entry] = world.table(ADDRESS).entries()
    drained(world)
    [sent] = world.send(key, EXTERNAL, FIN | ACK, seq=2)
    world.send(reply_to(sent), INTERNAL, FIN | ACK)
    assert server_of(world.send(key, EXTERNAL, SYN, seq=90_000)) == SECOND
    [after] = world.table(ADDRESS).entries()
    assert after is not entry


# Idle timeouts.


def test_a_service_has_its_own_idle_timeout() -> None:
    world = world_of("destination")
    apply(world, with_udp(world, idle_timeout=4.0))
    world.settle(31.0)  # the round of reading that has begun
    world.send(from_client(UDP, 41000), EXTERNAL)
    world.send(from_client(TCP, 41000), EXTERNAL)
    world.settle(10.0)
    assert [entry.key[0] for entry in world.table(ADDRESS).entries()] == [TCP]
