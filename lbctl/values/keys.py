"""Keys of connections, packed: protocol, sender's address and port, receiver's address and port; 13 bytes with IPv4, 37 with
IPv6. What a packet carries, and what an entry of the access table is found by."""

from __future__ import annotations

import struct

_IPV4_KEY = struct.Struct("!B4sH4sH")
_IPV6_KEY = struct.Struct("!B16sH16sH")
KEY_SIZES = {4: _IPV4_KEY.size, 6: _IPV6_KEY.size}
"""Bytes of a key, by IP version."""


def pack_key(protocol: int, source: bytes, source_port: int, destination: bytes, destination_port: int) -> bytes:
    """A key of packed addresses, both of one IP version."""
    return (_IPV4_KEY if len(source) == 4 else _IPV6_KEY).pack(protocol, source, source_port, destination, destination_port)


def unpack_key(key: bytes) -> tuple[int, bytes, int, bytes, int]:
    """Protocol, sender's address and port, receiver's address and port."""
    return (_IPV4_KEY if len(key) == 13 else _IPV6_KEY).unpack(key)


def server_key(protocol: int, server: bytes, port: int) -> bytes:
    """The first half of every reply key of that server (packed address, port): what it is in AccessTable.connections_to."""
    return bytes((protocol, *server)) + port.to_bytes(2)


def inverse_key(key: bytes) -> bytes:
    """The key of packets that go the other way."""
    half = len(key) + 1 >> 1
    return key[:1] + key[half:] + key[1:half]


def reply_key(key: bytes, server: bytes, server_port: int) -> bytes:
    """Destination NAT: the key of the server's packets for a connection of that key to that server (packed address, port)."""
    protocol, client, client_port, _, _ = unpack_key(key)
    return pack_key(protocol, server, server_port, client, client_port)
