"""What the bits of a flow's cookie mean.

    63..56  0x1b, our mark: flows without it are not ours and never touched
    55..48  kind of flow
    47..32  for an entry: its bucket (0..1023, see values/keys.py); otherwise a digest of the flow
    31..0   the owner: the external IP (IPv6: see owner_of), or 0 for flows that belong to none

An entry's cookie is the same on every LB. The bucket lets one exact-cookie request, which OVS serves from an
index, read or delete a 1024th of an external IP's entries without stalling the switch. The digest tells a flow
that is right from one that an older release or another site file left: a switch is compared by cookies alone.
"""

from __future__ import annotations

import enum
import zlib

from lbctl.values.side import EXTERNAL, INTERNAL, Side

MARK = 0x1B
MASK_MARK = 0xFF << 56
MASK_KIND = 0xFFFF << 48
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
    TRANSLATE_ICMP = 14
    ECHO = 15
    EXPIRED = 16
    TOO_BIG = 17
    FENCE = 18
    PROBED = 19
    CHECKED = 20
    HOP = 21
    NO_WAY = 22
    QUERY = 23
    SLICE = 24

    # Each kind of flow that drops is a reason of its own (values/drops.py), and counted by it.
    VLAN = 64
    NOT_OURS = 66
    ARP_NOT_OURS = 67
    NO_EXTERNAL_IP = 68
    SYN_AND_FIN = 69
    RESET_OF_NOTHING = 70
    ICMP_OF_NOTHING = 71
    ENTRY_GONE = 72
    SERVER_MAC_UNKNOWN = 73
    FENCED = 74
    WRONG_SIDE = 75
    CLIENT_MAC_UNKNOWN = 76

    @property
    def drops(self) -> bool:
        return self >= 64

    @property
    def reason(self) -> str:
        """Of a kind that drops."""
        return self.name.lower()


COOKIE_DROPS, MASK_DROPS = MARK << 56 | 64 << 48, MASK_MARK | 0xC0 << 48
"""What all flows that drop have in their cookies."""

ENTRY_KINDS = {EXTERNAL: Kind.ENTRY_IN, INTERNAL: Kind.ENTRY_OUT}
"""Of an entry's flow, by the side whose packets it is for."""


def entry_cookie(side: Side, owner: int, bucket: int) -> int:
    """The cookie of an access-table entry's flow for packets from that side."""
    return MARK << 56 | ENTRY_KINDS[side] << 48 | bucket << 32 | owner


def flow_cookie(kind: Kind, owner: int, content: str) -> int:
    """The cookie of any other flow; `content` is the flow's text without its cookie."""
    return MARK << 56 | kind << 48 | (zlib.crc32(content.encode()) & 0xFFFF) << 32 | owner


def kind_of(cookie: int) -> int | None:
    """The kind, also one that only another release knows; None if the cookie is not ours."""
    return cookie >> 48 & 0xFF if cookie >> 56 == MARK else None


_KINDS = {MARK << 8 | kind: kind for kind in Kind}


def known_kind(cookie: int) -> Kind | None:
    """The kind; None if the cookie is not ours, or another release's."""
    return _KINDS.get(cookie >> 48)


def owner_in(cookie: int) -> int:
    """The owner: 0, or what owner_of has made of an external IP."""
    return cookie & 0xFFFFFFFF
