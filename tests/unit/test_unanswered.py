"""A SYN that comes again because its server says nothing (field report F1)."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from lbctl.connections.unanswered import AT_ONCE, SECONDS, SPACING
from lbctl.frames.packets import ACK, SYN
from lbctl.openflow.messages import AddEntries, ReadFlows
from lbctl.servers.states import Down
from lbctl.values.keys import unpack_key
from lbctl.values.refused import Refused
from tests.unit.fake_site import EXTERNAL, INTERNAL, site
from tests.unit.test_opening import ADDRESS, World, from_client, key_of, reply_to

FIRST, SECOND = IPv4Address("10.0.0.10"), IPv4Address("10.0.0.11")


@pytest.fixture
def world() -> World:
    """One external IP, two servers that take turns."""
    return World(site(ips=1))


def server_of(sent) -> IPv4Address:
    [packet] = sent
    return IPv4Address(unpack_key(key_of(packet))[3])


def test_it_goes_to_another_server(world: World) -> None:
    assert server_of(world.send(from_client(), EXTERNAL)) == FIRST
    world.now += 1.0
    assert server_of(world.send(from_client(), EXTERNAL)) == FIRST, "a server may be slow"
    world.now += SECONDS
    assert server_of(world.send(from_client(), EXTERNAL)) == SECOND
    assert world.counter("unanswered_syns") == 1 and len(world.table(ADDRESS)) == 1
    assert world.send(from_client(), EXTERNAL, ACK, seq=2), "and what follows goes there, too"


def test_it_stays_where_the_server_has_answered(world: World) -> None:
    """The answers are lost on their way to the client, or the SYN is an old copy."""
    first = world.send(from_client(), EXTERNAL)
    world.send(reply_to(first[0]), INTERNAL, SYN | ACK)
    world.now += SECONDS + 1.0
    assert server_of(world.send(from_client(), EXTERNAL)) == FIRST
    assert world.counter("unanswered_syns") == 0


def test_a_server_that_has_answered_once_is_believed(world: World) -> None:
    """Each time that its flows are put back they count from 0."""
    first = world.send(from_client(), EXTERNAL)
    world.send(reply_to(first[0]), INTERNAL, SYN | ACK)
    for _ in range(3):
        world.now += SECONDS + 1.0
        assert server_of(world.send(from_client(), EXTERNAL)) == FIRST


def test_a_flow_that_has_run_out_says_nothing_against_its_server(world: World) -> None:
    """The server's FIN was its last packet, and the switch answers late."""
    world.send(from_client(), EXTERNAL)
    world.now += SECONDS + 1.0
    _, [event] = world.switches["lb-a"].receive(world.packet(from_client(), EXTERNAL), EXTERNAL, world.now)
    [asked] = world.control.packet_in("lb-a", *event.arguments, world.now)
    world.control.flow_stats(asked.message.token, b"", False, world.now)
    [entry] = world.table(ADDRESS).snapshot()
    assert IPv4Address(entry.server[0]) == FIRST and world.counter("unanswered_syns") == 0


def test_it_stays_where_there_is_no_other(world: World) -> None:
    [serving] = world.control.ground.external_ips
    [place] = serving.services
    other = serving.services[place].servers[1]
    serving.servers.down[place, other.endpoint] = Down("it is away", world.now)
    serving.servers.configure(serving.services)
    for _ in range(3):
        assert server_of(world.send(from_client(), EXTERNAL)) == FIRST
        world.now += SECONDS + 1.0


def test_a_few_are_asked_about_in_a_second(world: World) -> None:
    ports = range(40001, 40001 + AT_ONCE + 1)
    for port in ports:
        world.send(from_client(port=port), EXTERNAL)

    def messages(port: int) -> list[type]:
        world.now += 0.001
        frame = world.packet(from_client(port=port), EXTERNAL)
        _, [event] = world.switches["lb-a"].receive(frame, EXTERNAL, world.now)
        return [type(effect.message) for effect in world.control.packet_in("lb-a", *event.arguments, world.now)]

    world.now += SECONDS
    assert all(messages(port) == [ReadFlows] for port in ports[:-1])
    assert AddEntries in messages(ports[-1]), "it waits for its server as before"
    assert AddEntries in messages(ports[0]), "it has been asked about"
    world.now += SPACING
    assert messages(ports[0]) == [ReadFlows]


# Servers that do not answer ARP any more.

def silence(world: World, server: IPv4Address) -> None:
    world.present.discard(server.packed)
    world.settle(3 * world.site.settings.arp_interval)


def servers_chosen(world: World, first: int) -> set[IPv4Address]:
    return {server_of(world.send(from_client(port=port), EXTERNAL)) for port in range(first, first + 6)}


def test_who_does_not_answer_arp_gets_no_new_connection(world: World) -> None:
    silence(world, FIRST)
    assert servers_chosen(world, 41000) == {SECOND}
    assert world.logged.count("neighbour does not answer any more") == len(world.switches)
    world.present.add(FIRST.packed)
    world.settle(2.0)
    assert servers_chosen(world, 42000) == {FIRST, SECOND}
    assert world.logged.count("neighbour answers again") == len(world.switches)


def test_where_nobody_answers_arp_connections_go_on_as_before(world: World) -> None:
    """It may be the LB that hears nobody."""
    silence(world, FIRST)
    silence(world, SECOND)
    assert servers_chosen(world, 41000) == {FIRST, SECOND}


def test_after_an_outage_of_the_lb_everybody_is_believed_again(world: World) -> None:
    silence(world, FIRST)
    world.disconnect("lb-a")
    world.connect("lb-a")
    world.drain()
    assert not world.control.ground.switches["lb-a"].hearing.silent


def test_a_move_is_refused_where_a_server_is_not_heard(world: World) -> None:
    silence(world, FIRST)
    world.control.ground.switches["lb-a"].hearing.heard(FIRST)
    with pytest.raises(Refused, match="answer from 10.0.0.10"):
        world.control.movement.start(IPv4Address(ADDRESS), "lb-b", "precopy", world.now)

