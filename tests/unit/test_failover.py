"""Which LB takes which external IP of a dead one."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from lbctl.failover import Candidate, spread
from tests.unit.api_fakes import Api

HOPS = [IPv4Address(f"10.0.0.{number}") for number in range(11, 15)]


def orphans(count: int) -> dict:
    return {IPv4Address("198.51.100.1") + number: frozenset(HOPS[:1]) for number in range(count)}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 20))
def test_those_with_the_fewest_take_them(having, count) -> None:
    candidates = [Candidate(f"lb-{n}", has, frozenset(HOPS)) for n, has in enumerate(having)]
    chosen = spread(orphans(count), candidates)
    assert chosen.keys() == orphans(count).keys()
    taken = Counter(chosen.values())
    after = [has + taken[f"lb-{n}"] for n, has in enumerate(having)]
    assert all(total <= min(after) + 1 for n, total in enumerate(after) if taken[f"lb-{n}"])


def test_one_that_reaches_the_servers_comes_first() -> None:
    lame, well = Candidate("lb-b", 0, frozenset()), Candidate("lb-c", 9, frozenset(HOPS))
    assert set(spread(orphans(3), [lame, well]).values()) == {"lb-c"}
    assert set(spread(orphans(3), [lame]).values()) == {"lb-b"}
    assert spread(orphans(3), []) == {}


def test_the_order_by_rest() -> None:
    api = Api()
    assert api.call("POST", "/v1/load-balancers/lb-x/failover").status == 404
    answer = api.call("POST", "/v1/load-balancers/lb-a/failover", query={"wait": "true"})
    assert answer.status == 200
