"""Endpoint-independent mapping of a NAT gateway (RFC 4787 REQ-1, RFC 5382 REQ-1): one port of the external IP for each
(protocol, inside address, inside port), towards all outside hosts, for as long as it has an entry.

As with `translation`, what is mapped is known from the access table alone. An inside port is kept if it is free.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

from lbctl.entries.access_table import AccessTable, Entry
from lbctl.entries.translation import Slot, Slots
from lbctl.values.keys import receiver_half, sender_half, server_key_of, unpack_key

Place = bytes
"""Protocol, packed address and port: of an inside host, or of the external IP."""


class Mapping:
    """An inside host's port and what it is translated to. inside: None if several have the place, as another `mapping`
    of an earlier site file has left it: then it is given to nobody, until all their entries have ended."""

    __slots__ = ("inside", "place", "entries", "outside", "inner_hop", "ended")

    def __init__(self, inside: Place | None, place: Place) -> None:
        self.inside, self.place = inside, place
        self.entries = 0
        """How many it has; none: the port rests."""
        self.outside: Counter[bytes] = Counter()
        """How many of them with each outside host (packed address)."""
        self.inner_hop = b""
        """The MAC that the inside host's packets came from last; empty: not known."""
        self.ended = 0.0
        """When its last entry did."""

    @property
    def slot(self) -> Slot:
        return self.place[1:-2], int.from_bytes(self.place[-2:])

    def reply_to(self, key: bytes) -> bytes:
        """The key of the inside host's packets that answer an outside host's of that key."""
        return (self.inside or b"") + sender_half(key)

    def joined(self, outside: bytes) -> None:
        """There is one entry more, with that host."""
        self.entries += 1
        self.outside[outside] += 1

    def left(self, outside: bytes) -> None:
        """There is one less."""
        self.entries -= 1
        self.outside[outside] -= 1
        if not self.outside[outside]:
            del self.outside[outside]


class Mappings:
    """Of one NAT gateway, found from its access table when they are first asked for.

    Who asks for a place takes one more entry of its mapping. A port whose mapping has ended rests, as others do; the
    same inside port gets it back at any time. seed: where the ports start that cannot be kept (RFC 6056).
    """

    def __init__(self, table: AccessTable, address: bytes, ports: tuple[int, int], seed: int) -> None:
        self._table = table
        self._address, self._ports = address, ports
        self._seed = seed.to_bytes(8)
        self._known = False
        self._slots: dict[int, Slots] = {}
        """By protocol."""
        self._of_inside: dict[Place, Mapping] = {}
        self._of_place: dict[Place, Mapping] = {}

    def outward(self, key: bytes, inner_hop: bytes, now: float, rest: float) -> Slot | None:
        """What an inside host's packet of that key is translated to; None: exhausted."""
        self._look()
        inside = server_key_of(key)
        mapping = self._of_inside.get(inside)
        if mapping is None or not (mapping.entries or self._slots_of(key[0]).take_back(mapping.slot)):
            mapping = self._new(inside, now, rest)
            if mapping is None:
                return None
        mapping.inner_hop = inner_hop
        mapping.joined(unpack_key(key)[3])
        return mapping.slot

    def inward(self, key: bytes) -> Mapping | None:
        """The mapping that an outside host's packet of that key goes to; None if there is none. Who makes an entry of
        it, says so to the mapping (`joined`)."""
        self._look()
        mapping = self._of_place.get(key[:1] + receiver_half(key))
        return mapping if mapping and mapping.inside and mapping.entries else None

    def freed(self, entry: Entry, now: float) -> None:
        """An entry ends; it must still be in the access table."""
        self._look()
        mapping = self._of_place.get(_place(entry))
        if mapping is None or not mapping.entries:
            return  # an entry that came into the table without our being asked was never counted
        mapping.left(unpack_key(entry.key)[1])
        if not mapping.entries:
            mapping.ended = now
            self._slots_of(entry.key[0]).free(mapping.slot, now)

    def take_back(self, entry: Entry) -> bool:
        """An entry that has ended goes on; it is not in the access table yet. False if its place is another's by
        now."""
        self._look()
        mapping = self._of_place.get(_place(entry))
        if mapping is None or mapping.inside != server_key_of(entry.reply):
            return False
        if not mapping.entries and not self._slots_of(entry.key[0]).take_back(mapping.slot):
            return False
        mapping.joined(unpack_key(entry.key)[1])
        return True

    def forget(self) -> None:
        """The access table has been filled from outside: what is mapped is found anew, and what rests goes on to
        rest."""
        self._known = False

    def change(self, addresses: Iterable[bytes], ports: tuple[int, int]) -> None:
        """Other ports from now on; mappings keep theirs."""
        self.forget()
        [self._address], self._ports = addresses, ports

    def tidy(self, now: float, rest: float) -> None:
        """Keeps nothing of mappings whose ports have rested. To be called now and then."""
        over = [each for each in self._of_place.values() if not each.entries and each.ended + rest <= now]
        for mapping in over:
            self._drop(mapping)

    def _new(self, inside: Place, now: float, rest: float) -> Mapping | None:
        slots, own = self._slots_of(inside[0]), (self._address, int.from_bytes(inside[-2:]))
        slot = own if slots.take(own, now, rest) else slots.give(now, rest)
        if slot is None:
            return None
        mapping = Mapping(inside, inside[:1] + slot[0] + slot[1].to_bytes(2))
        if before := self._of_place.get(mapping.place):
            self._drop(before)  # it has rested
        if before := self._of_inside.get(inside):
            self._drop(before)  # its place is outside of the range by now
        self._of_inside[inside] = self._of_place[mapping.place] = mapping
        return mapping

    def _drop(self, mapping: Mapping) -> None:
        del self._of_place[mapping.place]
        if mapping.inside is not None and self._of_inside.get(mapping.inside) is mapping:
            del self._of_inside[mapping.inside]

    def _look(self) -> None:
        if not self._known:
            self._known = True
            self._from_table()

    def _from_table(self) -> None:
        """What is mapped, as the access table tells, and what rests."""
        resting = sorted((each for each in self._of_place.values() if not each.entries), key=lambda each: each.ended)
        self._slots, self._of_inside, self._of_place = {}, {}, {}
        for entry in sorted(self._table.entries(), key=lambda entry: entry.created):
            self._found(entry)
        for mapping in self._of_place.values():
            if mapping.inside is not None:
                self._of_inside[mapping.inside] = mapping  # the youngest
        for mapping in resting:
            if mapping.place not in self._of_place:
                self._slots_of(mapping.place[0]).rest(mapping.slot, mapping.ended)
                self._of_place[mapping.place] = mapping
                if mapping.inside is not None:
                    self._of_inside.setdefault(mapping.inside, mapping)

    def _found(self, entry: Entry) -> None:
        place, inside = _place(entry), server_key_of(entry.reply)
        mapping = self._of_place.get(place)
        if mapping is None:
            mapping = self._of_place[place] = Mapping(inside, place)
            slots = self._slots_of(place[0])
            slots.mark(mapping.slot)
            slots.start_after(mapping.slot)
        elif mapping.inside != inside:
            mapping.inside = None
        mapping.joined(unpack_key(entry.key)[1])
        mapping.inner_hop = entry.inner_hop or mapping.inner_hop

    def _slots_of(self, protocol: int) -> Slots:
        found = self._slots.get(protocol)
        if found is None:
            start = zlib.crc32(self._seed + bytes([protocol]))
            found = self._slots[protocol] = Slots((self._address,), self._ports, start)
        return found


def _place(entry: Entry) -> Place:
    """What the entry's packets from outside are sent to."""
    return entry.key[:1] + receiver_half(entry.key)
