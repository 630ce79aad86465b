"""What a connection is translated to on the internal network: the client's own address (destination NAT), or an internal
IP and a port of it (full NAT, seed figure 11). Outbound NAT gives a port of the external IP in the same way.

A port is given for each (internal IP, server address, server port, protocol): the same port serves one connection to each
server. Which ports are taken is known from the access table alone, so what a new controller reads back from the switches
is the allocation; nothing else is kept.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence

from lbctl.entries.access_table import AccessTable, Entry
from lbctl.values.keys import inverse_key, pack_key, unpack_key

Place = tuple[bytes, int]
"""A packed address and a port."""
Peer = tuple[int, bytes, int]
"""Protocol number, packed address and port of the host that shall see the place."""


class Places:
    """The places (address, port) that connections of one kind to one peer are translated to.

    Each is given at most once at a time; one that was freed rests for `rest` seconds. Everything is O(1), but for the
    places that `give` skips after a restart, each of them once.
    """

    def __init__(self, addresses: Sequence[bytes], ports: tuple[int, int], start: int = 0) -> None:
        self._addresses = addresses
        self._first, self._count = ports[0], ports[1] - ports[0] + 1
        self._size = len(addresses) * self._count
        self._start = start
        self._fresh = 0
        """So many places have been tried once, from `start` on."""
        self._taken: set[int] = set()
        self._resting: OrderedDict[int, float] = OrderedDict()
        """Since when each has rested, the longest first."""

    def available(self, now: float, rest: float) -> bool:
        """Is there a place that is neither taken nor resting?"""
        return self._next(now, rest) is not None

    def give(self, now: float, rest: float) -> Place | None:
        """Such a place; None if there is none. Those never used come first, then the one that has rested longest."""
        number = self._next(now, rest)
        if number is None:
            return None
        if self._fresh < self._size:
            self._fresh += 1
        else:
            del self._resting[number]
        self._taken.add(number)
        return self._place(number)

    def _next(self, now: float, rest: float) -> int | None:
        while self._fresh < self._size:
            number = (self._start + self._fresh) % self._size
            if number not in self._taken and number not in self._resting:
                return number
            self._fresh += 1
        number, since = next(iter(self._resting.items()), (None, now))
        return number if since + rest <= now else None

    def resting(self) -> list[tuple[Place, float]]:
        """The places that were freed and not given again, and when; the longest ago first."""
        return [(self._place(number), since) for number, since in self._resting.items()]

    def idle(self, now: float, rest: float) -> bool:
        """Nothing is taken, and nothing rests."""
        newest = next(reversed(self._resting.values()), float("-inf"))
        return not self._taken and newest + rest <= now

    def _place(self, number: int) -> Place:
        # The address changes with each number, so that the internal IPs share a server's connections.
        port, address = divmod(number, len(self._addresses))
        return self._addresses[address], self._first + port

    def _number(self, place: Place) -> int | None:
        port = place[1] - self._first
        if place[0] not in self._addresses or not 0 <= port < self._count:
            return None
        return port * len(self._addresses) + self._addresses.index(place[0])

    def mark(self, place: Place) -> None:
        """It is taken, by an entry that was read back."""
        number = self._number(place)
        if number is not None:
            self._taken.add(number)

    def start_after(self, place: Place) -> None:
        """What has rested longest after a restart, when nobody knows any more: those after the one given last."""
        number = self._number(place)
        if number is not None:
            self._start, self._fresh = number + 1, 0

    def rest(self, place: Place, since: float) -> None:
        """It was freed then, as an earlier allocation knows. To be called with the longest ago first."""
        number = self._number(place)
        if number is not None and number not in self._taken:
            self._resting[number] = since

    def free(self, place: Place, now: float) -> None:
        """It is taken no more, and rests from now on."""
        number = self._number(place)
        if number in self._taken:
            self._taken.discard(number)
            self._resting[number] = now


class Allocation:
    """The translated places of one external IP's connections, found from its access table when it is first asked.

    outbound: the connections were opened from inside (NAT gateway): the peer is the outside host, the place is in the
    entry's key. Else full NAT: the peer is the server, the place is in the reply key. seed: where a peer's places start
    (RFC 6056); another one after each restart, since nobody knows then which ports rest.
    """

    def __init__(self, table: AccessTable, addresses: Sequence[bytes], ports: tuple[int, int], outbound: bool, seed: int) -> None:
        self._table = table
        self._addresses, self._ports = tuple(addresses), ports
        self._outbound = outbound
        self._seed = seed.to_bytes(8)
        self._places: dict[Peer, Places] | None = None
        self._rested: dict[Peer, list[tuple[Place, float]]] = {}
        """What rests, while _places is None."""

    def available(self, peer: Peer, now: float, rest: float) -> bool:
        """Is there a place for one more connection to that peer? rest: seconds that a freed place rests."""
        return self._of(peer).available(now, rest)

    def give(self, peer: Peer, now: float, rest: float) -> Place | None:
        """None: exhausted."""
        return self._of(peer).give(now, rest)

    def freed(self, entry: Entry, now: float) -> None:
        """An entry ends; it must still be in the access table, or its place might not be known as taken."""
        peer, place = self._split(entry)
        self._of(peer).free(place, now)

    def forget(self) -> None:
        """The access table has been filled from outside: what is taken is found anew, and what rests goes on to rest."""
        if self._places is not None:
            self._rested = {peer: places.resting() for peer, places in self._places.items()}
            self._places = None

    def change(self, addresses: Sequence[bytes], ports: tuple[int, int]) -> None:
        """Other places from now on; connections keep those that they have."""
        self.forget()
        self._addresses, self._ports = tuple(addresses), ports

    def tidy(self, now: float, rest: float) -> None:
        """Keeps nothing of peers that nobody is connected to. To be called now and then."""
        if self._places:
            self._places = {peer: places for peer, places in self._places.items() if not places.idle(now, rest)}

    def _split(self, entry: Entry) -> tuple[Peer, Place]:
        protocol, peer, peer_port, address, port = unpack_key(entry.key if self._outbound else entry.reply)
        return (protocol, peer, peer_port), (address, port)

    def _of(self, peer: Peer) -> Places:
        if self._places is None:
            self._places = {}
            for entry in sorted(self._table.entries(), key=lambda entry: entry.created):
                known, place = self._split(entry)
                places = self._new(known)
                places.mark(place)
                places.start_after(place)
            for known, resting in self._rested.items():
                for place, since in resting:
                    self._new(known).rest(place, since)
            self._rested = {}
        return self._new(peer)

    def _new(self, peer: Peer) -> Places:
        found = self._places.get(peer)
        if found is None:
            protocol, address, port = peer
            start = zlib.crc32(self._seed + address + port.to_bytes(2) + bytes([protocol]))
            found = self._places[peer] = Places(self._addresses, self._ports, start)
        return found


def full_reply(key: bytes, server: bytes, server_port: int, place: Place) -> bytes:
    """Full NAT: the key of the server's packets for a connection of that key, translated to that place."""
    return pack_key(key[0], server, server_port, *place)


def outbound_keys(packet_key: bytes, place: Place) -> tuple[bytes, bytes]:
    """Outbound NAT: key and reply key of the entry for an inside host's packet, translated to that place."""
    protocol, _, _, outside, outside_port = unpack_key(packet_key)
    return inverse_key(pack_key(protocol, *place, outside, outside_port)), packet_key
