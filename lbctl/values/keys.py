"""Keys of connections, packed: protocol, sender's address and port, receiver's address and port; 13 bytes with IPv4, 37
with IPv6. A key is what a packet carries, and what an entry of the access table is found by.

After the protocol, a key has two halves, each a packed address and a port: the sender's and the receiver's.
"""

from __future__ import annotations

import struct

Place = tuple[int, int]
"""Of a service on its external IP: protocol number and port."""
_IPV4_KEY = struct.Struct("!B4sH4sH")
_IPV6_KEY = struct.Struct("!B16sH16sH")
KEY_SIZES = {4: _IPV4_KEY.size, 6: _IPV6_KEY.size}
"""Bytes of a key, by IP version."""
BUCKETS = 1024
"""An external IP's entries are in so many buckets (see bucket_of_key), so that they can be read or deleted part by
part."""


def pack_key(protocol: int, source: bytes, source_port: int, destination: bytes, destination_port: int) -> bytes:
    """A key of packed addresses, both of one IP version."""
    packer = _IPV4_KEY if len(source) == 4 else _IPV6_KEY
    return packer.pack(protocol, source, source_port, destination, destination_port)


def unpack_key(key: bytes) -> tuple[int, bytes, int, bytes, int]:
    """Protocol, sender's address and port, receiver's address and port."""
    return (_IPV4_KEY if len(key) == 13 else _IPV6_KEY).unpack(key)


def sender_half(key: bytes) -> bytes:
    """The sender's packed address and port."""
    return key[1:len(key) + 1 >> 1]


def receiver_half(key: bytes) -> bytes:
    """The receiver's packed address and port."""
    return key[len(key) + 1 >> 1:]


def server_key(protocol: int, server: bytes, port: int) -> bytes:
    """What all reply keys of that server (packed address, port) begin with; AccessTable.connections_to is found by
    it."""
    return bytes((protocol, *server)) + port.to_bytes(2)


def server_key_of(reply: bytes) -> bytes:
    """The server_key that this reply key begins with."""
    return reply[:len(reply) + 1 >> 1]


def server_address_of(reply: bytes) -> bytes:
    """The packed address of the server that sends packets of this reply key."""
    return reply[1:(len(reply) + 1 >> 1) - 2]


def service_of(key: bytes) -> Place:
    """The protocol and the receiver's port: of a client's packet, the service that it asks for."""
    return key[0], int.from_bytes(key[-2:])


def inverse_key(key: bytes) -> bytes:
    """The key of packets that go the other way."""
    half = len(key) + 1 >> 1
    return key[:1] + key[half:] + key[1:half]


def reply_key(key: bytes, server: bytes, server_port: int) -> bytes:
    """Destination NAT: the key of the server's packets for a connection of that key to that server (packed address,
    port)."""
    return key[:1] + server + server_port.to_bytes(2) + key[1:len(key) + 1 >> 1]


def bucket_of_key(key: bytes) -> int:
    """The bucket (0 to 1023) of the entry with that key: the low bits of the client's address and port and of the
    external port, so that each of them varies it (the last one for outbound NAT, where many connections go to one
    place)."""
    low = len(key) // 2 - 2
    high = key[low - 1] ^ key[low + 1] ^ key[-2]
    return (high & 3) << 8 | key[low] ^ key[low + 2] ^ key[-1]
