"""The access table (seed figures 5 and 12): the connections of each external IP, as the controller knows them.

An entry is found by its key (what a packet from the external network carries) or by its reply key (what a packet from
the internal network carries). Both are packed: protocol, address, port, address, port, the sender's first; 13 bytes
with IPv4, 37 with IPv6. Addresses and ports stay packed because 100 000 entries are kept here, and every new connection
passes through.

What kind of NAT an entry does can be read off its keys: with full NAT (seed figure 11) the reply is not addressed to
the client but to an internal IP, column 913, and a port of it, column 914.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, ValuesView
from ipaddress import ip_address
from typing import NamedTuple

from lbctl.entries.connection import Connection
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import BUCKETS, bucket_of_key, receiver_half, sender_half, server_key_of, unpack_key
from lbctl.values.side import EXTERNAL, INTERNAL, Side

FIN_IN, FIN_OUT, RESET = EXTERNAL.flag, INTERNAL.flag, 4
"""Flags of an entry that say how far it has ended: its flow for packets from the client (for those to the client) ran
out after FIN; a RST was seen. Its state follows from them, and from nothing else."""
REINSTALLED, GONE, REUSED, REFUSED, ANSWERED = 8, 16, 32, 64, 128
"""Flags that say what has happened to it: a flow that had run out was installed again, there or at another LB; it is no
longer in the table; an earlier connection had the same ports shortly before; the RST came from inside, so from its
server; its server has answered a SYN, or may have, before its flows began to count anew."""
ENDING = FIN_IN | FIN_OUT | RESET
STATES = tuple("reset" if flags & RESET else "half-closed" if flags else "open" for flags in range(ENDING + 1))
"""State of an entry, by those of its flags that are in ENDING."""
NO_HOP = bytes(6)
"""The next hop of an entry that was read back from a switch without its flow to the client."""


class Shape(NamedTuple):
    """What decides which fields an entry's flows match and set; the bytes of their OpenFlow messages depend on nothing
    else."""

    version: int
    """of IP: 4 or 6"""
    protocol: int
    full: bool
    """Full NAT: the client's side is translated as well."""
    inner_hop: bool
    """The next hop on the internal network is the entry's own (outbound NAT)."""


class Entry:
    """One connection. Times are the caller's clock in seconds; `packets` and `bytes` count both
    directions, as of the last sweep.

    next_hop: the MAC on the external network that the client's packets came from. inner_hop: the same on the internal
    network, for a host that has opened a connection to the outside; else empty, and table deliver_server knows it.
    """

    __slots__ = ("key", "reply", "next_hop", "inner_hop", "flags", "isn", "created", "last_seen", "packets", "bytes")

    def __init__(self, key: bytes, reply: bytes, next_hop: bytes, created: float, isn: int = -1,
                 inner_hop: bytes = b"") -> None:
        self.key = key
        self.reply = reply
        self.next_hop = next_hop
        self.inner_hop = inner_hop
        self.flags = 0
        self.isn = isn
        self.created = created
        self.last_seen = created
        self.packets = 0
        self.bytes = 0

    def key_from(self, side: Side) -> bytes:
        """What packets from that side carry."""
        return self.key if side is EXTERNAL else self.reply

    @property
    def bucket(self) -> int:
        return bucket_of_key(self.key)

    @property
    def shape(self) -> Shape:
        return Shape(4 if len(self.key) == 13 else 6, self.key[0], self.full, bool(self.inner_hop))

    @property
    def full(self) -> bool:
        """Full NAT? Else the server sees the client's own address and port."""
        return sender_half(self.key) != receiver_half(self.reply)

    @property
    def opening_key(self) -> bytes:
        """What the packet carried that opened it."""
        return self.reply if self.inner_hop else self.key

    @property
    def connection(self) -> Connection:
        protocol, client, client_port, external, external_port = unpack_key(self.key)
        _, server, server_port, internal, internal_port = unpack_key(self.reply)
        return Connection(protocol, Endpoint(ip_address(client), client_port),
                          Endpoint(ip_address(external), external_port),
                          Endpoint(ip_address(server), server_port), self.next_hop.hex(":"),
                          Endpoint(ip_address(internal), internal_port) if self.full else None)

    @property
    def external(self) -> bytes:
        """Packed external IP."""
        return unpack_key(self.key)[3]

    @property
    def server(self) -> tuple[bytes, int]:
        """Packed address and port of the server (of the inside host, for outbound NAT)."""
        _, address, port, _, _ = unpack_key(self.reply)
        return address, port

    @property
    def state(self) -> str:
        """open; half-closed (FIN one way); reset (RST seen, entry lingers)."""
        return STATES[self.flags & ENDING]

    def __repr__(self) -> str:
        return f"Entry({self.connection}, {self.state})"


class AccessTable:
    """The entries of one external IP."""

    def __init__(self) -> None:
        self._by_key: dict[bytes, Entry] = {}
        self._by_reply: dict[bytes, Entry] = {}
        self._by_side = (self._by_key, self._by_reply)
        self.added = 0
        """How many entries have been added in all."""
        self.half_open: dict[Entry, int] = {}
        """Those of which nothing but SYNs has been seen of their clients, as far as is known: how many."""
        self.connections_to: dict[bytes, int] = {}
        """server_key -> how many entries go to that server, if there are any (of a NAT gateway: to that inside
        host)."""
        self.translated_to: Counter[bytes] = Counter()
        """Packed internal address -> how many entries with full NAT have it, if there are any."""
        self.watcher: Callable[[Entry], None] | None = None
        """Is told of each entry that has come, gone, or changed."""

    def __len__(self) -> int:
        return len(self._by_key)

    def entries(self) -> ValuesView[Entry]:
        return self._by_key.values()

    def newest(self, count: int) -> Iterator[Entry]:
        """Those of the last `count` that were added that are still there, and maybe others."""
        return itertools.islice(reversed(self._by_key.values()), count)

    def snapshot(self) -> list[Entry]:
        """The entries now; some may be GONE by the time that the caller comes to them."""
        return list(self._by_key.values())

    def buckets(self) -> list[int]:
        """The buckets that have entries, in order; or all, once few can have none."""
        return list(range(BUCKETS)) if len(self) > 4 * BUCKETS else sorted({entry.bucket for entry in self.entries()})

    def servers(self) -> Counter[bytes]:
        """How many entries go to each server (packed address), if there are any."""
        counts: Counter[bytes] = Counter()
        for server, count in self.connections_to.items():
            counts[server[1:-2]] += count
        return counts

    def find(self, side: Side, key: bytes) -> Entry | None:
        """The entry whose packets from that side carry this key."""
        return self._by_side[side.number].get(key)

    def by_key(self, key: bytes) -> Entry | None:
        return self._by_key.get(key)

    def by_reply(self, key: bytes) -> Entry | None:
        return self._by_reply.get(key)

    def add(self, entry: Entry) -> None:
        """Adds an entry. Raises ValueError if its key or its reply key is taken: remove that entry first."""
        if entry.key in self._by_key or entry.reply in self._by_reply:
            raise ValueError(f"{entry!r}: its key or reply key is taken")
        self.added += 1
        self._by_key[entry.key] = entry
        self._by_reply[entry.reply] = entry
        self._count(entry, 1)
        if self.watcher:
            self.watcher(entry)

    def remove(self, entry: Entry) -> None:
        """Removes an entry that is in the table, and marks it GONE."""
        del self._by_key[entry.key]
        del self._by_reply[entry.reply]
        entry.flags |= GONE
        self.half_open.pop(entry, None)
        self._count(entry, -1)
        if self.watcher:
            self.watcher(entry)

    def _count(self, entry: Entry, more: int) -> None:
        server = server_key_of(entry.reply)
        count = self.connections_to.get(server, 0) + more
        if count:
            self.connections_to[server] = count
        else:
            del self.connections_to[server]
        if entry.full:
            place = receiver_half(entry.reply)[:-2]
            self.translated_to[place] += more
            if not self.translated_to[place]:
                del self.translated_to[place]

    def changed(self, entry: Entry) -> None:
        """To be called after an entry has got another state or next hop."""
        if self.watcher:
            self.watcher(entry)
