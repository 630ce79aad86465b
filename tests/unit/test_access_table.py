"""The access table: its two indexes, and what an entry costs."""

from __future__ import annotations

import gc
import tracemalloc
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.entries.access_table import FIN_IN, FIN_OUT, GONE, RESET, AccessTable, Entry
from lbctl.entries.connection import Connection
from lbctl.entries.translation import Allocation, full_reply
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import pack_key, reply_key

CLIENT, EXTERNAL, SERVER = bytes([203, 0, 113, 9]), bytes([198, 51, 100, 1]), bytes([10, 0, 0, 11])
HOP = bytes.fromhex("02000000c0fe")
MOST_BYTES = {4: 500, 6: 550}
"""What an entry may cost in the controller (issue 2, "Speed"); the keys of IPv6 are 48 bytes longer together."""


def entry(port: int = 40001, server_port: int = 8080, now: float = 0.0) -> Entry:
    key = pack_key(6, CLIENT, port, EXTERNAL, 80)
    return Entry(key, reply_key(key, SERVER, server_port), HOP, now)


def test_an_entry_in_words() -> None:
    assert entry().connection == Connection(6, Endpoint(IPv4Address("203.0.113.9"), 40001), Endpoint(
        IPv4Address("198.51.100.1"), 80), Endpoint(IPv4Address("10.0.0.11"), 8080), "02:00:00:00:c0:fe")
    assert entry().server == (SERVER, 8080)
    assert "203.0.113.9" in repr(entry())


@pytest.mark.parametrize(
    "flags, state",
    [(0, "open"), (FIN_IN, "half-closed"), (FIN_OUT, "half-closed"), (RESET, "reset"), (FIN_IN | RESET, "reset")],
)
def test_states(flags, state) -> None:
    item = entry()
    item.flags = flags
    assert item.state == state


def test_an_entry_is_found_both_ways_until_it_is_removed() -> None:
    table, item = AccessTable(), entry()
    table.add(item)
    assert table.by_key(item.key) is table.by_reply(item.reply) is item
    assert table.by_key(item.reply) is None
    snapshot = table.snapshot()
    table.remove(item)
    assert (len(table), table.by_key(item.key), table.by_reply(item.reply)) == (0, None, None)
    assert snapshot == [item] and item.flags & GONE


@pytest.mark.parametrize("other", [entry(server_port=81), entry()], ids=["its key", "both"])
def test_a_taken_place_is_refused(other) -> None:
    table = AccessTable()
    table.add(entry())
    with pytest.raises(ValueError, match="taken"):
        table.add(other)
    assert len(table) == 1 and table.by_reply(other.reply) in (None, table.by_key(entry().key))


def test_a_taken_reply_key_is_refused() -> None:
    table = AccessTable()
    table.add(entry())
    key = pack_key(6, CLIENT, 40001, EXTERNAL, 443)
    with pytest.raises(ValueError, match="taken"):
        table.add(Entry(key, entry().reply, HOP, 0.0))
    assert len(table) == 1 and table.by_key(key) is None


@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=40))
def test_the_indexes_never_part(steps) -> None:
    table = AccessTable()
    for port, add in steps:
        item = table.by_key(entry(port).key)
        if add and item is None:
            table.add(entry(port))
        elif not add and item:
            table.remove(item)
        assert {item.reply for item in table.entries()} == {
            entry(port).reply for port in range(9) if table.by_reply(entry(port).reply)}


@pytest.mark.parametrize("version, full", [(4, False), (4, True), (6, False), (6, True)])
def test_what_an_entry_costs(version, full) -> None:
    """Everything that it needs, made as for a new connection: both keys, next hop and sequence number of its own. With
    full NAT the allocation of its port, too."""
    external, server, internal = (EXTERNAL, SERVER, bytes([10, 0, 0, 101])) if version == 4 else (
        bytes(12) + EXTERNAL, bytes(12) + SERVER, bytes(12) + bytes([10, 0, 0, 101]))
    count = 50_000
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    table = AccessTable()
    allocation = Allocation(table, (internal,), (1, 65535), False, 1)
    for number in range(count):
        key = pack_key(6, (0x0B000000 + number // 60_000).to_bytes(len(external)), number % 60_000, external, 80)
        now = 1e9 + number
        reply = (
            full_reply(key, server, 8080, allocation.give((6, server, 8080), now, 60.0))
            if full
            else reply_key(key, server, 8080)
        )
        table.add(Entry(key, reply, (number + (1 << 40)).to_bytes(6), now, number + (1 << 31)))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / count <= MOST_BYTES[version], f"{(after - before) / count:.0f} bytes"
