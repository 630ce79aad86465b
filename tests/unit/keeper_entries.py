"""Entries of all kinds that lead to one server, and what a copy should have of them; for the tests of the keeper."""

from __future__ import annotations

from collections.abc import Iterable

from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.keeper.rows import DerivedPorts, Row, Section, Stream, entries
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.protocols import TCP, UDP

SERVER, OTHER_SERVER = bytes([10, 0, 0, 11]), bytes([10, 0, 0, 12])
SERVER_6 = bytes.fromhex("fd000000000000000000000000000011")
EXTERNAL, FULL, GATEWAY = (bytes([198, 51, 100, number]) for number in (1, 2, 3))
EXTERNAL_6 = bytes.fromhex("20010db8000000000000000000000001")
CLIENT, CLIENT_6 = bytes([203, 0, 113, 9]), bytes.fromhex("20010db80000000c0000000000000009")
INTERNAL = bytes([10, 0, 0, 100])
HOP, INNER_HOP = bytes.fromhex("02000000c0fe"), bytes.fromhex("02000000005a")
KINDS = ("derived", "explicit", "udp", "full", "outbound", "ipv6")

DERIVED = {bytes([TCP]) + (8080).to_bytes(2): (80).to_bytes(2), bytes([UDP]) + (53).to_bytes(2): (53).to_bytes(2)}
"""Of port 9090 nothing follows: two services lead there."""


def ports(stream: Stream) -> DerivedPorts:
    return DERIVED if stream.external in (EXTERNAL, EXTERNAL_6) else {}


def entry(kind: str = "derived", number: int = 1, server: bytes = SERVER, hop: bytes = HOP) -> Entry:
    """A connection of that kind (KINDS) from port `number` of the client; of outbound, to it."""
    match kind:
        case "derived" | "explicit" | "udp":
            protocol, external_port, server_port = {"derived": (TCP, 80, 8080), "explicit": (TCP, 443, 9090),
                                                    "udp": (UDP, 53, 53)}[kind]
            key = pack_key(protocol, CLIENT, number, EXTERNAL, external_port)
            return Entry(key, reply_key(key, server, server_port), hop, 0.0)
        case "full":
            key = pack_key(TCP, CLIENT, number, FULL, 80)
            return Entry(key, pack_key(TCP, server, 8080, INTERNAL, 1024 + number), hop, 0.0)
        case "outbound":
            key = pack_key(TCP, CLIENT, number, GATEWAY, 1024 + number)
            return Entry(key, pack_key(TCP, server, 5000, CLIENT, number), hop, 0.0, inner_hop=INNER_HOP)
    key = pack_key(TCP, CLIENT_6, number, EXTERNAL_6, 80)
    return Entry(key, reply_key(key, SERVER_6, 8080), hop, 0.0)


def row(item: Entry) -> Row:
    """What a copy gives back of it."""
    return Row(item.key, item.reply, item.next_hop or NO_HOP, item.flags & 7, item.inner_hop)


def rows(items: Iterable[Entry]) -> set[Row]:
    return {row(item) for item in items}


def rows_of(sections: Iterable[Section]) -> set[Row]:
    """The rows of these sections; each may be there once."""
    found = [each for section in sections for each in entries(section)]
    assert len(set(found)) == len(found)
    return set(found)
