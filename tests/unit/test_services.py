"""What is ordered for services at run time: it counts at once, lasts until the site file says something else, and is
refused, with nothing changed, where a site file would be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.control import ControlFunction
from lbctl.frames.packets import ACK, FIN
from lbctl.servers.states import FormerServer
from lbctl.site.model import (
    SCHEDULERS,
    ExternalIp,
    Hop,
    Instead,
    Keeper,
    Keepers,
    LoadBalancer,
    Server,
    Service,
    ServiceName,
    ServiceOrder,
    Settings,
    Site,
    Tunnel,
)
from lbctl.site.orders import AS_IN_FILE, in_force
from lbctl.store import State
from lbctl.switches.switch import PortState
from lbctl.values.addresses import Endpoint
from lbctl.values.refused import Refused
from lbctl.values.transfer import Strategy
from tests.unit.effects import brought_up_to_date
from tests.unit.fake_site import FakeSite, site
from tests.unit.test_site_change import busy_site, change, everybody_talks, flows_to

FIRST, SECOND = (ServiceName(IPv4Address(f"198.51.100.{number}"), "tcp", 80) for number in (1, 2))
THIRD_SERVER = Server(IPv4Address("10.0.0.12"), 80)
"""Of the first external IP, when it is added."""


@pytest.fixture
def world() -> FakeSite:
    return busy_site()


# Schedulers.


def order(world: FakeSite, scheduler: str) -> None:
    world.post(world.control.services.set_scheduler(FIRST, scheduler))
    world.drain()


def schedulers(world: FakeSite) -> list[str]:
    """Those in force."""
    return [service.scheduler for ip in world.control.ground.site.external_ips for service in ip.services]


def with_scheduler(world: FakeSite, scheduler: str) -> Site:
    first, *rest = world.site.external_ips
    return replace(world.site,
                   external_ips=(replace(first, services=(replace(first.services[0], scheduler=scheduler),)), *rest))


def restarted(world: FakeSite) -> None:
    while world.save():
        pass
    world.restart_control()
    world.settle(1.0)


def test_an_ordered_scheduler_counts_at_once_for_its_service_alone(world) -> None:
    before = world.switches["lb-a"].hash()
    order(world, "least-connections")
    assert schedulers(world) == ["least-connections", "round-robin"]
    assert world.switches["lb-a"].hash() == before
    everybody_talks(world)


def test_it_lasts_over_a_restart_and_over_files_that_say_nothing_new(world) -> None:
    order(world, "maglev")
    change(world, replace(world.site, settings=Settings(linger=9)))
    assert schedulers(world) == ["maglev", "round-robin"]
    restarted(world)
    assert schedulers(world) == ["maglev", "round-robin"]


@pytest.mark.parametrize("way", ["applied", "at a restart"])
def test_it_ends_with_a_file_that_says_another(world, way) -> None:
    order(world, "maglev")
    new = with_scheduler(world, "source-hash")
    if way == "applied":
        change(world, new)
    else:
        world.site = new
        restarted(world)
    assert schedulers(world) == ["source-hash", "round-robin"]
    change(world, with_scheduler(world, "round-robin"))
    assert schedulers(world) == ["round-robin", "round-robin"], "the order is forgotten"


def test_ordering_the_files_own_ends_it(world) -> None:
    order(world, "maglev")
    order(world, "round-robin")
    assert schedulers(world) == ["round-robin", "round-robin"] and not world.control.ground.state().orders


# Servers.


def send(world: FakeSite, verb: str, *arguments) -> list:
    out = getattr(world.control.services, verb)(*arguments)
    world.present = {server.packed for ip in world.control.ground.configs() for server in ip.server_addresses()}
    for switch in world.control.ground.switches.values():
        rest = brought_up_to_date(switch, world.control.ground.configs())
        assert rest == [], "what is sent for one external IP is what the whole site would call for"
    world.post(out)
    world.drain()
    return out


def servers(world: FakeSite, place: int = 0) -> list[Endpoint]:
    return [server.endpoint for server in world.control.ground.site.external_ips[place].services[0].servers]


def in_file(world: FakeSite, place: int = 0) -> tuple[Server, ...]:
    return world.site.external_ips[place].services[0].servers


def opened(world: FakeSite, count: int, place: int = 0) -> Counter[Endpoint]:
    """How many of so many new connections each server gets."""
    conversations = []
    for _ in range(count):
        conversations.append(world.open(place))
        world.drain()
    return Counter(conversation.server for conversation in conversations)


def state(world: FakeSite, server: Server) -> str:
    first = world.control.ground.site.external_ips[0]
    return world.control.services.server_state(first.address, first.services[0], server).state


def test_an_added_server_gets_connections_and_a_removed_one_keeps_its_own(world) -> None:
    gone = in_file(world)[0].endpoint
    send(world, "add_server", FIRST, THIRD_SERVER)
    send(world, "remove_server", FIRST, gone)
    assert servers(world) == [in_file(world)[1].endpoint, THIRD_SERVER.endpoint]
    world.settle(1.0)
    assert set(opened(world, 6)) == {in_file(world)[1].endpoint, THIRD_SERVER.endpoint}
    assert any(conversation.live and conversation.server == gone for conversation in world.conversations)
    former = FormerServer(gone.address, Hop(gone.address), 1)
    assert world.control.services.former_servers(FIRST.external_ip) == [former]
    everybody_talks(world)


def test_the_last_server_stays(world) -> None:
    send(world, "remove_server", FIRST, in_file(world)[0].endpoint)
    with pytest.raises(Refused, match="the last server"):
        send(world, "remove_server", FIRST, in_file(world)[1].endpoint)


def test_a_drained_server_gets_nothing_until_that_is_undone(world) -> None:
    drained, other = (server.endpoint for server in in_file(world))
    flows = flows_to(send(world, "change_server", FIRST, drained, {}, True), "lb-a")
    assert not flows, "nothing changes in the switches"
    assert set(opened(world, 5)) == {other} and state(world, in_file(world)[0]) == "drained"
    everybody_talks(world)
    send(world, "change_server", FIRST, drained, {}, False)
    assert set(opened(world, 4)) == {drained, other} and not world.control.ground.state().orders


def test_weight_and_limit_of_a_server(world) -> None:
    first, second = in_file(world)
    send(world, "set_scheduler", FIRST, "weighted-round-robin")
    assert not flows_to(send(world, "change_server", FIRST, first.endpoint, {"weight": 3}, None), "lb-a")
    assert opened(world, 8) == {first.endpoint: 6, second.endpoint: 2}
    send(world, "change_server", FIRST, first.endpoint, {"max_connections": 8}, None)
    assert opened(world, 8) == {first.endpoint: 1, second.endpoint: 7}
    assert state(world, replace(first, max_connections=8)) == "full"
    send(world, "change_server", FIRST, first.endpoint, {"max_connections": None, "weight": 1}, None)
    assert opened(world, 4) == {first.endpoint: 2, second.endpoint: 2}
    assert not world.control.ground.state().orders[FIRST].servers, "as in the file again"


def test_all_of_it_lasts_over_a_restart(world) -> None:
    first, second = in_file(world)
    send(world, "add_server", FIRST, replace(THIRD_SERVER, max_connections=3))
    send(world, "change_server", FIRST, first.endpoint, {}, True)
    send(world, "remove_server", FIRST, second.endpoint)
    restarted(world)
    assert servers(world) == [first.endpoint, THIRD_SERVER.endpoint] and state(world, first) == "drained"
    world.settle(1.0)
    assert opened(world, 3) == {THIRD_SERVER.endpoint: 3}
    everybody_talks(world)


@pytest.mark.parametrize("way", ["applied", "at a restart"])
def test_a_file_that_says_something_else_about_the_servers_wins(world, way) -> None:
    send(world, "add_server", FIRST, THIRD_SERVER)
    send(world, "set_scheduler", FIRST, "maglev")
    unchanged = replace(world.site, settings=Settings(linger=9))
    change(world, unchanged)
    assert THIRD_SERVER.endpoint in servers(world), "it has nothing new to say"
    first, *rest = world.site.external_ips
    service = replace(first.services[0], servers=(in_file(world)[0],))
    new = replace(world.site, external_ips=(replace(first, services=(service,)), *rest))
    if way == "applied":
        change(world, new)
    else:
        world.site = new
        restarted(world)
    assert servers(world) == [in_file(world)[0].endpoint]
    assert schedulers(world)[0] == "maglev", "what it does not speak of stays"


def test_a_drained_server_that_leaves_its_service_comes_back_undrained(world) -> None:
    first, second = in_file(world)
    send(world, "change_server", FIRST, first.endpoint, {}, True)
    with_both, ip = world.site, world.site.external_ips[0]
    change(world, replace(with_both, external_ips=(replace(ip, services=(replace(ip.services[0], servers=(second,)),)),
                                                   *with_both.external_ips[1:])))
    assert not world.control.ground.state().orders
    change(world, with_both)
    assert state(world, first) == "up"


def test_a_drained_server_stays_drained_while_files_change_other_things(world) -> None:
    first, second = in_file(world)
    send(world, "change_server", FIRST, first.endpoint, {}, True)
    ip = world.site.external_ips[0]
    heavier = (replace(first, weight=7), second)
    change(world, replace(world.site, external_ips=(replace(ip, services=(replace(ip.services[0], servers=heavier),)),
                                                    *world.site.external_ips[1:])))
    assert state(world, first) == "drained"


# While it moves.


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_servers_change_while_the_external_ip_moves(world, verb) -> None:
    (_, out) = world.control.movement.start(FIRST.external_ip, "lb-b", Strategy.PRECOPY, world.now)
    world.post(out)
    for _ in range(3):
        world.round()
    if verb == "add":
        send(world, "add_server", FIRST, THIRD_SERVER)
    else:
        send(world, "remove_server", FIRST, in_file(world)[0].endpoint)
    world.settle(8.0)
    assert world.serving(FIRST.external_ip).assigned == "lb-b"
    expected = {in_file(world)[0].endpoint, in_file(world)[1].endpoint, THIRD_SERVER.endpoint} if verb == "add" else {
        in_file(world)[1].endpoint}
    assert set(opened(world, 6)) == expected
    everybody_talks(world)


# What is refused.


def test_a_server_that_is_there_and_one_that_is_not(world) -> None:
    with pytest.raises(Refused, match="198.51.100.1 tcp/80 has the server 10.0.0.10:80 already") as refused:
        send(world, "add_server", FIRST, in_file(world)[0])
    assert refused.value.status == 409
    for verb, arguments in (("remove_server", ()), ("change_server", ({}, True))):
        with pytest.raises(Refused,
                           match="tcp/80 has no server 10.0.0.99:80; it has 10.0.0.10:80, 10.0.0.11:8080") as refused:
            send(world, verb, FIRST, Endpoint(IPv4Address("10.0.0.99"), 80), *arguments)
        assert refused.value.status == 404


@pytest.mark.parametrize("server, reason", [
    (Server(IPv4Address("10.0.0.20"), 80),
     "10.0.0.20 already belongs to the external IP at 198.51.100.2; without nat: full"),
    (Server(IPv4Address("10.1.0.12"), 80), "address 10.1.0.12 is outside internal_network 10.0.0.0/24"),
    (Server(IPv4Address("10.0.0.255"), 80), "10.0.0.255 is the broadcast address"),
    (Server(IPv4Address("10.0.0.2"), 80),
     r"server 10.0.0.2 can't be a gateway or internal IP as well \(external IP 198.51.100.2\)"),
    (Server(IPv4Address("10.0.0.11"), 80, next_hop=IPv4Address("10.0.0.50")),
     "10.0.0.11 is reached in another way than"),
    (Server(IPv4Address("10.1.0.12"), 80, next_hop=IPv4Address("10.1.0.1")),
     "next_hop 10.1.0.1 is outside internal_network"),
    (Server(IPv4Address("10.1.0.12"), 80, next_hop=IPv4Address("10.0.0.1")),
     "next_hop 10.0.0.1 can't be a gateway or internal IP"),
    (Server(IPv6Address("2001:db8::12"), 80, next_hop=IPv6Address("2001:db8::1")),
     "is IPv6, and the external IP 198.51.100.1 is IPv4"),
    (Server(IPv4Address("10.9.0.12"), 80, tunnel=Tunnel("vxlan", IPv4Address("198.18.2.12"))),
     "needs a tunnel port at each load balancer"),
    (Server(IPv4Address("0.0.0.0"), 80), "is no address that a host can have"),
])
def test_the_rules_of_site_files_hold(world, server, reason) -> None:
    before, held = world.control.ground.state(), world.switches["lb-a"].hash()
    with pytest.raises(Refused, match=reason) as refused:
        send(world, "add_server", FIRST, server)
    assert refused.value.status == 422 and "198.51.100.1 tcp/80: " in refused.value.detail
    world.settle(1.0)
    assert world.control.ground.state() == before and world.switches["lb-a"].hash() == held and len(servers(world)) == 2


def test_a_server_without_a_keeper_where_entries_are_kept() -> None:
    plain = site()
    there = plain.external_ips[0].services[0].servers
    kept = replace(plain, keepers=Keepers(tuple(Keeper(server.address, "http://x") for server in there)),
                   external_ips=(replace(plain.external_ips[0], copies=("controller", "keeper")),
                                 *plain.external_ips[1:]))
    new = in_force(kept, {FIRST: ServiceOrder(servers=Instead((*there, THIRD_SERVER), there))})
    assert "need a keeper for 10.0.0.12" in new.ended[0].reason and new.site == kept


def test_a_server_that_still_has_connections_of_another_external_ip(world) -> None:
    used = in_file(world, 1)[0]
    send(world, "remove_server", SECOND, used.endpoint)
    before = world.control.ground.state()
    with pytest.raises(Refused, match="10.0.0.20 still has connections of 198.51.100.2") as refused:
        send(world, "add_server", FIRST, used)
    assert refused.value.status == 409
    assert world.control.ground.state() == before and used.endpoint not in servers(world)
    for conversation in world.conversations:
        if conversation.server.address == used.address:
            world.from_client(conversation, FIN | ACK)
            world.from_server(conversation, FIN | ACK)
    world.settle(8.0)
    send(world, "add_server", FIRST, used)
    world.settle(1.0)
    assert used.endpoint in opened(world, 3)


def test_a_service_that_is_not_there(world) -> None:
    for name in (FIRST._replace(port=81), ServiceName(IPv4Address("198.51.100.77"), "tcp", 80)):
        with pytest.raises(Refused, match="the site has no service"):
            send(world, "set_scheduler", name, "maglev")


# What it takes in the switches.

TUNNEL_PORTS = (("vxlan", "vx"), ("gre", "gr"))
VXLAN = Tunnel("vxlan", IPv4Address("198.18.2.1"), 7)
SHARED = (
    Server(IPv4Address("10.0.0.10"), 80), Server(IPv4Address("10.0.0.10"), 81),
    Server(IPv4Address("10.1.0.1"), 80, next_hop=IPv4Address("10.0.0.10")),
    Server(IPv4Address("10.9.0.1"), 80, tunnel=VXLAN), Server(IPv4Address("10.9.0.2"), 80, tunnel=VXLAN),
    Server(IPv4Address("10.9.0.3"), 80, tunnel=Tunnel("gre", IPv4Address("198.18.2.1"), 7)))


@given(st.lists(st.tuples(st.sampled_from([FIRST, SECOND]), st.sampled_from(SHARED)), max_size=14))
def test_flows_are_sent_and_deleted_as_for_the_whole_site(steps) -> None:
    """Two external IPs with full NAT that share servers, next hops and tunnels. One that is there is removed, another
    one added."""
    external_ips = tuple(ExternalIp(
        IPv4Address(f"198.51.100.{number}"), "lb-a", None, "full", (Service("tcp", 80, servers=SHARED[:number]),),
        internal_ips=(IPv4Address(f"10.0.0.10{number}"),)) for number in (1, 2))
    balancers = tuple(LoadBalancer(name, number, "e", "i", TUNNEL_PORTS)
                      for number, name in enumerate(("lb-a", "lb-b"), 1))
    control = ControlFunction(Site(balancers, (IPv4Network("198.51.100.0/24"),), (IPv4Network("10.0.0.0/24"),),
                                   external_ips), State(), 1.0)
    for switch in control.ground.switches.values():
        switch.set_ports([PortState(name, number, f"02:00:00:00:00:0{number}", True)
                          for number, name in enumerate("e i vx gr".split(), 1)])
        switch.neighbours = {server.hop.address: "02:00:00:00:00:99" for server in SHARED}
        brought_up_to_date(switch, control.ground.configs())
        switch.state = "ready"
    for name, server in steps:
        there = control.ground.site.external_ip(name.external_ip).services[0].servers
        try:
            if server in there:
                control.services.remove_server(name, server.endpoint)
            else:
                control.services.add_server(name, server)
        except Refused as refused:
            assert "the last server" in refused.detail
        for switch in control.ground.switches.values():
            assert brought_up_to_date(switch, control.ground.configs()) == []


def test_a_server_dropped_by_one_external_ip_while_another_has_it_keeps_its_connections() -> None:
    """Of the first one, which has destination NAT."""
    plain = site()
    first, second = plain.external_ips
    shared = first.services[0].servers
    second = replace(second, nat="full", gateway=None, internal_ips=(IPv4Address("10.0.0.102"),),
                     services=(Service("tcp", 80, servers=shared),))
    world = FakeSite(replace(plain, external_ips=(first, second)))
    world.settle(1.0)
    opened(world, 2)
    send(world, "remove_server", FIRST, shared[0].endpoint)
    everybody_talks(world)
    change(world, replace(world.site,
                          external_ips=(replace(first, services=(Service("tcp", 80, servers=shared[1:]),)), second)))
    world.settle(1.0)
    everybody_talks(world)


# Orders against site files, in general.

POOL = tuple(Server(IPv4Address(f"10.0.0.{number}"), 80) for number in range(10, 14))
pools = st.lists(st.sampled_from(POOL), min_size=1, max_size=3, unique=True).map(tuple)


def of(*pairs: tuple[tuple[Server, ...], str]) -> Site:
    """External IPs with these servers and schedulers."""
    external_ips = tuple(ExternalIp(IPv4Address(f"198.51.100.{number}"), "lb-a", IPv4Address(f"10.0.0.{number}"),
                                    services=(
        Service("tcp", 80, scheduler, pool),)) for number, (pool, scheduler) in enumerate(pairs, 1))
    return Site((LoadBalancer("lb-a", 1, "e", "i"),), (IPv4Network("198.51.100.0/24"),), (IPv4Network("10.0.0.0/24"),),
                external_ips)


files = st.builds(of, st.tuples(pools, st.sampled_from(SCHEDULERS)),
                  st.tuples(pools, st.sampled_from(SCHEDULERS))).filter(
    lambda site: not set(site.external_ips[0].services[0].servers) & set(site.external_ips[1].services[0].servers))
orders = st.dictionaries(st.sampled_from([FIRST, SECOND, SECOND._replace(port=81)]), st.builds(
    ServiceOrder, st.none() | st.builds(Instead, st.sampled_from(SCHEDULERS), st.sampled_from(SCHEDULERS)),
    st.none() | st.builds(Instead, pools, pools),
    st.frozensets(st.sampled_from([server.endpoint for server in POOL]), max_size=2)))


@given(file=files, ordered=orders)
def test_what_is_in_force_is_the_file_but_for_orders_that_count(file, ordered) -> None:
    result = in_force(file, ordered)
    everyone = [server for ip in result.site.external_ips for server in ip.services[0].servers]
    assert len(everyone) == len(set(everyone)), "a server belongs to one external IP"
    for ip, from_file in zip(result.site.external_ips, file.external_ips, strict=True):
        service, said = ip.services[0], from_file.services[0]
        order, kept = ordered.get((ip.address, "tcp", 80)), result.order(ip.address, service)
        assert service.scheduler == (kept.scheduler.wanted if kept.scheduler else said.scheduler)
        assert service.servers == (kept.servers.wanted if kept.servers else said.servers)
        there = {server.endpoint for server in service.servers}
        assert kept.drained == (order.drained if order else frozenset()) & there
        if order and order.scheduler and order.scheduler.instead_of == said.scheduler:
            assert service.scheduler == order.scheduler.wanted
        if kept.servers:
            assert kept.servers == order.servers and set(kept.servers.instead_of) == set(said.servers)
        elif (order and order.servers
              and set(order.servers.instead_of) == set(said.servers) != set(order.servers.wanted)):
            assert any(ended.broken and ended.service[:1] == (ip.address,)
                       for ended in result.ended), "else it would count"
    assert in_force(file, result.orders) == result._replace(ended=()), "it stays so"


# Entries

def test_other_entries_while_connections_are_open(world: FakeSite) -> None:
    """Open connections stay with their servers, to slices and back."""
    first = world.site.external_ips[0]
    conversations = [world.open(0) for _ in range(6)]
    world.drain()
    servers = [conversation.server for conversation in conversations]
    world.post(world.control.services.set_entries(FIRST, "slices"))
    world.settle(2.0)
    [serving] = [each for each in world.control.ground.external_ips if each.address == first.address]
    assert serving.slices and world.control.ground.site.external_ips[0].services[0].sliced
    world.post(world.control.services.set_entries(FIRST, "connections"))
    assert world.control.services.order(first.address, first.services[0]) == AS_IN_FILE
    world.settle(1.0)
    for conversation in conversations:
        world.from_client(conversation)
    world.drain()
    assert [conversation.server for conversation in conversations] == servers and not world.violations


@pytest.mark.parametrize("changes, reason", [({"scheduler": "maglev"}, "can't have scheduler: maglev"),
                                             ({"slow_start": 5.0}, "can't have slow_start")])
def test_slices_that_cannot_be_ordered(changes: dict[str, Any], reason: str) -> None:
    plain = site()
    first, *rest = plain.external_ips
    services = tuple(replace(service, **changes) for service in first.services)
    world = FakeSite(replace(plain, external_ips=(replace(first, services=services), *rest)))
    with pytest.raises(Refused, match=reason) as refused:
        world.control.services.set_entries(FIRST, "slices")
    assert refused.value.status == 422 and refused.value.title == "Entries refused"
