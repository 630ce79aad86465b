"""What a switch sends often, decoded from OpenFlow 1.4 bytes: packet-in, flow-removed, flow statistics.

Sources: OpenFlow 1.4.0 sections 7.4.1, 7.4.2 and 7.3.5.2. Malformed messages give None or are left out, never an
exception: a switch must not be able to stop the controller.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lbctl.entries.access_table import Shape
from lbctl.openflow.cookies import ENTRY_KINDS, Kind, known_kind
from lbctl.openflow.layout import KEY_DTYPES, SHAPES, Layout, Records, stats_layout
from lbctl.openflow.tables import number
from lbctl.values.keys import KEY_SIZES
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import EXTERNAL, INTERNAL, Side

PACKET_IN, FLOW_REMOVED = 10, 11
REMOVED_IDLE, REMOVED_HARD = 0, 1

_PACKET_IN = struct.Struct("!8xIHBBQHH")
_FLOW_REMOVED = struct.Struct("!8xQHBBIIHHQQ")
_FLOW_STATS = struct.Struct("!2xB21xQQQ")
_RULE_STATS = struct.Struct("!HB9xH2xH6xQ")
_MATCH_HEAD = struct.Struct("!HH")
_IN_PORT = struct.Struct("!II")
_OXM_IN_PORT = 0x80000004
_ENTRY_OXMS = {0x80001401: "protocol", 0x80001604: "a", 0x80003410: "a", 0x80001804: "b", 0x80003610: "b",
               0x80001A02: "a_port", 0x80001E02: "a_port", 0x80001C02: "b_port", 0x80002002: "b_port"}
_OXM_IPV4_DST, _OXM_IPV6_DST = bytes.fromhex("80001804"), bytes.fromhex("80003610")
_OXM_IPV4_SRC, _OXM_IPV6_SRC = bytes.fromhex("80001604"), bytes.fromhex("80003410")
_OXM_TCP_DST, _OXM_UDP_DST = 0x80001C02, 0x80002002
_OXM_CLIENTS = 0x80001B04, 0x80001F04, 0x80001708, 0x80003520
"""tcp_src, udp_src, ipv4_src and ipv6_src with a mask."""
_SET_ETH_DST = bytes.fromhex("0019001080000606")
"""The action set_field for eth_dst: type 25, 16 bytes, OXM header."""
TABLE_IN, TABLE_OUT = (number(side.access_table) for side in Side)
TABLES_DELIVER = (number("deliver_server"), number("deliver_tunnel"))


class PacketIn(NamedTuple):
    """A packet that a flow sent to the controller. `cookie` is that flow's; kind: None if the flow is none of ours."""

    reason: int
    cookie: int
    kind: Kind | None
    in_port: int
    frame: bytes


def decode_packet_in(message: bytes) -> PacketIn | None:
    """The whole OpenFlow message in, header included."""
    if len(message) < 42:
        return None
    _, _, reason, _, cookie, _, match_length = _PACKET_IN.unpack_from(message)
    header, in_port = _IN_PORT.unpack_from(message, 28)
    if header != _OXM_IN_PORT:
        in_port = _find_in_port(message, 28, 24 + match_length)
        if in_port is None:
            return None
    return PacketIn(reason, cookie, known_kind(cookie), in_port, message[26 + (match_length + 7 & ~7):])


def _find_in_port(message: bytes, offset: int, end: int) -> int | None:
    while offset + 8 <= min(end, len(message)):
        header, value = _IN_PORT.unpack_from(message, offset)
        if header == _OXM_IN_PORT:
            return int(value)
        offset += 4 + (header & 0xFF)
    return None


class EntryRemoved(NamedTuple):
    """An entry's flow for packets from that side, which carry that key, ran out."""

    side: Side
    cookie: int
    key: bytes
    duration: float
    """Seconds that the flow was there."""


def decode_entry_removed(message: bytes) -> EntryRemoved | None:
    """The whole flow-removed message in; None unless an entry's flow ran out by its timeout."""
    if len(message) < 52:
        return None
    cookie, _, reason, table, seconds, nanoseconds, _, _, _, _ = _FLOW_REMOVED.unpack_from(message)
    if table not in (TABLE_IN, TABLE_OUT) or reason not in (REMOVED_IDLE, REMOVED_HARD):
        return None
    if known_kind(cookie) not in ENTRY_KINDS.values():
        return None
    key = _entry_key(message, 48)
    if key is None:
        return None
    return EntryRemoved(EXTERNAL if table == TABLE_IN else INTERNAL, cookie, key, seconds + nanoseconds / 1e9)


def _entry_key(message: bytes, offset: int) -> bytes | None:
    end = min(offset + _MATCH_HEAD.unpack_from(message, offset)[1], len(message))
    fields: dict[str, bytes] = {}
    offset += 4
    while offset + 4 <= end:
        header = int.from_bytes(message[offset:offset + 4], "big")
        length = header & 0xFF
        name = _ENTRY_OXMS.get(header)
        if name:
            fields[name] = bytes(message[offset + 4:offset + 4 + length])
        offset += 4 + length
    try:
        key = fields["protocol"] + fields["a"] + fields["a_port"] + fields["b"] + fields["b_port"]
    except KeyError:
        return None
    return key if len(key) in KEY_SIZES.values() else None


class EntryStats(NamedTuple):
    """An entry's flow for packets from that side, as a switch holds it; keys as in access_table.py.

    hop: the MAC that the flow sends to: from inside the entry's next_hop, from outside its inner_hop (b"": it has
    none).
    """

    side: Side
    key: bytes
    reply: bytes
    hop: bytes
    packets: int
    bytes: int
    duration: int
    finished: bool
    """It has seen FIN or RST and runs out when unused."""


class FlowStats(NamedTuple):
    """Any flow, as far as it takes to tell whether it is right, and how much it has carried."""

    table: int
    cookie: int
    packets: int
    bytes: int


RuleStats = tuple[int, int]
"""A flow of ours, as far as it takes to tell whether somebody has changed it: its cookie; and a digest of its
priority, match and instructions."""


def decode_rules(body: bytes, table: int) -> tuple[list[RuleStats], int]:
    """The flows of ours that do not go by themselves, of that table (its number); and how many flows of others. A
    site has hundreds of thousands, which are looked at again and again."""
    rules: list[RuleStats] = []
    foreign, offset, end = 0, 0, len(body)
    unpack, digest_of = _RULE_STATS.unpack_from, zlib.crc32
    while offset + 48 <= end:
        length, found, priority, hard_timeout, cookie = unpack(body, offset)
        if length < 48 or offset + length > end:
            break
        if found == table and not hard_timeout:
            if known_kind(cookie) is not None:
                rules.append((cookie, digest_of(body[offset + 48:offset + length], priority)))
            else:
                foreign += 1
        offset += length
    return rules, foreign


def stats_records(body: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset, length, table) of each record of a flow-statistics reply's body; stops at a malformed one."""
    offset, end = 0, len(body)
    while offset + 48 <= end:
        length, table = struct.unpack_from("!HB", body, offset)
        if length < 48 or offset + length > end:
            return
        yield offset, length, table
        offset += length


def decode_flow_stats(body: bytes) -> list[FlowStats]:
    """Each record."""
    return [_flow_stats(body, offset) for offset, _, _ in stats_records(body)]


def _flow_stats(body: bytes, offset: int) -> FlowStats:
    return FlowStats(*_FLOW_STATS.unpack_from(body, offset))


class SliceStats(NamedTuple):
    """A slice's flow in table slices_in. port: of the service; number: of the slice."""

    priority: int
    match: bytes
    protocol: int
    port: int
    number: int
    packets: int
    bytes: int


def decode_slice_stats(body: bytes) -> Iterator[SliceStats]:
    """Each record whose match is a slice's."""
    for offset, length, _ in stats_records(body):
        if length < 52:
            continue
        match_end = min(offset + 48 + _MATCH_HEAD.unpack_from(body, offset + 48)[1], offset + length)
        fields = dict(_oxms(body, offset + 52, match_end))
        protocol = TCP if _OXM_TCP_DST in fields else UDP
        port = fields.get(_OXM_TCP_DST) or fields.get(_OXM_UDP_DST)
        client = next((fields[header] for header in _OXM_CLIENTS if header in fields), None)
        if port and client:
            value = int.from_bytes(client[:len(client) // 2])
            number = value & 0xFF if len(client) > 4 else value >> 1 & 0xFF
            counted = _flow_stats(body, offset)
            priority = int.from_bytes(body[offset + 12:offset + 14])
            yield SliceStats(priority, body[offset + 52:match_end], protocol, int.from_bytes(port), number,
                             counted.packets, counted.bytes)


def _oxms(data: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Header and what follows it (value, and mask) of each field of a match."""
    while offset + 4 <= end:
        header = int.from_bytes(data[offset:offset + 4])
        length = header & 0xFF
        if offset + 4 + length > end:
            return
        yield header, data[offset + 4:offset + 4 + length]
        offset += 4 + length


def decode_meter_stats(body: bytes) -> dict[int, int]:
    """Meter -> packets that it has dropped, of a meter-statistics reply's body (OpenFlow 1.4.0, 7.3.5.11); stops at a
    malformed record."""
    dropped: dict[int, int] = {}
    offset = 0
    while offset + 40 <= len(body):
        meter, length = struct.unpack_from("!IH", body, offset)
        if length < 40 or offset + length > len(body):
            break
        bands = range(offset + 40, offset + length - 15, 16)
        dropped[meter] = sum(struct.unpack_from("!Q", body, band)[0] for band in bands)
        offset += length
    return dropped


def decode_neighbours(body: bytes) -> dict[bytes, bytes]:
    """Server address -> MAC, both packed, as the flows of tables deliver_server and deliver_tunnel in a reply's body
    have them."""
    neighbours = {}
    for offset, length, table in stats_records(body):
        if table not in TABLES_DELIVER:
            continue
        record = body[offset:offset + length]
        mac = record.find(_SET_ETH_DST, 48)
        for header, size in ((_OXM_IPV4_DST, 4), (_OXM_IPV6_DST, 16)):
            address = record.find(header, 48)
            if address >= 0 and mac >= 0:
                neighbours[record[address + 4:address + 4 + size]] = record[mac + 8:mac + 14]
    return neighbours


class WayBack(NamedTuple):
    """Of table way_back: the MACs of clients, and of the routers of external IPs; all packed."""

    clients: dict[bytes, bytes]
    external_ips: dict[bytes, bytes]


def decode_way_back(body: bytes) -> WayBack:
    """Of that table's flows in a reply's body."""
    found = WayBack({}, {})
    for offset, length, _ in stats_records(body):
        record = body[offset:offset + length]
        mac = record.find(_SET_ETH_DST, 48)
        for macs, header, size in ((found.clients, _OXM_IPV4_DST, 4), (found.clients, _OXM_IPV6_DST, 16),
                                   (found.external_ips, _OXM_IPV4_SRC, 4), (found.external_ips, _OXM_IPV6_SRC, 16)):
            address = record.find(header, 48)
            if address >= 0 and mac >= 0:
                macs[record[address + 4:address + 4 + size]] = record[mac + 8:mac + 14]
    return found


class EntryStatsDecoder:
    """Decodes the flow statistics of the access tables in bulk."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, int], list[tuple[Side, Shape, Layout]]] = {}
        """(table, length of a record) -> what it can be"""
        for shape in SHAPES:
            for side in Side:
                layout = stats_layout(side, shape)
                place = number(side.access_table), layout.size
                self._layouts.setdefault(place, []).append((side, shape, layout))

    def decode(self, body: bytes) -> tuple[list[EntryStats], list[FlowStats]]:
        """The entries of a reply's body, and the flows in it that are not as we would have made them."""
        entries: list[EntryStats] = []
        others: list[FlowStats] = []
        for (table, size), records in self._by_size(body).items():
            for side, shape, layout in self._layouts.get((table, size), ()):
                fits = layout.fits(records)
                if fits.all():
                    entries += _decode_rows(np.frombuffer(records, layout.dtype), side, shape)
                    records = b""
                    break
                if fits.any():
                    # As bytes: an index into an array of records copies their fields only, not what is between them.
                    raw = np.frombuffer(records, "u1").reshape(-1, size)
                    entries += _decode_rows(np.frombuffer(raw[fits].tobytes(), layout.dtype), side, shape)
                    records = raw[~fits].tobytes()
            others += [_flow_stats(records, at) for at in range(0, len(records), size)]
        return entries, others

    @staticmethod
    def _by_size(body: bytes) -> dict[tuple[int, int], bytes]:
        """The records, put together by table and length."""
        if len(body) >= 48:
            size, table = struct.unpack_from("!HB", body)
            heads = np.frombuffer(body, "u1")[:len(body) - len(body) % max(size, 1)].reshape(-1, max(size, 1))[:, :3]
            if size >= 48 and len(body) % size == 0 and (heads == heads[0]).all():
                return {(table, size): body}
        found: dict[tuple[int, int], list[bytes]] = {}
        for offset, length, table in stats_records(body):
            found.setdefault((table, length), []).append(body[offset:offset + length])
        return {place: b"".join(records) for place, records in found.items()}


def _decode_rows(rows: Records, side: Side, shape: Shape) -> list[EntryStats]:
    from_outside, protocol = side is EXTERNAL, shape.protocol
    match = _packed(shape, rows["a"], rows["a_port"], rows["b"], rows["b_port"])
    mine, match_half = ("address", "port"), ("a", "a_port") if from_outside else ("b", "b_port")
    theirs = ("other", "other_port") if shape.full else match_half
    halves = (mine, theirs) if from_outside else (theirs, mine)
    other = _packed(shape, *(rows[name] for half in halves for name in half))
    keys, replies = (match, other) if from_outside else (other, match)
    if "hop" in (rows.dtype.names or ()):
        same: dict[bytes, bytes] = {}
        # Few MACs for many entries: one bytes object for each.
        hops = [same.setdefault(hop, hop) for hop in map(bytes, rows["hop"].tolist())]
    else:
        hops = [b""] * len(rows)
    finished = [idle != 0 for idle in _integers(rows["idle"], ">u2")] if protocol == TCP else [False] * len(rows)
    return list(map(EntryStats, [side] * len(rows), keys, replies, hops, _integers(rows["packets"], ">u8"),
                    _integers(rows["bytes"], ">u8"), _integers(rows["duration"], ">u4"), finished))


def _packed(shape: Shape, *columns: Records) -> list[bytes]:
    """Joins columns of bytes row by row into keys."""
    dtype = KEY_DTYPES[shape.version]
    keys = np.empty(len(columns[0]), dtype)
    keys["protocol"] = shape.protocol
    for name, column in zip(("a", "a_port", "b", "b_port"), columns, strict=True):
        keys[name] = column
    raw, size = keys.tobytes(), dtype.itemsize
    return [raw[start:start + size] for start in range(0, len(raw), size)]


def _integers(column: Records, kind: str) -> list[int]:
    numbers: list[int] = np.ascontiguousarray(column).view(kind).tolist()
    return numbers
