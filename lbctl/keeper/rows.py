"""Entries as packed rows: what a copy of the access table must hold (seed, third embodiment).

What a copy can do without is not in a row. The server address and the external IP are those of the row's section. With
destination NAT the external port is left out where the server's port tells it (`Section.ports`); with full NAT all
items are there but the server address. The next hop is, since nothing else knows it.

A row is its identity, and then what may change while the entry lives:

    kind         identity                                                             changes
    DESTINATION  protocol, client, client port, server port                           state, next hop
    EXPLICIT     protocol, client, client port, server port, external port            state, next hop, inner hop
    FULL         protocol, client, client port, server port, external port,           state, next hop
                 internal IP, internal port

Protocol and state are one byte, ports two, a MAC six, addresses four or sixteen; all in network byte order. The state
has the flags FIN_IN, FIN_OUT and RESET of lbctl.entries.access_table, and GONE in a row of an increment that takes an
entry away. EXPLICIT is destination NAT whose external port does not follow from the server's, and outbound NAT, which
has an inner hop (else zeros).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from lbctl.entries.access_table import ENDING, GONE, NO_HOP, Entry
from lbctl.site.model import ExternalIp
from lbctl.values.addresses import Address

STATE = ENDING | GONE
"""The flags of an entry that a row tells."""
_STATES = tuple(bytes([flags]) for flags in range(STATE + 1))
_PORTS = struct.Struct("!BHH")


class RowKind(enum.IntEnum):
    """What a section's rows leave out."""

    DESTINATION = 1
    EXPLICIT = 2
    FULL = 3


class Stream(NamedTuple):
    """What is copied apart from everything else: the entries of one external IP that lead to one server (packed
    addresses of one IP version)."""

    server: bytes
    external: bytes


class Section(NamedTuple):
    """Rows of one kind of one stream. ports: packed (protocol, server port, external port) for DESTINATION, else
    empty."""

    kind: RowKind
    stream: Stream
    ports: bytes
    rows: bytes


class Row(NamedTuple):
    """An entry as a copy gives it back; keys as in lbctl.entries.access_table. flags: FIN_IN, FIN_OUT and RESET.

    next_hop is NO_HOP, and inner_hop empty, where they were not known.
    """

    key: bytes
    reply: bytes
    next_hop: bytes
    flags: int
    inner_hop: bytes = b""


DerivedPorts = Mapping[bytes, bytes]
"""Packed protocol and server port (3 bytes) -> packed external port (2 bytes)."""


def identity_size(kind: RowKind, version: int) -> int:
    """Bytes of a row that say which entry it is."""
    address = 4 if version == 4 else 16
    return {RowKind.DESTINATION: 5 + address, RowKind.EXPLICIT: 7 + address, RowKind.FULL: 9 + 2 * address}[kind]


def row_size(kind: RowKind, version: int) -> int:
    """Bytes of a row."""
    return identity_size(kind, version) + (13 if kind == RowKind.EXPLICIT else 7)


def version_of(stream: Stream) -> int:
    """Its IP version."""
    return 4 if len(stream.server) == 4 else 6


def count(section: Section) -> int:
    """Its number of rows."""
    return len(section.rows) // row_size(section.kind, version_of(section.stream))


def derived_ports(external_ip: ExternalIp, server: Address) -> DerivedPorts:
    """The external port for each of that server's ports that tells it: only one service of this external IP leads
    there.

    Empty with full NAT, and of a NAT gateway.
    """
    found: dict[bytes, bytes | None] = {}
    if external_ip.has_own_servers:
        for service in external_ip.services:
            for port in {each.port for each in service.servers if each.address == server}:
                place = bytes([service.protocol_number]) + port.to_bytes(2)
                found[place] = None if place in found else service.port.to_bytes(2)
    return {place: port for place, port in found.items() if port is not None}


def pack_ports(ports: DerivedPorts) -> bytes:
    """As a section carries them, in ascending order."""
    return b"".join(place + ports[place] for place in sorted(ports))


def unpack_ports(packed: bytes) -> DerivedPorts:
    return {packed[start:start + 3]: packed[start + 3:start + 5] for start in range(0, len(packed), _PORTS.size)}


def sections(entries: Iterable[Entry], ports: Callable[[Stream], DerivedPorts]) -> list[Section]:
    """The entries' rows, by stream and kind; an entry that is GONE becomes a row that says so. About 1 us for each
    entry."""
    streams: dict[Stream, DerivedPorts] = {}
    rows: dict[tuple[RowKind, Stream], list[bytes]] = {}
    for entry in entries:
        key, reply = entry.key, entry.reply
        half = len(key) + 1 >> 1
        client, external_port, server_port = key[1:half], key[-2:], reply[half - 2:half]
        stream = Stream(reply[1:half - 2], key[half:-2])
        derivable = streams.get(stream)
        if derivable is None:
            derivable = streams[stream] = ports(stream)
        row = key[:half] + server_port
        changing = _STATES[entry.flags & STATE] + entry.next_hop
        if reply[half:] != client:
            kind, row = RowKind.FULL, row + external_port + reply[half:] + changing
        elif not entry.inner_hop and derivable.get(key[:1] + server_port) == external_port:
            kind, row = RowKind.DESTINATION, row + changing
        else:
            kind, row = RowKind.EXPLICIT, row + external_port + changing + (entry.inner_hop or NO_HOP)
        alike = rows.get((kind, stream))
        if alike is None:
            alike = rows[kind, stream] = []
        alike.append(row)
    return [Section(kind, stream, pack_ports(streams[stream]) if kind == RowKind.DESTINATION else b"", b"".join(alike))
            for (kind, stream), alike in rows.items()]


def underivable(section: Section) -> bytes | None:
    """A protocol and server port (3 bytes) that its ports should have, and don't."""
    if section.kind != RowKind.DESTINATION:
        return None
    split = struct.Struct(f"!1s{len(section.stream.server) + 2}x2s7x")
    used = {protocol + port for protocol, port in split.iter_unpack(section.rows)}
    return next(iter(used - unpack_ports(section.ports).keys()), None)


def entries(section: Section) -> list[Row]:
    """A section's rows as entries, without those that are GONE. About 1 us for each row."""
    kind, (server, external), size = section.kind, section.stream, len(section.stream.server)
    place = size + 2
    if kind == RowKind.DESTINATION:
        outside = {where: external + port for where, port in unpack_ports(section.ports).items()}
        split = struct.Struct(f"!1s{place}s2sB6s")
        return [Row(protocol + client + outside[protocol + port], protocol + server + port + client, hop, state)
                for protocol, client, port, state, hop in split.iter_unpack(section.rows) if not state & GONE]
    if kind == RowKind.EXPLICIT:
        split = struct.Struct(f"!1s{place}s2s2sB6s6s")
        return [Row(protocol + client + external + external_port, protocol + server + port + client, hop, state,
                    b"" if inner == NO_HOP else inner)
                for protocol, client, port, external_port, state, hop, inner in split.iter_unpack(section.rows)
                if not state & GONE]
    split = struct.Struct(f"!1s{place}s2s2s{place}sB6s")
    return [Row(protocol + client + external + external_port, protocol + server + port + internal, hop, state)
            for protocol, client, port, external_port, internal, state, hop in split.iter_unpack(section.rows)
            if not state & GONE]
