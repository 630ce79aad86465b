"""Which LB takes which external IP of a dead one."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from lbctl.failures.succession import Candidate, Orphan, spread
from tests.unit.api_fakes import Api

FIRST = IPv4Address("198.51.100.1")
HOPS = frozenset({IPv4Address("10.0.0.11"), IPv4Address("10.0.0.12")})
LOADS = st.sampled_from([0.0, 1.0, 2.0, 3.5, 10.0])


def having(count: int, start: int = 100) -> frozenset[IPv4Address]:
    return frozenset(FIRST + start + number for number in range(count))


def orphans(count: int) -> dict[IPv4Address, Orphan]:
    return {FIRST + number: Orphan(HOPS) for number in range(count)}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 20))
def test_without_loads_those_with_the_fewest_take_them(counts, count) -> None:
    chosen = dict(spread(orphans(count), [Candidate(f"lb-{n}", having(has), HOPS) for n, has in enumerate(counts)]))
    assert chosen.keys() == orphans(count).keys()
    taken = Counter(chosen.values())
    after = [has + taken[f"lb-{n}"] for n, has in enumerate(counts)]
    assert all(total <= min(after) + 1 for n, total in enumerate(after) if taken[f"lb-{n}"])


@given(st.lists(st.tuples(LOADS, st.sampled_from([1.0, 2.0])), min_size=1, max_size=5), st.lists(LOADS, max_size=12))
def test_no_lb_has_taken_what_another_would_have_carried_better(lbs, loads) -> None:
    """What came last to an LB would be at least as much too much for any other."""
    candidates = [Candidate(f"lb-{n}", frozenset(), HOPS, load, capacity) for n, (load, capacity) in enumerate(lbs)]
    chosen = dict(spread({FIRST + number: Orphan(HOPS, load) for number, load in enumerate(loads)}, candidates))
    after = {each.name: each.load for each in candidates}
    smallest: dict[str, float] = {}
    for address, name in chosen.items():
        load = loads[int(address) - int(FIRST)]
        after[name] += load
        smallest[name] = min(load, smallest.get(name, load))
    for taker in candidates:
        for other in candidates:
            if taker.name in smallest and other is not taker:
                assert (
                    after[taker.name] / taker.capacity
                    <= (after[other.name] + smallest[taker.name]) / other.capacity + 1e-9
                )


def test_one_that_reaches_the_servers_comes_first() -> None:
    lame, well = Candidate("lb-b", frozenset(), frozenset()), Candidate("lb-c", having(9), HOPS, load=9.0)
    assert set(dict(spread(orphans(3), [lame, well])).values()) == {"lb-c"}
    assert set(dict(spread(orphans(3), [lame])).values()) == {"lb-b"}
    assert dict(spread(orphans(3), [])) == {}


def test_pins_are_met_where_they_can_be() -> None:
    apart = FIRST + 100
    candidates = [Candidate("lb-b", frozenset({apart}), HOPS), Candidate("lb-c", having(3, 50), HOPS, load=5.0)]
    assert dict(spread({FIRST: Orphan(HOPS, 1.0, apart=frozenset({apart}))}, candidates)) == {FIRST: "lb-c"}
    assert dict(spread({FIRST: Orphan(HOPS, 1.0, only_on=frozenset({"lb-a", "lb-c"}))}, candidates)) == {FIRST: "lb-c"}
    assert dict(spread({FIRST: Orphan(HOPS, 1.0, only_on=frozenset({"lb-a"}))}, candidates)) == {FIRST: "lb-b"}, (
        "better there than nowhere"
    )
    two = {FIRST: Orphan(HOPS, apart=frozenset({FIRST + 1})), FIRST + 1: Orphan(HOPS, apart=frozenset({FIRST}))}
    assert len(set(dict(spread(two, candidates)).values())) == 2


def test_the_order_by_rest() -> None:
    api = Api()
    assert api.call("POST", "/v1/load-balancers/lb-x/failover").status == 404
    answer = api.call("POST", "/v1/load-balancers/lb-a/failover", query={"wait": "true"})
    assert answer.status == 200
