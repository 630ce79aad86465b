"""What a connection is translated to on the internal network: the client's own address (destination NAT), or an
internal IP and a port of it (full NAT, seed figure 11). Outbound NAT gives a port of the external IP in the same way.

A port is given for each (internal IP, server address, server port, protocol): the same port serves one connection to
each server. Which ports are taken is known from the access table alone, so what a new controller reads back from the
switches is the allocation; nothing else is kept.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Sequence

from lbctl.entries.access_table import AccessTable, Entry
from lbctl.values.keys import inverse_key, pack_key, unpack_key

Slot = tuple[bytes, int]
"""A packed address and a port that a connection is translated to."""
Peer = tuple[int, bytes, int]
"""Protocol number, packed address and port of the host that shall see the slot."""


class Slots:
    """The slots (address, port) that connections of one kind to one peer are translated to.

    Each is given at most once at a time; one that was freed rests for `rest` seconds. Everything is O(1), but for the
    slots that `give` skips after a restart, each of them once.
    """

    def __init__(self, addresses: Sequence[bytes], ports: tuple[int, int], start: int = 0) -> None:
        self._addresses = addresses
        self._first, self._count = ports[0], ports[1] - ports[0] + 1
        self._size = len(addresses) * self._count
        self._start = start
        self._fresh = 0
        """So many slots have been tried once, from `start` on."""
        self._taken: set[int] = set()
        self._resting: OrderedDict[int, float] = OrderedDict()
        """Since when each has rested, the longest first."""

    def available(self, now: float, rest: float) -> bool:
        """Is there a slot that is neither taken nor resting?"""
        return self._next(now, rest) is not None

    def give(self, now: float, rest: float) -> Slot | None:
        """Such a slot; None if there is none. Those never used come first, then the one that has rested longest."""
        number = self._next(now, rest)
        if number is None:
            return None
        if self._fresh < self._size:
            self._fresh += 1
        else:
            del self._resting[number]
        self._taken.add(number)
        return self._slot(number)

    def take(self, slot: Slot, now: float, rest: float) -> bool:
        """Gives that one, if it is neither taken nor resting."""
        number = self._number(slot)
        if number is None or number in self._taken or self._resting.get(number, float("-inf")) + rest > now:
            return False
        self._resting.pop(number, None)
        self._taken.add(number)
        return True

    def _next(self, now: float, rest: float) -> int | None:
        while self._fresh < self._size:
            number = (self._start + self._fresh) % self._size
            if number not in self._taken and number not in self._resting:
                return number
            self._fresh += 1
        for number, since in self._resting.items():
            return number if since + rest <= now else None
        return None

    def resting(self) -> list[tuple[Slot, float]]:
        """The slots that were freed and not given again, and when; the longest ago first."""
        return [(self._slot(number), since) for number, since in self._resting.items()]

    def idle(self, now: float, rest: float) -> bool:
        """Nothing is taken, and nothing rests."""
        newest = next(reversed(self._resting.values()), float("-inf"))
        return not self._taken and newest + rest <= now

    def _slot(self, number: int) -> Slot:
        # The address changes with each number, so that the internal IPs share a server's connections.
        port, address = divmod(number, len(self._addresses))
        return self._addresses[address], self._first + port

    def _number(self, slot: Slot) -> int | None:
        port = slot[1] - self._first
        if slot[0] not in self._addresses or not 0 <= port < self._count:
            return None
        return port * len(self._addresses) + self._addresses.index(slot[0])

    def mark(self, slot: Slot) -> None:
        """It is taken, by an entry that was read back."""
        number = self._number(slot)
        if number is not None:
            self._taken.add(number)

    def start_after(self, slot: Slot) -> None:
        """What has rested longest after a restart, when nobody knows any more: those after the one given last."""
        number = self._number(slot)
        if number is not None:
            self._start, self._fresh = number + 1, 0

    def rest(self, slot: Slot, since: float) -> None:
        """It was freed then, as an earlier allocation knows. To be called with the longest ago first."""
        number = self._number(slot)
        if number is not None and number not in self._taken:
            self._resting[number] = since

    def take_back(self, slot: Slot) -> bool:
        """It is taken again, by the entry that had it last. False if it does not rest any more."""
        number = self._number(slot)
        if number is None or self._resting.pop(number, None) is None:
            return False
        self._taken.add(number)
        return True

    def free(self, slot: Slot, now: float) -> None:
        """It is taken no more, and rests from now on."""
        number = self._number(slot)
        if number is not None and number in self._taken:
            self._taken.discard(number)
            self._resting[number] = now


class Allocation:
    """The translated slots of one external IP's connections, found from its access table when it is first asked.

    outbound: the connections were opened from inside (NAT gateway): the peer is the outside host, the slot is in the
    entry's key. Else full NAT: the peer is the server, the slot is in the reply key. seed: where a peer's slots start
    (RFC 6056); another one after each restart, since nobody knows then which ports rest.
    """

    def __init__(self, table: AccessTable, addresses: Sequence[bytes], ports: tuple[int, int], outbound: bool,
                 seed: int) -> None:
        self._table = table
        self._addresses, self._ports = tuple(addresses), ports
        self._outbound = outbound
        self._seed = seed.to_bytes(8)
        self._slots: dict[Peer, Slots] | None = None
        self._rested: dict[Peer, list[tuple[Slot, float]]] = {}
        """What rests, while _slots is None."""

    def available(self, peer: Peer, now: float, rest: float) -> bool:
        """Is there a slot for one more connection to that peer? rest: seconds that a freed slot rests."""
        return self._of(peer).available(now, rest)

    def give(self, peer: Peer, now: float, rest: float) -> Slot | None:
        """None: exhausted."""
        return self._of(peer).give(now, rest)

    def outward(self, key: bytes, now: float, rest: float) -> Slot | None:
        """Outbound NAT: what an inside host's packet of that key is translated to; None: exhausted."""
        protocol, _, _, outside, port = unpack_key(key)
        return self.give((protocol, outside, port), now, rest)

    def freed(self, entry: Entry, now: float) -> None:
        """An entry ends; it must still be in the access table, or its slot might not be known as taken."""
        peer, slot = self._split(entry)
        self._of(peer).free(slot, now)

    def take_back(self, entry: Entry) -> bool:
        """An entry that has ended goes on; it is not in the access table yet. False if its slot does not rest."""
        peer, slot = self._split(entry)
        return self._of(peer).take_back(slot)

    def forget(self) -> None:
        """The access table has been filled from outside: what is taken is found anew, and what rests goes on to
        rest."""
        if self._slots is not None:
            self._rested = {peer: slots.resting() for peer, slots in self._slots.items()}
            self._slots = None

    def change(self, addresses: Sequence[bytes], ports: tuple[int, int]) -> None:
        """Other slots from now on; connections keep those that they have."""
        self.forget()
        self._addresses, self._ports = tuple(addresses), ports

    def tidy(self, now: float, rest: float) -> None:
        """Keeps nothing of peers that nobody is connected to. To be called now and then."""
        if self._slots:
            self._slots = {peer: slots for peer, slots in self._slots.items() if not slots.idle(now, rest)}

    def _split(self, entry: Entry) -> tuple[Peer, Slot]:
        protocol, peer, peer_port, address, port = unpack_key(entry.key if self._outbound else entry.reply)
        return (protocol, peer, peer_port), (address, port)

    def _of(self, peer: Peer) -> Slots:
        if self._slots is None:
            self._slots = self._from_table()
        return self._known(self._slots, peer)

    def _from_table(self) -> dict[Peer, Slots]:
        """What is taken, as the access table tells, and what rests."""
        slots: dict[Peer, Slots] = {}
        for entry in sorted(self._table.entries(), key=lambda entry: entry.created):
            peer, slot = self._split(entry)
            theirs = self._known(slots, peer)
            theirs.mark(slot)
            theirs.start_after(slot)
        for peer, resting in self._rested.items():
            for slot, since in resting:
                self._known(slots, peer).rest(slot, since)
        self._rested = {}
        return slots

    def _known(self, slots: dict[Peer, Slots], peer: Peer) -> Slots:
        found = slots.get(peer)
        if found is None:
            protocol, address, port = peer
            start = zlib.crc32(self._seed + address + port.to_bytes(2) + bytes([protocol]))
            found = slots[peer] = Slots(self._addresses, self._ports, start)
        return found


def full_reply(key: bytes, server: bytes, server_port: int, slot: Slot) -> bytes:
    """Full NAT: the key of the server's packets for a connection of that key, translated to that slot."""
    return pack_key(key[0], server, server_port, *slot)


def outbound_keys(packet_key: bytes, slot: Slot) -> tuple[bytes, bytes]:
    """Outbound NAT: key and reply key of the entry for an inside host's packet, translated to that slot."""
    protocol, _, _, outside, outside_port = unpack_key(packet_key)
    return inverse_key(pack_key(protocol, *slot, outside, outside_port)), packet_key
