"""The bytes of the flows of an access-table entry, declared once for encoding and decoding.

A layout is constant bytes with named fields at fixed places. Sources: OpenFlow 1.4.0 sections 7.2.2 (match),
7.2.3 (instructions) and 7.3.5.2 (flow statistics); nicira-ext.h for fin_timeout.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from lbctl.pipeline.entries import ENTRY_PRIORITY
from lbctl.pipeline.tables import number

SEND_FLOW_REM = 1
NICIRA = 0x00002320

KEY_DTYPE = np.dtype([("protocol", "u1"), ("a", "V4"), ("a_port", "V2"), ("b", "V4"), ("b_port", "V2")])


Part = bytes | tuple[str, int]


def _oxm(field: int, length: int) -> bytes:
    """An OXM header of the basic class, without mask."""
    return struct.pack("!HBB", 0x8000, field << 1, length)


def match_parts() -> list[Part]:
    """eth_type, ip_proto, source, destination and ports: 43 bytes, padded to 48. The order is the one OVS replies in."""
    return [struct.pack("!HH", 1, 43) + _oxm(5, 2) + b"\x08\x00" + _oxm(11, 4), ("a", 4), _oxm(12, 4), ("b", 4),
            _oxm(10, 1), ("protocol", 1), _oxm(13, 2), ("a_port", 2), _oxm(14, 2), ("b_port", 2), bytes(5)]


def instruction_parts(direction: str, linger: int | None) -> list[Part]:
    inward = direction == "in"
    head: list[Part] = [struct.pack("!HH4x", 4, 56 if inward else 72) + struct.pack("!HHIH", 0xFFFF, 16, NICIRA, 19),
                        ("linger", 2) if linger is None else struct.pack("!H", linger)]
    goto = struct.pack("!HHB3x", 1, 8, number("deliver_server" if inward else "deliver_client"))
    set_field = struct.pack("!HH", 25, 16)
    parts = [*head, bytes(4) + set_field + _oxm(12 if inward else 11, 4), ("address", 4),
             bytes(4) + set_field + _oxm(14 if inward else 13, 2), ("port", 2)]
    if inward:
        return [*parts, bytes(6) + goto]
    return [*parts, bytes(6) + set_field + _oxm(3, 6), ("next_hop", 6), bytes(2) + goto]


class Layout:
    """A message of constant bytes with named fields at fixed places."""

    def __init__(self, parts: Sequence[Part]) -> None:
        offset, constant, fields = 0, b"", []
        for part in parts:
            if isinstance(part, bytes):
                constant, offset = constant + part, offset + len(part)
            else:
                name, length = part
                fields.append((name, f"V{length}", offset))
                constant, offset = constant + bytes(length), offset + length
        self.size = offset
        self.constant = constant
        names, formats, offsets = zip(*fields, strict=True)
        self.dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})

    def rows(self, count: int) -> np.ndarray:
        """`count` messages, shape (count,), with the constant bytes in place."""
        return np.frombuffer(bytearray(self.constant * count), self.dtype)


def stats_layout(direction: str) -> Layout:
    """A flow-statistics record of an entry's flow, whatever its linger."""
    size = 48 + sum(len(part) if isinstance(part, bytes) else part[1]
                    for part in [*match_parts(), *instruction_parts(direction, None)])
    return Layout([struct.pack("!HBx", size, number(f"access_{direction}")), ("duration", 4), ("nanoseconds", 4),
                   struct.pack("!H", ENTRY_PRIORITY), ("idle", 2), bytes(2) + struct.pack("!HH2x", SEND_FLOW_REM, 0),
                   ("cookie", 8), ("packets", 8), ("bytes", 8), *match_parts(), *instruction_parts(direction, None)])
