"""Maglev's table: how even it is, and how many places change their server when one comes or goes, beside the ideal."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbctl.servers.maglev import SIZE, lookup_table, place_of

IDEAL = {"leaves": lambda servers: 1 / servers, "joins": lambda servers: 1 / (servers + 1)}


def names(count: int) -> list[bytes]:
    return [bytes((10, 0, number >> 8, number & 255, 0, 0)) for number in range(1, count + 1)]


def named(some: list[bytes], weights: list[int] | None = None) -> list[bytes]:
    """The table with names in place of numbers."""
    return [some[number] for number in lookup_table(some, weights or [1] * len(some))]


def disruption(count: int, event: str, which: int = 0) -> tuple[float, float]:
    """The shares of places that change their server, and of those among them that need not, when server `which` of so
    many leaves or when one joins that comes at that place."""
    before = names(count if event == "leaves" else count + 1)
    gone = before[which]
    more, fewer = named(before), named([name for name in before if name != gone])
    changed = [one for one, other in zip(more, fewer, strict=True) if one != other]
    return len(changed) / SIZE, sum(one != gone for one in changed) / SIZE


def modulo_disruption(count: int) -> float:
    """What hash % servers would do."""
    return sum(place % count != place % (count - 1) for place in range(SIZE)) / SIZE


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_each_has_its_share_to_one_place(count) -> None:
    shares = Counter(lookup_table(names(count), [1] * count))
    assert len(shares) == count and max(shares.values()) - min(shares.values()) <= 1


@settings(max_examples=20)
@given(st.lists(st.integers(1, 65535), min_size=1, max_size=8))
def test_weights_to_two_places(weights) -> None:
    """And nobody goes without."""
    shares = Counter(lookup_table(names(len(weights)), weights))
    for number, weight in enumerate(weights):
        assert shares[number] >= 1
        assert abs(shares[number] - SIZE * weight / sum(weights)) <= len(weights) + 1


@pytest.mark.parametrize("event", ["leaves", "joins"])
@pytest.mark.parametrize("count, needless", [(2, 0.002), (5, 0.02), (10, 0.03), (20, 0.04), (50, 0.06), (100, 0.08)])
def test_disruption_beside_the_ideal(count, needless, event) -> None:
    """The mean over several servers; all of the leaving one's places must change, and few others do."""
    found = [disruption(count, event, which) for which in range(0, count, max(1, count // 5))]
    changed = sum(share for share, _ in found) / len(found)
    assert IDEAL[event](count) - 2 / SIZE <= changed <= IDEAL[event](count) + needless
    assert sum(share for _, share in found) / len(found) <= needless


def test_twin_modulo_would_fail() -> None:
    assert modulo_disruption(10) > 0.8


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 256, 65536]), st.sampled_from([2, 3, 7]))
@settings(max_examples=30)
def test_clients_in_a_row_are_spread(first, step, count) -> None:
    """Whatever distance they are at: at six standard deviations."""
    counts = Counter(place_of(((first + step * number) & 0xFFFFFFFF).to_bytes(4)) % count for number in range(5000))
    assert all(abs(counts[number] - 5000 / count) < 6 * (5000 / count) ** 0.5 for number in range(count))
