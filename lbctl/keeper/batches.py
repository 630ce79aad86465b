"""What goes over the wire: batches of sections, and the keeper's reply to one.

Each batch is about one server. A *session* is what a sender says about it from one full copy on: first the full copy in
parts, then increments, numbered together from 1. A gap or a refusal ends a session; the sender then begins another one.
The body of a batch:

    "LBK1", kind (1 byte), IP version (1), session (8), sequence (8), number of sections (2), server address
    for each section: kind (1), number of ports (2), number of rows (4), external IP, ports (5 each), rows
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple

from lbctl.keeper.rows import RowKind, Section, Stream, count, row_size, underivable

CONTENT_TYPE = "application/vnd.lbctl.entries"
MAGIC = b"LBK1"
_HEAD = struct.Struct("!4sBBQQH")
_SECTION = struct.Struct("!BHI")
_PORTS_SIZE = 5


class MalformedBatch(ValueError):
    """These bytes are no batch; the message says where they stop making sense."""


class BatchKind(enum.IntEnum):
    """PART, LAST_PART: of a full copy, which takes effect with the last. INCREMENT: what has changed since."""

    PART = 1
    LAST_PART = 2
    INCREMENT = 3


class Batch(NamedTuple):
    """One message to a keeper; also what it gives back (one LAST_PART). server: packed; all sections are of its
    streams."""

    kind: BatchKind
    server: bytes
    session: int
    sequence: int
    sections: Sequence[Section] = ()

    @property
    def rows(self) -> int:
        return sum(map(count, self.sections))


class Answer(enum.Enum):
    """What a keeper says to a batch: it has it; it misses something, so begin a session; it will not take it."""

    ACKNOWLEDGED = "acknowledged"
    RESYNC = "resync"
    REFUSED = "refused"


class Reply(NamedTuple):
    """sequence: the last one that the keeper has of the batch's session. detail: why it was not taken, for people."""

    answer: Answer
    sequence: int = 0
    detail: str = ""


def encode(batch: Batch) -> bytes:
    """The body of a batch."""
    version = 4 if len(batch.server) == 4 else 6
    parts = [_HEAD.pack(MAGIC, batch.kind, version, batch.session, batch.sequence, len(batch.sections)), batch.server]
    for section in batch.sections:
        parts += [_SECTION.pack(section.kind, len(section.ports) // _PORTS_SIZE, count(section)),
                  section.stream.external, section.ports, section.rows]
    return b"".join(parts)


def decode(body: bytes) -> Batch:
    """The batch of a body. Raises MalformedBatch."""
    try:
        magic, kind, version, session, sequence, number = _HEAD.unpack_from(body)
        if magic != MAGIC:
            raise MalformedBatch(f"a batch begins with {MAGIC.decode()}; perhaps the other side is of another release")
        if version not in (4, 6):
            raise MalformedBatch(f"there is no IP version {version}")
        offset = _HEAD.size + (4 if version == 4 else 16)
        server, sections = body[_HEAD.size:offset], []
        for _ in range(number):
            section, offset = _section(body, offset, server)
            sections.append(section)
        if offset != len(body):
            raise MalformedBatch(f"its sections end at byte {offset} of {len(body)}")
        return Batch(BatchKind(kind), server, session, sequence, sections)
    except struct.error as error:
        raise MalformedBatch(f"cut off: {error}") from error
    except ValueError as error:
        raise error if isinstance(error, MalformedBatch) else MalformedBatch(str(error)) from error


def _section(body: bytes, offset: int, server: bytes) -> tuple[Section, int]:
    """The section that begins there, and where it ends."""
    number, ports, rows = _SECTION.unpack_from(body, offset)
    kind, address = RowKind(number), len(server)
    start = offset + _SECTION.size
    rows_at = start + address + ports * _PORTS_SIZE
    end = rows_at + rows * row_size(kind, 4 if address == 4 else 6)
    if end > len(body):
        raise MalformedBatch(f"the section at byte {offset} has {rows} rows, and ends {end - len(body)} bytes after "
                             "the body")
    stream = Stream(server, body[start:start + address])
    section = Section(kind, stream, body[start + address:rows_at], body[rows_at:end])
    if missing := underivable(section):
        raise MalformedBatch(f"the section at byte {offset} says no external port for protocol and server port "
                             f"{missing.hex()}")
    return section, end
