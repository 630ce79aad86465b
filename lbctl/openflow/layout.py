"""The bytes of the flows of an access-table entry, declared once for encoding and decoding.

A layout is constant bytes with named fields at fixed places; there is one for each shape of entry. Fields, as far as
the shape has them (widths in bytes):

    a, a_port, b, b_port       what the flow matches: source and destination (4 or 16, and 2)
    address, port              the address and port that take the place of the external IP's, or whose place it takes
    other, other_port          full NAT: the same on the client's side
    hop                        MAC of the next hop (6)
    origin                     MAC that the packets of who has opened the connection should come from (6)

Sources: OpenFlow 1.4.0 sections 7.2.2 (match), 7.2.3 (instructions) and 7.3.5.2 (flow statistics); nicira-ext.h for
fin_timeout.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lbctl.entries.access_table import Shape
from lbctl.openflow.entry_flows import ENTRY_PRIORITY, checked_side, next_table
from lbctl.openflow.tables import number
from lbctl.values.keys import KEY_SIZES
from lbctl.values.protocols import ETH_TYPES, TCP, UDP
from lbctl.values.side import INTERNAL, Side

SEND_FLOW_REM = 1
NICIRA = 0x00002320
SHAPES = tuple(Shape(version, protocol, full, inner_hop) for version in (4, 6) for protocol in (TCP, UDP)
               for full, inner_hop in ((False, False), (True, False), (False, True)))
"""All shapes that an entry can have."""

ADDRESS_SIZE = {4: 4, 6: 16}
KEY_DTYPES = {
    version: np.dtype([("protocol", "u1"), ("a", f"V{size}"), ("a_port", "V2"), ("b", f"V{size}"), ("b_port", "V2")])
    for version, size in ADDRESS_SIZE.items()}
assert all(KEY_DTYPES[version].itemsize == size for version, size in KEY_SIZES.items())

Part = bytes | tuple[str, int]
"""Constant bytes, or a field: name and width."""
Records = npt.NDArray[np.void]
Booleans = npt.NDArray[np.bool_]

OXM_METADATA, OXM_ETH_TYPE, OXM_ETH_DST, OXM_IP_PROTO = 2, 5, 3, 10
OXM_SOURCE, OXM_DESTINATION = {4: 11, 6: 26}, {4: 12, 6: 27}
OXM_SOURCE_PORT, OXM_DESTINATION_PORT = {TCP: 13, UDP: 15}, {TCP: 14, UDP: 16}


def oxm(field: int, length: int) -> bytes:
    """An OXM header of the basic class, without mask."""
    return struct.pack("!HBB", 0x8000, field << 1, length)


def size_of(parts: Sequence[Part]) -> int:
    return sum(len(part) if isinstance(part, bytes) else part[1] for part in parts)


def match_parts(shape: Shape) -> list[Part]:
    """eth_type, source, destination, ip_proto and ports. The order is the one that OVS replies in."""
    size = ADDRESS_SIZE[shape.version]
    fields: list[Part] = [
        oxm(OXM_ETH_TYPE, 2) + ETH_TYPES[shape.version].to_bytes(2) + oxm(OXM_SOURCE[shape.version], size), ("a", size),
        oxm(OXM_DESTINATION[shape.version], size), ("b", size),
        oxm(OXM_IP_PROTO, 1) + bytes([shape.protocol]) + oxm(OXM_SOURCE_PORT[shape.protocol], 2), ("a_port", 2),
        oxm(OXM_DESTINATION_PORT[shape.protocol], 2), ("b_port", 2)]
    length = 4 + size_of(fields)
    return [struct.pack("!HH", 1, length), *fields, bytes(-length % 8)]


def _set_field(field: int, name: str, size: int) -> list[Part]:
    length = 8 + size
    return [struct.pack("!HH", 25, length + -length % 8) + oxm(field, size), (name, size), bytes(-length % 8)]


def instruction_parts(side: Side, shape: Shape, linger: int | None) -> list[Part]:
    """Apply actions, then goto. linger: seconds; None leaves it as a field (decoding takes any)."""
    size = ADDRESS_SIZE[shape.version]
    address, port = OXM_DESTINATION[shape.version], OXM_DESTINATION_PORT[shape.protocol]
    other, other_port = OXM_SOURCE[shape.version], OXM_SOURCE_PORT[shape.protocol]
    if side is INTERNAL:
        address, port, other, other_port = other, other_port, address, port
    actions: list[Part] = []
    if shape.protocol == TCP:
        actions += [struct.pack("!HHIH", 0xFFFF, 16, NICIRA, 19),
                    ("linger", 2) if linger is None else struct.pack("!H", linger), bytes(4)]
    actions += _set_field(address, "address", size) + _set_field(port, "port", 2)
    if shape.full:
        actions += _set_field(other, "other", size) + _set_field(other_port, "other_port", 2)
    if side is INTERNAL or shape.inner_hop:
        actions += _set_field(OXM_ETH_DST, "hop", 6)
    if side is checked_side(shape.inner_hop):
        actions += [struct.pack("!HH", 25, 16) + oxm(OXM_METADATA, 8) + bytes(2), ("origin", 6)]
    goto = struct.pack("!HHB3x", 1, 8, number(next_table(side, shape.inner_hop)))
    return [struct.pack("!HH4x", 4, 8 + size_of(actions)), *actions, goto]


class Layout:
    """A message of constant bytes with named fields at fixed places."""

    def __init__(self, parts: Sequence[Part]) -> None:
        offset, constant = 0, b""
        fields: list[tuple[str, str, int]] = []
        for part in parts:
            if isinstance(part, bytes):
                constant, offset = constant + part, offset + len(part)
            else:
                name, length = part
                fields.append((name, f"V{length}", offset))
                constant, offset = constant + bytes(length), offset + length
        self.size = offset
        self.constant = constant
        self.names = tuple(name for name, _, _ in fields)
        self.dtype = np.dtype({"names": list(self.names), "formats": [format for _, format, _ in fields],
                               "offsets": [start for _, _, start in fields], "itemsize": offset})
        self._fields = [(start, int(format[1:])) for _, format, start in fields]
        is_field = np.zeros(offset, bool)
        for start, width in self._fields:
            is_field[start:start + width] = True
        self._constant_places = np.flatnonzero(~is_field)
        self._constant_bytes = np.frombuffer(constant, "u1")[self._constant_places]

    def rows(self, count: int) -> Records:
        """`count` messages, shape (count,), with the constant bytes in place."""
        return np.frombuffer(bytearray(self.constant * count), self.dtype)

    def fits(self, body: bytes) -> Booleans:
        """For each message of this layout's size in `body`: are all constant bytes as they should be? Shape (count,),
        bool."""
        raw = np.frombuffer(body, "u1").reshape(-1, self.size)
        fits: Booleans = (raw[:, self._constant_places] == self._constant_bytes).all(axis=1)
        return fits

    def cuts(self) -> list[bytes]:
        """The constant bytes between the fields, in order; there is one more of them than fields."""
        cuts, start = [], 0
        for offset, width in self._fields:
            cuts.append(self.constant[start:offset])
            start = offset + width
        return [*cuts, self.constant[start:]]


def stats_layout(side: Side, shape: Shape) -> Layout:
    """A flow-statistics record of an entry's flow, whatever its linger."""
    parts = [*match_parts(shape), *instruction_parts(side, shape, None)]
    return Layout([struct.pack("!HBx", 48 + size_of(parts), number(side.access_table)),
                   ("duration", 4), ("nanoseconds", 4),
                   struct.pack("!H", ENTRY_PRIORITY), ("idle", 2), bytes(2) + struct.pack("!HH2x", SEND_FLOW_REM, 0),
                   ("cookie", 8), ("packets", 8), ("bytes", 8), *parts])
