"""Which server a new connection gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.servers.schedulers import Scheduler, scheduler_for
from lbctl.site.model import SCHEDULERS, Server, Service
from lbctl.values.keys import server_key
from lbctl.values.protocols import TCP

TURNS = ("round-robin", "weighted-round-robin", "least-connections")
HASHED = ("source-hash", "maglev")
WEIGHTED = tuple(kind for kind in SCHEDULERS if kind != "round-robin")
clients = st.one_of(st.binary(min_size=6, max_size=6), st.binary(min_size=18, max_size=18))


def servers(*weights: int) -> tuple[Server, ...]:
    return tuple(
        Server(IPv4Address(f"10.0.{place >> 8}.{place & 255}"), 80, weight) for place, weight in enumerate(weights, 1)
    )


def scheduler_of(kind: str, some: tuple[Server, ...], connections: Mapping[bytes, int] | None = None) -> Scheduler:
    return scheduler_for(Service("tcp", 80, kind, some), {} if connections is None else connections)


def client(number: int, port: int = 40_000) -> bytes:
    """Clients in a row, as in a company's network."""
    return (0xCB007100 + number).to_bytes(4) + port.to_bytes(2)


def anybody(_: Server) -> bool:
    return True


def but(*out: Server) -> Callable[[Server], bool]:
    return lambda server: server not in out


def chosen(scheduler: Scheduler, count: int, allowed=anybody) -> list[Server | None]:
    """For clients with an address and a port of their own each."""
    return [scheduler.choose(client(number, 1024 + number % 60_000), allowed) for number in range(count)]


def key_of(server: Server) -> bytes:
    return server_key(TCP, server.address.packed, server.port)


# All of them.


@pytest.mark.parametrize("kind", SCHEDULERS)
@given(weights=st.lists(st.integers(1, 65535), min_size=1, max_size=4), data=st.data())
def test_whoever_is_not_allowed_is_not_chosen(kind, weights, data) -> None:
    some = servers(*weights)
    scheduler = scheduler_of(kind, some)
    for allowed in data.draw(st.lists(st.sets(st.sampled_from(some)), max_size=12)):
        choice = scheduler.choose(data.draw(clients), lambda server, allowed=allowed: server in allowed)
        assert choice in allowed if allowed else choice is None


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_server_that_comes_back_is_not_flooded(kind) -> None:
    """Its share while it was away is not made up for; where connections are counted, nothing has changed here."""
    a, b = some = servers(1, 1)
    scheduler = scheduler_of(kind, some)
    chosen(scheduler, 100, but(b))
    assert 0.4 < Counter(chosen(scheduler, 1000))[b] / 1000 < 0.6


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_no_servers(kind) -> None:
    assert chosen(scheduler_of(kind, ()), 2) == [None, None]


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="at-random"):
        scheduler_of("at-random", servers(1))


@pytest.mark.parametrize("kind", WEIGHTED)
@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 5), (100, 1), (3,) * 20, (1, 65535)])
def test_shares_are_as_the_weights(kind, weights) -> None:
    """Of 20 000 clients; five standard deviations, and a place of the table for who has hardly any weight."""
    some = servers(*weights)
    counts = Counter(chosen(scheduler_of(kind, some), 20_000))
    for server in some:
        share = 20_000 * server.weight / sum(weights)
        assert abs(counts[server] - share) <= 5 * share ** 0.5 + 20_000 / 4093, counts


# In turn.


def test_round_robin_takes_turns() -> None:
    a, b, c = some = servers(1, 1, 1)
    assert chosen(scheduler_of("round-robin", some), 7) == [a, b, c, a, b, c, a]


def test_round_robin_does_not_look_at_weights() -> None:
    assert Counter(chosen(scheduler_of("round-robin", servers(1, 9)), 10)) == dict.fromkeys(servers(1, 9), 5)


@pytest.mark.parametrize("kind", ["weighted-round-robin", "least-connections"])
def test_weights_are_smooth(kind) -> None:
    """nginx's example: 5, 1, 1 gives a a b a c a a, not five times a in a row. Without connections, least-connections
    does the same."""
    a, b, c = some = servers(5, 1, 1)
    assert chosen(scheduler_of(kind, some), 7) == [a, a, b, a, c, a, a]


@pytest.mark.parametrize("kind", ["weighted-round-robin", "least-connections"])
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_each_gets_its_share_of_a_round(kind, weights) -> None:
    some = servers(*weights)
    assert Counter(chosen(scheduler_of(kind, some), 3 * sum(weights))) == {item: 3 * item.weight for item in some}


# By connections.


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=5), data=st.data())
def test_the_server_with_the_fewest_for_its_weight(weights, data) -> None:
    some = servers(*weights)
    connections = {key_of(server): data.draw(st.integers(0, 50)) for server in some}
    allowed = data.draw(st.sets(st.sampled_from(some), min_size=1))
    choice = scheduler_of("least-connections", some, connections).choose(client(1), allowed.__contains__)
    assert choice in allowed
    assert connections[key_of(choice)] / choice.weight == min(
        connections[key_of(server)] / server.weight for server in allowed
    )


def test_an_emptied_server_is_filled() -> None:
    a, b = some = servers(1, 1)
    connections = {key_of(a): 10}
    scheduler = scheduler_of("least-connections", some, connections)
    for _ in range(10):
        assert scheduler.choose(client(1), anybody) is b
        connections[key_of(b)] = connections.get(key_of(b), 0) + 1
    assert {scheduler.choose(client(1), anybody) for _ in range(2)} == {a, b}, "now both have as many"


@given(weights=st.lists(st.integers(1, 9), min_size=1, max_size=5), count=st.integers(0, 200))
def test_connections_that_stay_are_as_the_weights(weights, count) -> None:
    """Never is a server more than one connection above its share."""
    some = servers(*weights)
    connections: Counter[bytes] = Counter()
    scheduler = scheduler_of("least-connections", some, connections)
    for number in range(count):
        connections[key_of(scheduler.choose(client(number), anybody))] += 1
    for server in some:
        assert connections[key_of(server)] <= count * server.weight / sum(weights) + 1


# By hash.


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.randoms(use_true_random=False), clients)
@pytest.mark.parametrize("kind", HASHED)
def test_the_order_of_servers_does_not_matter(kind, weights, random, one) -> None:
    some = servers(*weights)
    shuffled = random.sample(some, len(some))
    assert scheduler_of(kind, some).choose(one, anybody) == scheduler_of(kind, tuple(shuffled)).choose(one, anybody)


def test_the_choice_is_the_same_in_every_release() -> None:
    """A controller that is upgraded sends clients where the one before sent them."""
    some = servers(1, 1, 1)
    for kind, expected in {"source-hash": [1, 3, 3, 1, 3, 1, 2, 1], "maglev": [2, 2, 3, 2, 2, 2, 2, 1]}.items():
        scheduler = scheduler_of(kind, some)
        assert [some.index(scheduler.choose(client(number), anybody)) + 1 for number in range(8)] == expected


def test_source_hash_is_by_address_and_maglev_by_port_too() -> None:
    some = servers(*[1] * 8)
    source, maglev = (scheduler_of(kind, some) for kind in HASHED)
    for number in range(50):
        assert len({source.choose(client(number, port), anybody) for port in range(1024, 1124)}) == 1
        assert len({maglev.choose(client(number, port), anybody) for port in range(1024, 1124)}) == 8


def test_services_on_other_ports_of_the_same_servers_choose_alike() -> None:
    """So that a client's http and https are at one server."""
    http = servers(1, 2, 3)
    https = tuple(Server(server.address, 8443, server.weight) for server in http)
    for number in range(200):
        one, other = (scheduler_of("source-hash", some).choose(client(number), anybody) for some in (http, https))
        assert one.address == other.address
    same_address = tuple(Server(http[0].address, port) for port in (80, 81, 82))
    assert set(chosen(scheduler_of("source-hash", same_address), 200)) == set(same_address)


@pytest.mark.parametrize("kind", HASHED)
@given(weights=st.lists(st.integers(1, 9), min_size=2, max_size=6), data=st.data())
def test_who_is_not_allowed_disturbs_its_own_clients_only(kind, weights, data) -> None:
    """And those have a second choice that does not depend on who else is missing, unless it is that one."""
    some = servers(*weights)
    scheduler = scheduler_of(kind, some)
    one = data.draw(clients)
    order, missing = [], []
    while len(missing) < len(some):
        order.append(scheduler.choose(one, but(*missing)))
        missing.append(order[-1])
    assert set(order) == set(some)
    out = data.draw(st.sets(st.sampled_from(some), max_size=len(some) - 1))
    assert scheduler.choose(one, but(*out)) is next(server for server in order if server not in out)


@pytest.mark.parametrize("kind", HASHED)
def test_second_choices_are_spread_by_weight(kind) -> None:
    some = servers(4, 1, 2, 3)
    scheduler = scheduler_of(kind, some)
    everybody = [client(number, 1024 + number % 50_000) for number in range(20_000)]
    homeless = [one for one in everybody if scheduler.choose(one, anybody) is some[0]]
    counts = Counter(scheduler.choose(one, but(some[0])) for one in homeless)
    for server in some[1:]:
        share = len(homeless) * server.weight / 6
        assert abs(counts[server] - share) < 5 * share ** 0.5
