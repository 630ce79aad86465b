"""What the bits of a flow's cookie mean.

    63..56  0x1b, our mark: flows without it are not ours and never touched
    55..48  kind of flow
    47..32  for an entry: its bucket (0..255); otherwise a digest of the flow
    31..0   the external IP, or 0 for flows that belong to none

An entry's cookie is the same on every LB. The bucket lets one exact-cookie request, which OVS serves from an
index, read or delete a 256th of an external IP's entries without stalling the switch. The digest tells a flow
that is right from one that an older release or another site file left: a switch is compared by cookies alone.
"""

from __future__ import annotations

import enum
import zlib

MARK = 0x1B
BUCKETS = 256

MASK_MARK = 0xFF << 56
MASK_KIND = 0xFFFF << 48
MASK_KIND_AND_IP = MASK_KIND | 0xFFFFFFFF
MASK_ALL = 0xFFFFFFFFFFFFFFFF


class Kind(enum.IntEnum):
    """What a flow is for; packets that a flow sends to the controller arrive with its kind."""

    PIPELINE = 1
    ARP = 2
    MODE = 3
    ENTRY_IN = 4
    ENTRY_OUT = 5
    DELIVER = 6
    NEW = 7
    STRAY = 8
    HOLD = 9
    UNASSIGNED = 10
    SERVER_ARP = 11
    RESET = 12
    FRAGMENT = 13


def entry_cookie(kind: Kind, external_ip: int, bucket: int) -> int:
    """The cookie of an access-table entry in one direction."""
    return MARK << 56 | kind << 48 | bucket << 32 | external_ip


def flow_cookie(kind: Kind, external_ip: int, content: str) -> int:
    """The cookie of any other flow; `content` is the flow's text without its cookie."""
    return MARK << 56 | kind << 48 | (zlib.crc32(content.encode()) & 0xFFFF) << 32 | external_ip


def kind_of(cookie: int) -> int | None:
    """The kind, or None if the cookie is not ours."""
    return cookie >> 48 & 0xFF if cookie >> 56 == MARK else None


def external_ip_of(cookie: int) -> int:
    return cookie & 0xFFFFFFFF


def bucket_of_key(key: bytes) -> int:
    """The bucket of an entry: the low bytes of the client's address and port, so that both vary it.

    `key` is the entry's 13-byte key (access_table.py): protocol, client, client port, external IP, port.
    """
    return key[4] ^ key[6]
