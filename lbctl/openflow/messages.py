"""What the core asks the shell to send to a switch: values, compared in tests, turned into OpenFlow by ryu_apps/.

Two of them are made for every new connection: as tuples they take less than half the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lbctl.entries.access_table import Entry
from lbctl.openflow.flow import Flow
from lbctl.site.model import Tunnel

FROM_CONTROLLER = 0xFFFFFFFD
"""OFPP_CONTROLLER as the in-port of a frame that we made, so that any port may be its output."""
OUTPUT_TABLE = -1
"""PacketOut.output: through the whole pipeline, from table 0."""


@dataclass(frozen=True, slots=True)
class AddFlows:
    """Adds flows, or replaces those with the same identity."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class DeleteFlows:
    """Deletes exactly these flows, by identity and cookie."""

    flows: tuple[Flow, ...]


@dataclass(frozen=True, slots=True)
class DeleteCookie:
    """Deletes the flows of a table whose cookie, under the mask, is this."""

    table: str
    cookie: int
    mask: int


class AddEntries(NamedTuple):
    """Adds both flows of each entry. With a token: as one atomic bundle, whose commit is confirmed by that token."""

    entries: tuple[Entry, ...]
    token: int | None = None


@dataclass(frozen=True, slots=True)
class ModifyEntries:
    """Gives both flows of each entry, where they are there, the next hops that the entry has now. Their counters stay,
    and what they have seen of a FIN: a flow that is put back would forget it."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class DeleteEntries:
    """Deletes both flows of each entry."""

    entries: tuple[Entry, ...]


class PacketOut(NamedTuple):
    """Sends a frame as if it had come in by `in_port`: to a port, to OUTPUT_TABLE, or through one table by name.

    tunnel: at whose other end it has come in, or goes out."""

    frame: bytes
    in_port: int
    output: int | str
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class Barrier:
    """Confirmed by its token when the switch has done all that was sent before."""

    token: int


@dataclass(frozen=True, slots=True)
class SetMeter:
    """A meter that drops what exceeds `rate` packets/s, after a burst of `burst` packets."""

    number: int
    rate: int
    burst: int


@dataclass(frozen=True, slots=True)
class ReadFlows:
    """Asks for the flows of a table (None: all) whose cookie, under the mask, is this."""

    table: str | None
    cookie: int
    mask: int
    token: int


@dataclass(frozen=True, slots=True)
class ReadPorts:
    """Asks for the counters of all ports."""

    token: int


@dataclass(frozen=True, slots=True)
class ReadMeters:
    """Asks for the counters of all meters; answered as a ReadFlows is."""

    token: int


@dataclass(frozen=True, slots=True)
class Configure:
    """Once for each connection: whole frames to the controller, no flow-removed for what the controller deleted."""


Message = (AddFlows | DeleteFlows | DeleteCookie | AddEntries | ModifyEntries | DeleteEntries | PacketOut | Barrier
           | SetMeter | ReadFlows | ReadPorts | ReadMeters | Configure)

AT_ONCE = 500
"""Entries in one message, of many that nobody waits for: others' messages get their turn between them."""


def entry_messages(
    kind: type[AddEntries] | type[ModifyEntries] | type[DeleteEntries], entries: Sequence[Entry]
) -> list[Message]:
    """Messages of that kind for all of the entries."""
    return [kind(tuple(entries[start:start + AT_ONCE])) for start in range(0, len(entries), AT_ONCE)]
