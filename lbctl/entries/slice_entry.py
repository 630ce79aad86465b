"""A slice of a sliced service's clients, as an entry of the access table: seed figure 5 with a mask in columns 901 and
902."""

from __future__ import annotations

from typing import NamedTuple

from lbctl.values.addresses import Address, Endpoint
from lbctl.values.entry_states import SliceStateName
from lbctl.values.keys import Place, pack_key, reply_key, unpack_key


class SliceEntry(NamedTuple):
    """key, reply: as an entry's, of a client whose address is 0 (nobody's) and whose port is the slice's bits alone.
    mask: which bits of the port these are. number: of the slice. old: where its packets without an entry go still."""

    key: bytes
    reply: bytes
    mask: int
    number: int
    state: SliceStateName
    old: Endpoint | None

    @property
    def bits(self) -> int:
        """What the client's port has under the mask."""
        return unpack_key(self.key)[2]

    def holds(self, port: int) -> bool:
        """Is a client with that port in it?"""
        return port & self.mask == self.bits


def slice_entry(external_ip: Address, place: Place, mask: int, number: int, server: Endpoint, state: SliceStateName,
                old: Endpoint | None) -> SliceEntry:
    """Of a service. A service's are in the order of their numbers by key as well."""
    protocol, port = place
    key = pack_key(protocol, bytes(len(external_ip.packed)), number * (mask & -mask), external_ip.packed, port)
    return SliceEntry(key, reply_key(key, server.address.packed, server.port), mask, number, state, old)
