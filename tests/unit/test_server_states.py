"""Which servers take new connections, and what clients are told when none does."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries.access_table import AccessTable, Entry
from lbctl.frames.packets import RST
from lbctl.servers.schedulers import scheduler_for
from lbctl.servers.states import Down, ServerState, ServerStates
from lbctl.site.model import SCHEDULERS, Server, Service
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import pack_key, reply_key, unpack_key
from lbctl.values.protocols import TCP, UDP
from tests.unit.fake_site import EXTERNAL, INTERNAL, site
from tests.unit.test_opening import ADDRESS, World, from_client, kind_of, reply_to

PLACE = (TCP, 80)


def servers(*limits: int | None) -> tuple[Server, ...]:
    return tuple(
        Server(IPv4Address(f"10.0.0.{number}"), 80, max_connections=limit) for number, limit in enumerate(limits, 10)
    )


# Alone.

@given(
    st.sampled_from(SCHEDULERS),
    st.lists(st.none() | st.integers(1, 3), min_size=1, max_size=4),
    st.lists(
        st.tuples(
            st.sampled_from(["open", "open", "open", "close", "down", "up", "drain", "undo"]), st.integers(0, 255)
        ),
        max_size=80,
    ),
)
def test_no_scheduler_gives_more_than_a_server_takes(scheduler, limits, steps) -> None:
    """Against a model that counts by itself: a server gets a connection only if it takes one, and one that takes any
    is found."""
    each, table = servers(*limits), AccessTable()
    states = ServerStates(table)
    service = Service("tcp", 80, scheduler, each)
    states.configure({PLACE: service})
    chooser = scheduler_for(service, table.connections_to)
    has = {server: [] for server in each}
    down, drained = set(), set()
    for number, (step, choice) in enumerate(steps):
        server = each[choice % len(each)]
        if step == "open":
            key = pack_key(TCP, bytes([203, 0, 113, choice]), 1024 + number, ADDRESS, 80)
            chosen = chooser.choose(key[1:7], lambda server: states.takes(PLACE, server))
            taking = [one for one in each if one not in down | drained
                      and (one.max_connections is None or len(has[one]) < one.max_connections)]
            assert chosen in taking or chosen is None and not taking
            if not taking:
                shown = {states.state(PLACE, one).state for one in each}
                assert states.obstacle(PLACE) == next(
                    reason for reason in ("full", "down", "drained") if reason in shown
                )
            if chosen:
                entry = Entry(key, reply_key(key, chosen.address.packed, 80), bytes(6), 0.0)
                table.add(entry)
                has[chosen].append(entry)
        elif step == "close" and has[server]:
            table.remove(has[server].pop())
        elif step == "down":
            states.set_down(PLACE, server.endpoint, "connection refused", 1.0)
            down.add(server)
        elif step == "up":
            states.set_up(PLACE, server.endpoint)
            down.discard(server)
        elif step in ("drain", "undo"):
            (drained.add if step == "drain" else drained.discard)(server)
            states.configure({PLACE: service}, {(PLACE, one.endpoint) for one in drained})
        for one in each:
            limit = one.max_connections
            assert limit is None or len(has[one]) <= limit
            shown = (
                "drained" if one in drained else "down" if one in down else "full" if limit == len(has[one]) else "up"
            )
            assert states.state(PLACE, one)[:2] == (shown, len(has[one]))


@given(
    st.sampled_from(["source-hash", "maglev"]),
    st.integers(2, 6),
    st.integers(0, 5),
    st.sets(st.binary(min_size=6, max_size=6)),
)
def test_with_hashes_only_the_clients_of_a_drained_server_go_elsewhere(scheduler, count, which, clients) -> None:
    """And they come back when that is undone."""
    each = servers(*[None] * count)
    states = ServerStates(AccessTable())
    service = Service("tcp", 80, scheduler, each)
    chooser = scheduler_for(service, {})

    def choices(*drained: Server) -> dict[bytes, Server]:
        states.configure({PLACE: service}, {(PLACE, server.endpoint) for server in drained})
        return {client: chooser.choose(client, lambda server: states.takes(PLACE, server)) for client in clients}

    before, gone = choices(), each[which % count]
    for client, server in choices(gone).items():
        assert server != gone and (server == before[client] or before[client] == gone)
    assert choices() == before


def test_it_says_why_and_since_when_a_server_is_down() -> None:
    (server,) = servers(None)
    states = ServerStates(AccessTable())
    states.configure({PLACE: Service("tcp", 80, servers=(server,))})
    states.set_down(PLACE, server.endpoint, "connection refused", 5.0)
    states.set_down(PLACE, server.endpoint, "no answer within 1 s", 7.0)
    assert states.state(PLACE, server) == ServerState("down", 0, "no answer within 1 s", 5.0)
    states.configure({PLACE: Service("tcp", 80, servers=(server,))}, [(PLACE, server.endpoint)])
    assert states.state(PLACE, server) == ServerState("drained", 0, "no answer within 1 s", 5.0)


def test_what_no_service_names_is_forgotten() -> None:
    one, other = servers(None, None)
    states = ServerStates(AccessTable())
    states.configure({PLACE: Service("tcp", 80, servers=(one, other))}, [(PLACE, one.endpoint)])
    states.set_down(PLACE, other.endpoint, "connection refused", 5.0)
    states.set_down(PLACE, Endpoint(IPv4Address("10.0.0.99"), 80), "connection refused", 5.0)
    states.set_down((UDP, 53), other.endpoint, "connection refused", 5.0)
    assert states.down == {(PLACE, other.endpoint): Down("connection refused", 5.0)}
    states.configure({PLACE: Service("tcp", 80, servers=())}, [(PLACE, one.endpoint)])
    assert not states.down and not states.drained
    states.configure({PLACE: Service("tcp", 80, servers=(one, other))})
    assert states.takes(PLACE, one) and states.takes(PLACE, other)


# In a site.

def limited(udp: bool = False) -> World:
    """Its first external IP's servers take one connection each."""
    configuration = site(udp=udp)
    first = configuration.external_ips[0]
    services = tuple(replace(service, servers=tuple(replace(server, max_connections=1) for server in service.servers))
                     for service in first.services)
    return World(
        replace(configuration, external_ips=(replace(first, services=services), *configuration.external_ips[1:]))
    )


def test_when_all_are_full_a_client_is_told_at_once_and_served_when_a_connection_has_ended() -> None:
    world = limited()
    first = world.send(from_client(), EXTERNAL)
    assert [kind_of(*world.send(from_client(port=40002 + more), EXTERNAL)) for more in range(3)] == [
        "packet",
        "rst",
        "rst",
    ]
    assert world.counter("servers_full") == world.counter("connections_refused") == 2
    assert world.logged.count("no server takes connections: clients are refused") == 1
    world.send(reply_to(*first), INTERNAL, flags=RST)
    world.settle(world.site.settings.linger + 1.0)
    (again,) = world.send(from_client(port=40009), EXTERNAL)
    assert kind_of(again) == "packet" and unpack_key(reply_to(again))[1] == unpack_key(reply_to(*first))[1]


def test_the_log_tells_it_once_a_minute() -> None:
    world = limited()
    for port in range(40001, 40006):
        world.send(from_client(port=port), EXTERNAL)
    world.now += 61
    for port in range(40006, 40009):
        world.send(from_client(port=port), EXTERNAL)
    assert world.logged.count("no server takes connections: clients are refused") == 2


def test_a_datagram_that_no_server_takes_is_answered_with_port_unreachable() -> None:
    world = limited(udp=True)
    assert [kind_of(*world.send(from_client(UDP, 40001 + more), EXTERNAL)) for more in range(3)] == [
        "packet",
        "packet",
        "icmp3.3",
    ]


@pytest.mark.parametrize("reason", ["down", "drained"])
def test_connections_go_elsewhere_and_then_nowhere(reason) -> None:
    world = World(site())
    serving = world.control.ground.external_ips.by_address[ADDRESS]
    place, service = next(iter(serving.services.items()))
    for number, server in enumerate(service.servers, 1):
        if reason == "down":
            serving.servers.set_down(place, server.endpoint, "connection refused", world.now)
        else:
            serving.servers.configure(serving.services, {(place, one.endpoint) for one in service.servers[:number]})
        kinds = {kind_of(*world.send(from_client(port=40000 + 10 * number + more), EXTERNAL)) for more in range(4)}
        assert kinds == ({"packet"} if number == 1 else {"rst"})
    assert {unpack_key(entry.reply)[1] for entry in serving.table.entries()} == {service.servers[1].address.packed}
    assert world.counter(f"servers_{reason}") == 4


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_server_of_weight_0_is_drained(scheduler: str) -> None:
    """Field report F23: as with IPVS and HAProxy."""
    world = World(site())
    serving = world.control.ground.external_ips.by_address[ADDRESS]
    place, service = next(iter(serving.services.items()))
    first, *others = service.servers

    def weighted(*servers: Server) -> None:
        changed = replace(service, scheduler=scheduler, servers=servers)
        serving.reconfigure(replace(serving.config, services=(changed,)), serving.settings)

    weighted(replace(first, weight=0), *others)
    for port in range(40000, 40008):
        assert kind_of(*world.send(from_client(port=port), EXTERNAL)) == "packet"
    assert first.address.packed not in {unpack_key(entry.reply)[1] for entry in serving.table.entries()}
    state = serving.servers.state(place, replace(first, weight=0))
    assert (state.state, state.connections) == ("drained", 0)
    weighted(*(replace(server, weight=0) for server in service.servers))
    assert kind_of(*world.send(from_client(port=41000), EXTERNAL)) == "rst"
    assert world.counter("servers_drained") == 1
    weighted(*service.servers)
    assert kind_of(*world.send(from_client(port=41001), EXTERNAL)) == "packet"


def test_who_takes_connections_but_is_not_found_yet_is_waited_for() -> None:
    world = World(site())
    serving = world.control.ground.external_ips.by_address[ADDRESS]
    place, service = next(iter(serving.services.items()))
    serving.servers.set_down(place, service.servers[0].endpoint, "connection refused", world.now)
    del world.control.ground.switches["lb-a"].neighbours[service.servers[1].address]
    assert world.send(from_client(), EXTERNAL) == [] and world.counter("dropped_server_unresolved") == 1
    serving.servers.set_down(place, service.servers[1].endpoint, "no answer to ARP", world.now)
    assert kind_of(*world.send(from_client(), EXTERNAL)) == "rst"
