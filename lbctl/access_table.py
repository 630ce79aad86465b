"""The access table (seed figure 5): the connections of each external IP, as the controller knows them.

An entry is found by its key (what a client's packet carries) or by its reply key (what a server's packet carries).
Both are 13 packed bytes: protocol, address, port, address, port, the sender's first. Addresses and ports stay packed
because 100 000 entries are kept here, and every new connection passes through.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, ValuesView
from ipaddress import IPv4Address

from lbctl.model import Connection, Endpoint
from lbctl.pipeline.cookies import bucket_of_key

KEY = struct.Struct("!B4sH4sH")
"""protocol, sender address, sender port, receiver address, receiver port"""

FIN_IN, FIN_OUT, RESET, REINSTALLED, GONE, REUSED = 1, 2, 4, 8, 16, 32
"""Flags of an entry: the flow from the client (to the client) ran out after FIN; a RST was seen; a flow that had run
out was installed again, there or at another LB; the entry is no longer in the table; an earlier
connection had the same ports shortly before."""
ENDING = FIN_IN | FIN_OUT | RESET
NO_HOP = bytes(6)
"""The next hop of an entry that was read back from a switch without its flow to the client."""


class Entry:
    """One connection. Times are the caller's clock in seconds; `packets` is the count at the last sweep."""

    __slots__ = ("key", "reply", "next_hop", "flags", "isn", "created", "last_seen", "packets")

    def __init__(self, key: bytes, reply: bytes, next_hop: bytes, created: float, isn: int = -1) -> None:
        self.key = key
        self.reply = reply
        self.next_hop = next_hop
        self.flags = 0
        self.isn = isn
        self.created = created
        self.last_seen = created
        self.packets = 0

    @property
    def bucket(self) -> int:
        return bucket_of_key(self.key)

    @property
    def connection(self) -> Connection:
        protocol, client, client_port, external, external_port = KEY.unpack(self.key)
        _, server, server_port, _, _ = KEY.unpack(self.reply)
        return Connection(protocol, Endpoint(IPv4Address(client), client_port),
                          Endpoint(IPv4Address(external), external_port),
                          Endpoint(IPv4Address(server), server_port), self.next_hop.hex(":"))

    @property
    def server(self) -> tuple[bytes, int]:
        """Packed address and port of the server."""
        _, address, port, _, _ = KEY.unpack(self.reply)
        return address, port

    @property
    def state(self) -> str:
        """open; half-closed (FIN one way); reset (RST seen, entry lingers)."""
        if self.flags & RESET:
            return "reset"
        return "half-closed" if self.flags & (FIN_IN | FIN_OUT) else "open"

    def __repr__(self) -> str:
        return f"Entry({self.connection}, {self.state})"


def reply_key(key: bytes, server: bytes, server_port: int) -> bytes:
    """The key of the server's packets for a connection of that key to that server (packed address, port)."""
    protocol, client, client_port, _, _ = KEY.unpack(key)
    return KEY.pack(protocol, server, server_port, client, client_port)


class AccessTable:
    """The entries of one external IP."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Entry] = {}
        self._by_reply: dict[bytes, Entry] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def entries(self) -> ValuesView[Entry]:
        return self._by_key.values()

    def snapshot(self) -> list[Entry]:
        """The entries now; some may be GONE by the time that the caller comes to them."""
        return list(self._by_key.values())

    def by_key(self, key: bytes) -> Entry | None:
        return self._by_key.get(key)

    def by_reply(self, key: bytes) -> Entry | None:
        return self._by_reply.get(key)

    def add(self, entry: Entry) -> None:
        """Adds an entry. Raises ValueError if its key or its reply key is taken: remove that entry first."""
        if entry.key in self._by_key or entry.reply in self._by_reply:
            raise ValueError(f"{entry!r}: its key or reply key is taken")
        self._by_key[entry.key] = entry
        self._by_reply[entry.reply] = entry

    def remove(self, entry: Entry) -> None:
        """Removes an entry that is in the table, and marks it GONE."""
        del self._by_key[entry.key]
        del self._by_reply[entry.reply]
        entry.flags |= GONE

    def idle_since(self, deadline: float) -> Iterator[Entry]:
        """Entries without a packet since `deadline`."""
        return (entry for entry in self._by_key.values() if entry.last_seen <= deadline)
