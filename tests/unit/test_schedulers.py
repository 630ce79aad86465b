"""Which server a new connection gets."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.model import SCHEDULERS, Server, Service
from lbctl.schedulers import scheduler_for


def servers(*weights: int) -> tuple[Server, ...]:
    return tuple(Server(IPv4Address(f"10.0.0.{place}"), 80, weight) for place, weight in enumerate(weights, 1))


def chosen(kind: str, some: tuple[Server, ...], count: int, allowed=lambda _: True) -> list[Server | None]:
    scheduler = scheduler_for(Service("tcp", 80, kind, some))
    return [scheduler.choose(allowed) for _ in range(count)]


def test_round_robin_takes_turns() -> None:
    a, b, c = some = servers(1, 1, 1)
    assert chosen("round-robin", some, 7) == [a, b, c, a, b, c, a]


def test_round_robin_does_not_look_at_weights() -> None:
    assert Counter(chosen("round-robin", servers(1, 9), 10)) == dict.fromkeys(servers(1, 9), 5)


def test_weights_are_smooth() -> None:
    """nginx's example: 5, 1, 1 gives a a b a c a a, not five times a in a row."""
    a, b, c = some = servers(5, 1, 1)
    assert chosen("weighted-round-robin", some, 7) == [a, a, b, a, c, a, a]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_each_gets_its_share_of_a_round(weights) -> None:
    some = servers(*weights)
    assert Counter(chosen("weighted-round-robin", some, 3 * sum(weights))) == {item: 3 * item.weight for item in some}


@pytest.mark.parametrize("kind", SCHEDULERS)
@given(data=st.data())
def test_only_those_allowed_and_always_one_of_them(kind, data) -> None:
    some = servers(*data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    scheduler = scheduler_for(Service("tcp", 80, kind, some))
    for allowed in data.draw(st.lists(st.sets(st.sampled_from(some)), max_size=12)):
        choice = scheduler.choose(lambda server, allowed=allowed: server in allowed)
        assert choice in allowed if allowed else choice is None


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_server_that_comes_back_is_not_flooded(kind) -> None:
    """Its share while it was away is not made up for."""
    a, b = some = servers(1, 1)
    scheduler = scheduler_for(Service("tcp", 80, kind, some))
    for _ in range(100):
        scheduler.choose(lambda server: server is a)
    assert Counter(scheduler.choose(lambda _: True) for _ in range(10)) == {a: 5, b: 5}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_no_servers(kind) -> None:
    assert chosen(kind, (), 2) == [None, None]


def test_an_unknown_kind() -> None:
    with pytest.raises(KeyError):
        scheduler_for(Service("tcp", 80, "at-random"))
