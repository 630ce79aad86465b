"""The echoes of a NAT gateway: nobody gets another's reply, and the table has a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries import echo
from lbctl.entries.echo import Echoes
from lbctl.values import side
from lbctl.values.keys import pack_key, unpack_key
from lbctl.values.protocols import ICMP

EXTERNAL, OUTSIDE = bytes([198, 51, 100, 200]), bytes([203, 0, 113, 1])
HOP, INNER = bytes(6), b"\x02" + bytes(5)
IDLE = 60.0


def request(echoes: Echoes, host: int, identifier: int, now: float = 0.0, outside: bytes = OUTSIDE):
    key = pack_key(ICMP, bytes([10, 0, 0, host]), identifier, outside, identifier)
    return echoes.request(key, EXTERNAL, HOP, INNER, now, IDLE)


def test_the_identifier_stays_where_nobody_else_has_it() -> None:
    echoes = Echoes()
    first, other = request(echoes, 1, 7), request(echoes, 1, 7, outside=bytes([203, 0, 113, 2]))
    assert unpack_key(first.key)[1:] == (OUTSIDE, 7, EXTERNAL, 7) and unpack_key(other.key)[2] == 7
    assert request(echoes, 1, 7, 1.0) is first


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3), st.floats(0, 50))))
def test_no_two_hosts_share_an_identifier(asked) -> None:
    """And each reply finds who asked."""
    echoes, now = Echoes(), 0.0
    for host, identifier, pause in asked:
        now += pause
        entry = request(echoes, host, identifier, now)
        assert echoes.find(side.EXTERNAL, entry.key) is entry is echoes.find(side.INTERNAL, entry.reply)
        assert unpack_key(entry.reply)[1:3] == (bytes([10, 0, 0, host]), identifier)
        assert len(echoes) == len({item.key for item in echoes._by_reply.values()}) == len(echoes._by_reply)


def test_what_is_idle_is_forgotten_and_what_is_used_is_not() -> None:
    echoes = Echoes()
    idle, used = request(echoes, 1, 1), request(echoes, 2, 2)
    echoes.used(used, 50.0)
    request(echoes, 3, 3, IDLE)
    assert echoes.find(side.EXTERNAL, idle.key) is None and echoes.find(side.INTERNAL, idle.reply) is None
    assert echoes.find(side.EXTERNAL, used.key) is used


def test_the_table_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "LIMIT", 3)
    echoes = Echoes()
    assert [request(echoes, 1, number) is not None for number in range(4)] == [True, True, True, False]
    assert request(echoes, 1, 0, 1.0) is not None, "who is in it stays"
    assert request(echoes, 1, 4, IDLE + 0.5) is not None, "the idle ones have gone"
