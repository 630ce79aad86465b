"""How slices are divided among servers: each gets its share to within one, no slice changes hands without need, and the
next slices are the next servers'."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lbctl.servers.slices import NOBODYS, Owners, divided
from lbctl.values.addresses import Endpoint
from lbctl.values.slices import PORT_MASK, SLICES, slice_of_port

SERVERS = [Endpoint(IPv4Address(f"10.0.0.{number}"), 80) for number in range(1, 40)]
WEIGHTS = st.dictionaries(st.sampled_from(SERVERS), st.integers(1, 65535), min_size=1, max_size=30)
ALIKE = st.sets(st.sampled_from(SERVERS), min_size=1).map(lambda servers: dict.fromkeys(sorted(servers), 1))


@st.composite
def histories(draw, weights=WEIGHTS) -> Owners:
    """Slices after some changes of servers and weights; some may be nobody's."""
    owners = NOBODYS
    for each in draw(st.lists(weights, max_size=4)):
        owners = divided(owners, each)
    without = draw(st.sets(st.integers(0, SLICES - 1), max_size=20))
    return tuple(None if number in without else owner for number, owner in enumerate(owners))


def changed(before: Owners, after: Owners) -> int:
    return sum(one != other for one, other in zip(before, after, strict=True))


@given(histories(), WEIGHTS)
def test_each_server_has_its_share_to_within_one(before, weights) -> None:
    counts, total = Counter(divided(before, weights)), sum(weights.values())
    assert counts.keys() <= weights.keys()
    for endpoint, weight in weights.items():
        assert abs(counts[endpoint] - SLICES * weight / total) < 1


@given(histories(), WEIGHTS)
def test_a_server_that_gives_slices_gets_none_and_the_other_way_round(before, weights) -> None:
    """So what changes hands is what must, for the shares that there are then."""
    after = divided(before, weights)
    had, has = Counter(before), Counter(after)
    assert changed(before, after) == sum(max(0, has[endpoint] - had[endpoint]) for endpoint in weights)


@given(histories(ALIKE), ALIKE)
def test_among_servers_alike_there_is_no_way_with_fewer_changes(before, weights) -> None:
    had, (least, more) = Counter(before), divmod(SLICES, len(weights))
    kept = sum(min(had[endpoint], least) for endpoint in weights)
    kept += min(more, sum(had[endpoint] > least for endpoint in weights))
    assert changed(before, divided(before, weights)) == SLICES - kept


@given(histories(), WEIGHTS)
@example(NOBODYS, {SERVERS[0]: 1, SERVERS[1]: 1, SERVERS[2]: 10})  # All remainders are equal.
def test_what_is_divided_stays_so(before, weights) -> None:
    after = divided(before, weights)
    assert divided(after, weights) == after


@given(st.integers(1, 38), st.data())
def test_a_server_more_takes_its_part_from_all_alike(count, data) -> None:
    """And gives it back: nobody else's slices move."""
    before = divided(NOBODYS, dict.fromkeys(SERVERS[:count], 1))
    new = SERVERS[count]
    after = divided(before, dict.fromkeys(SERVERS[:count + 1], 1))
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert {other for _, other in moved} == {new} and len(moved) in (
        SLICES // (count + 1), SLICES // (count + 1) + 1)
    given_up = Counter(one for one, _ in moved)
    assert max(given_up.values()) - min(given_up[endpoint] for endpoint in SERVERS[:count]) <= 2
    gone = data.draw(st.sampled_from(SERVERS[:count + 1]))
    rest = divided(after, dict.fromkeys([server for server in SERVERS[:count + 1] if server != gone], 1))
    assert all(one == other or one == gone for one, other in zip(after, rest, strict=True))


@given(WEIGHTS)
def test_no_server_takes_connections(weights) -> None:
    assert divided(divided(NOBODYS, weights), {}) == NOBODYS


@given(ALIKE, st.integers(0, SLICES - 1), st.integers(1, 8))
def test_the_next_connections_of_a_client_go_to_all_servers_in_turn(weights, first, rounds) -> None:
    """Its ports differ in the low bits first. A window over the end of the slices may meet one server twice."""
    owners = divided(NOBODYS, weights)
    length = rounds * len(weights)
    assume(length <= SLICES)
    window = Counter((owners * 2)[first:first + length])
    at_the_end = first + length > SLICES
    assert all(abs(window[endpoint] - rounds) <= at_the_end for endpoint in weights)


def test_slices_are_by_bits_1_to_8_of_the_port() -> None:
    assert PORT_MASK == 0x1FE
    assert [slice_of_port(port) for port in (0, 1, 2, 3, 0x1FE, 0x1FF, 0x200, 0xFFFF, 40000)] == [
        0, 0, 1, 1, 255, 255, 0, 255, 32]


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("servers", [2, 4, 10])
def test_ports_of_one_parity_are_spread_over_all_servers(servers, parity) -> None:
    """As Linux's connect() takes them. By bits 0 to 7, the naive way, half of the servers would have nobody."""
    owners = divided(NOBODYS, dict.fromkeys(SERVERS[:servers], 1))
    ports = range(32768 + parity, 60999, 2)
    counts = Counter(owners[slice_of_port(port)] for port in ports)
    assert max(counts.values()) / (len(ports) / servers) < 1.03
    naive = Counter(owners[port % SLICES] for port in ports)
    assert max(naive.values()) / (len(ports) / servers) > 1.5
