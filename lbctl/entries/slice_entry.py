"""A slice of a sliced service's clients, as an entry of the access table: seed figure 5 with a mask in columns 901 and
902."""

from __future__ import annotations

from typing import NamedTuple

from lbctl.values.addresses import Address, Endpoint
from lbctl.values.entry_states import SliceStateName
from lbctl.values.keys import Place, pack_key, reply_key, unpack_key
from lbctl.values.slices import NOTHING_SENT, PORT_MASK, Sent


class SliceEntry(NamedTuple):
    """key, reply: as an entry's, of a client whose address or port has the slice's bits, and is 0 besides. by_client:
    is it the address? number: of the slice. old: where its packets without an entry go still."""

    key: bytes
    reply: bytes
    by_client: bool
    number: int
    state: SliceStateName
    old: Endpoint | None
    sent: Sent = NOTHING_SENT

    @property
    def bits(self) -> int:
        """What the client's port has under PORT_MASK, if that tells the slice."""
        return unpack_key(self.key)[2]

    def holds(self, client: bytes | None, port: int | None) -> bool:
        """Is a client with that address (packed) and port in it? None: any."""
        if self.by_client:
            return client is None or client[-1] == self.number
        return port is None or port & PORT_MASK == self.bits


def slice_entry(external_ip: Address, place: Place, by_client: bool, number: int, server: Endpoint,
                state: SliceStateName, old: Endpoint | None,
                sent: Sent = NOTHING_SENT) -> SliceEntry:
    """Of a service. A service's are in the order of their numbers by key as well."""
    protocol, port = place
    size = len(external_ip.packed)
    client, client_port = (number.to_bytes(size), 0) if by_client else (bytes(size), number << 1)
    key = pack_key(protocol, client, client_port, external_ip.packed, port)
    return SliceEntry(key, reply_key(key, server.address.packed, server.port), by_client, number, state, old,
                      sent)
