"""What a keeper may say: entries of the external IP and the server that it was asked about, and of nobody else.

A keeper runs on a server. One that was broken into may tell what it likes; it shall not get others' clients by that.
"""

from __future__ import annotations

from collections.abc import Iterable

from lbctl.keeper.rows import Row
from lbctl.site.model import ExternalIp
from lbctl.values.addresses import Address
from lbctl.values.protocols import PROTOCOL_NUMBERS

_PROTOCOLS = frozenset(PROTOCOL_NUMBERS.values())


def own_rows(rows: Iterable[Row], external_ip: ExternalIp, server: Address) -> list[Row]:
    """Those that can be that server's entries of that external IP: of TCP or UDP, and translated to the client's own
    address, or to one that the external IP translates to."""
    external, mine, size = external_ip.address.packed, server.packed, len(server.packed)
    internal = {address.packed for address in external_ip.internal_addresses()}
    half = 3 + size
    return [row for row in rows
            if row.key[0] == row.reply[0] and row.key[0] in _PROTOCOLS
            and len(row.key) == len(row.reply) == 2 * half - 1
            and row.key[half:-2] == external and row.reply[1:half - 2] == mine
            and (row.reply[half:] == row.key[1:half] or row.reply[half:-2] in internal)]
