"""What an external IP is in the cookies of flows."""

from __future__ import annotations

import zlib


def owner_of(external_ip: bytes) -> int:
    """The 32 bits of a packed external IP in cookies. An IPv6 address does not fit: it has a checksum of 28 bits in the
    place of an IPv4 address that no host can have (240/4). Two external IPs of a site must not share one; config.py
    refuses them."""
    if len(external_ip) == 4:
        return int.from_bytes(external_ip)
    return 0xF0000000 | zlib.crc32(external_ip) & 0x0FFFFFFF
