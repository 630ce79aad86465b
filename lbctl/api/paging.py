"""Pages of an access table.

Entries are listed by external IP, then by key. A cursor names the last entry of a page, so an entry that is there all
the while is listed exactly once, whatever comes and goes in between. A page costs one pass over the entries of an
external IP (some 10 ms for 100 000 entries): nothing is sorted or kept between pages.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lbctl.access_table import KEY_SIZES, Entry
from lbctl.model import Address, address_order


class Cursor(NamedTuple):
    """The place after an entry: packed external IP, and the entry's key."""

    external_ip: bytes
    key: bytes

    def text(self) -> str:
        return base64.urlsafe_b64encode(self.external_ip + self.key).rstrip(b"=").decode()


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
         after: Cursor, wanted: Callable[[Entry], bool] | None = None) -> tuple[list[Entry], Cursor | None]:
    """Up to `limit` entries after a cursor, and the cursor of the next page (None: there is none).

    addresses: external IPs in ascending order. wanted: filter on entries.
    """
    found: list[tuple[Cursor, Entry]] = []
    for address in addresses:
        if after.external_ip and address_order(address) < _order(after.external_ip):
            continue
        start = after.key if address.packed == after.external_ip else b""
        keyed = ((entry.key, entry) for entry in entries_of(address)
                 if entry.key > start and (wanted is None or wanted(entry)))
        # one more than asked for tells whether there is another page; keys differ, so entries are never compared
        smallest = heapq.nsmallest(limit + 1 - len(found), keyed)
        found += [(Cursor(address.packed, key), entry) for key, entry in smallest]
        if len(found) > limit:
            return [entry for _, entry in found[:limit]], found[limit - 1][0]
    return [entry for _, entry in found], None


def _order(packed: bytes) -> tuple[int, bytes]:
    return 4 if len(packed) == 4 else 6, packed


def client_filter(client: Address | None, port: int | None) -> Callable[[Entry], bool] | None:
    """A filter on a client's address and port, on the packed key because it meets every entry."""
    if client is None and port is None:
        return None
    address_wanted = None if client is None else client.packed
    port_wanted = None if port is None else port.to_bytes(2)

    def wanted(entry: Entry) -> bool:
        key = entry.key
        half = len(key) + 1 >> 1
        return ((address_wanted is None or key[1:half - 2] == address_wanted)
                and (port_wanted is None or key[half - 2:half] == port_wanted))

    return wanted
