"""A slice of a sliced service's clients, as an entry of the access table: seed figure 5 with a mask in columns 901 and
902."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lbctl.values.addresses import Address, Endpoint
from lbctl.values.keys import Place, pack_key, reply_key, unpack_key


class SliceEntry(NamedTuple):
    """key, reply: as an entry's, of a client whose address is 0 (nobody's) and whose port is the slice's bits alone.
    mask: which bits of the port these are. number: of the slice."""

    key: bytes
    reply: bytes
    mask: int
    number: int

    @property
    def bits(self) -> int:
        """What the client's port has under the mask."""
        return unpack_key(self.key)[2]

    def holds(self, port: int) -> bool:
        """Is a client with that port in it?"""
        return port & self.mask == self.bits


def slice_entries(external_ip: Address, place: Place, mask: int, owners: Sequence[Endpoint | None]
                  ) -> Iterator[SliceEntry]:
    """Of a service, those that have a server; by number, and so by key. owners: the server of each."""
    protocol, port = place
    anybody, lowest = bytes(len(external_ip.packed)), mask & -mask
    for number, server in enumerate(owners):
        if server:
            key = pack_key(protocol, anybody, number * lowest, external_ip.packed, port)
            yield SliceEntry(key, reply_key(key, server.address.packed, server.port), mask, number)
