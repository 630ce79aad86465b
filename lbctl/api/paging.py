"""Pages of an access table.

Entries are listed by external IP, then by key; the key of a slice's begins with no client, so slices come first. A
cursor names the last entry of a page, so an entry that is there all the while is listed exactly once, whatever comes
and goes in between. A page costs one pass over the entries of an external IP (some 10 ms for 100 000 entries):
nothing is sorted or kept between pages.
"""

from __future__ import annotations

import base64
import binascii
import functools
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from lbctl.entries.access_table import ENDING, STATES, Entry
from lbctl.entries.slice_entry import SliceEntry
from lbctl.values.addresses import Address, address_order
from lbctl.values.keys import KEY_SIZES, server_address_of
from lbctl.values.protocols import PROTOCOL_NUMBERS

Filter = Callable[[Entry], bool]
SliceFilter = Callable[[SliceEntry], bool]
Row = Entry | SliceEntry


class Cursor(NamedTuple):
    """The place after an entry: packed external IP, and the entry's key."""

    external_ip: bytes
    key: bytes

    def text(self) -> str:
        return base64.urlsafe_b64encode(self.external_ip + self.key).rstrip(b"=").decode()


LOOKED_AT_ONCE = 5_000
"""Entries: some ms."""
START = Cursor(b"", b"")


def parse_cursor(text: str) -> Cursor:
    """Raises ValueError for what no page has given as its `next`."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not the `next` of a page") from error
    size = {4 + KEY_SIZES[4]: 4, 16 + KEY_SIZES[6]: 16}.get(len(raw))
    if size is None:
        raise ValueError("is not the `next` of a page")
    return Cursor(raw[:size], raw[size:])


def page(addresses: Sequence[Address], entries_of: Callable[[Address], Iterable[Entry]], limit: int,
         after: Cursor, wanted: Filter | None = None,
         slices_of: Callable[[Address], Iterable[SliceEntry]] = lambda _: (),
         pause: Callable[[], None] = lambda: None) -> tuple[list[Row], Cursor | None]:
    """Up to `limit` entries after a cursor, and the cursor of the next page (None: there is none).

    addresses: external IPs in ascending order. wanted: filter on entries by connection. slices_of: the other ones that
    are wanted. pause: is called now and then, and may let others run.
    """
    found: list[tuple[Cursor, Row]] = []
    for address in addresses:
        if after.external_ip and address_order(address) < _order(after.external_ip):
            continue
        start = after.key if address.packed == after.external_ip else b""
        # one more than asked for tells whether there is another page
        smallest = _Smallest(limit + 1 - len(found), start)
        smallest.look_at(slices_of(address))
        entries = list(entries_of(address))
        for place in range(0, len(entries), LOOKED_AT_ONCE):
            some = entries[place:place + LOOKED_AT_ONCE]
            smallest.look_at([entry for entry in some if wanted is None or wanted(entry)])
            pause()
        found += [(Cursor(address.packed, entry.key), entry) for entry in smallest.rows]
        if len(found) > limit:
            return [entry for _, entry in found[:limit]], found[limit - 1][0]
    return [entry for _, entry in found], None


class _Smallest:
    """The first rows after a key, of those that have been looked at: so many at most, in order."""

    def __init__(self, count: int, after: bytes) -> None:
        self.rows: list[Row] = []
        self._count, self._after = count, after

    def look_at(self, rows: Iterable[Row]) -> None:
        """These come to the others."""
        last = self.rows[-1].key if len(self.rows) >= self._count else None
        new = [row for row in rows if row.key > self._after and (last is None or row.key < last)]
        if new:
            self.rows = sorted(self.rows + new, key=attrgetter("key"))[:self._count]


def _order(packed: bytes) -> tuple[int, bytes]:
    return 4 if len(packed) == 4 else 6, packed


def entry_filter(*, client: Address | None = None, client_port: int | None = None, server: Address | None = None,
                 state: str | None = None, protocol: str | None = None) -> Filter | None:
    """A filter on what is given, on packed keys because it meets every entry; None if nothing is given."""
    tests: list[Filter] = []
    if client_port is not None:
        port = client_port.to_bytes(2)
        # A key's first half ends with the client's port: byte 7 of 13 with IPv4, byte 19 of 37 with IPv6.
        tests.append(lambda entry: (entry.key[5:7] if len(entry.key) == KEY_SIZES[4] else entry.key[17:19]) == port)
    if client is not None:
        packed, end, size = client.packed, 1 + len(client.packed), KEY_SIZES[client.version]
        tests.append(lambda entry: entry.key[1:end] == packed and len(entry.key) == size)
    if server is not None:
        there, end_there, size_there = server.packed, 1 + len(server.packed), KEY_SIZES[server.version]
        tests.append(lambda entry: entry.reply[1:end_there] == there and len(entry.reply) == size_there)
    if state is not None:
        flags = frozenset(flags for flags, name in enumerate(STATES) if name == state)
        tests.append(lambda entry: entry.flags & ENDING in flags)
    if protocol is not None:
        number = PROTOCOL_NUMBERS[protocol]
        tests.append(lambda entry: entry.key[0] == number)
    return functools.reduce(_both, tests) if tests else None


def slice_filter(*, client: Address | None = None, client_port: int | None = None, server: Address | None = None,
                 state: str | None = None, protocol: str | None = None) -> SliceFilter:
    """The same of slices: a client address or a port is in those that hold it, and none has a state."""
    def wanted(entry: SliceEntry) -> bool:
        return (
            state is None
            and (client is None or len(entry.key) == KEY_SIZES[client.version])
            and entry.holds(client.packed if client else None, client_port)
            and (server is None or server_address_of(entry.reply) == server.packed)
            and (protocol is None or entry.key[0] == PROTOCOL_NUMBERS[protocol])
        )

    return wanted


def _both(one: Filter, other: Filter) -> Filter:
    return lambda entry: one(entry) and other(entry)
