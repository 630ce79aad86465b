"""Makes the copy outlive the keeper: every batch is appended to a file before it is acknowledged.

The file is what the wire is: records of batches, each with its length, a CRC-32 and its time. It begins with a
snapshot, which is a batch of each server; when it has grown to several times that, a new one is written and put in its
place. So what was acknowledged survives `kill -9`: it has been given to the operating system. It is not forced to the
disk, since the machine's own end also ends what is copied here, its server's connections; a keeper elsewhere that has
lost the end of its file to a power failure is at an earlier batch, finds a gap, and asks for a new session.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lbctl.keeper.batches import Batch, MalformedBatch, Reply, decode, encode
from lbctl.keeper.process.copy import Copy

MAGIC = b"lbctl keeper 1\n"
NAME, NEW_NAME, LOCK_NAME = "copy.journal", "copy.journal.new", "lock"
SNAPSHOT, BATCH = 1, 2
COMPACT_FACTOR, COMPACT_SIZE = 4, 4 * 1024 * 1024
"""A new snapshot is written when the file has this many times the last one's size, and so many bytes more."""
_RECORD = struct.Struct("!BIId")
"""Kind, length, CRC-32 of the batch, and when it was taken (seconds since the epoch)."""
Tell = Callable[[str], None]


class JournalError(Exception):
    """The directory cannot be used; the message says which file, why, and what to do."""


class KeptCopy:
    """A copy with its file in `directory`, which nobody else may use meanwhile. `log` is told what was odd.

    Raises JournalError if there is something in the directory that cannot be read or written.
    """

    def __init__(self, copy: Copy, directory: Path, log: Tell) -> None:
        self.copy = copy
        self.size = 0
        """Bytes of the file."""
        self._log = log
        self._compact_at = 0
        """The size at which the file is written anew."""
        self._torn = False
        """The last record may be there in part; `size` does not count it."""
        self._path, self._new_path = directory / NAME, directory / NEW_NAME
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read()
            self._file = -1
            self._compact()
        except BlockingIOError as error:
            raise JournalError(f"{directory}: another keeper is running with this directory") from error
        except OSError as error:
            raise JournalError(f"{error.filename or directory}: {error.strerror or error}; give --directory one that "
                               "the keeper may write to") from error

    def put(self, batch: Batch, body: bytes) -> Reply:
        """The reply to a batch, whose bytes are `body`; it lasts once this has returned. Raises OSError if it cannot be
        written: nothing has changed then."""
        reply = self.copy.judge(batch)
        if reply is not None:
            return reply
        now = time.time()
        self._append(_record(BATCH, body, now))
        reply = self.copy.take(batch, now)
        if self.size > self._compact_at:
            try:
                self._compact()
            except OSError as error:
                self._compact_at = self.size * 2
                self._log(f"{self._new_path}: {error.strerror}; the journal goes on growing")
        return reply

    def close(self) -> None:
        """Lets go of the directory."""
        os.close(self._file)
        os.close(self._lock)

    def _append(self, record: bytes) -> None:
        if self._torn:
            os.ftruncate(self._file, self.size)
        self._torn = True
        _write(self._file, record)
        self._torn = False
        self.size += len(record)

    def _compact(self) -> None:
        """Writes a snapshot, and goes on behind it."""
        file = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = len(MAGIC)
            _write(file, MAGIC)
            for batch, taken_at in self.copy.snapshot():
                record = _record(SNAPSHOT, encode(batch), taken_at)
                _write(file, record)
                size += len(record)
            os.fsync(file)
            os.rename(self._new_path, self._path)
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self.size, self._torn = file, size, False
        self._compact_at = size * COMPACT_FACTOR + COMPACT_SIZE

    def _read(self) -> None:
        """Fills the copy from the file, as far as that makes sense; what comes behind was never acknowledged."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            size, end = os.fstat(file.fileno()).st_size, len(MAGIC)
            if file.read(len(MAGIC)) != MAGIC:
                raise JournalError(f"{self._path} is no keeper's journal, or of another release; remove it: the "
                                   "control function will send everything again")
            with contextlib.suppress(MalformedBatch):
                for kind, body, taken_at in _records(file):
                    self._replay(kind, decode(body), taken_at)
                    end = file.tell()
        self.copy.counters.clear()
        if end != size:
            self._log(f"{self._path}: the last {size - end} bytes are damaged and left out; what they held will be "
                      "sent again")

    def _replay(self, kind: int, batch: Batch, taken_at: float) -> None:
        if kind == SNAPSHOT:
            self.copy.restore(batch, taken_at)
        elif self.copy.judge(batch) is None:
            self.copy.take(batch, taken_at)


def _record(kind: int, body: bytes, taken_at: float) -> bytes:
    return _RECORD.pack(kind, len(body), zlib.crc32(body), taken_at) + body


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left):]


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes, float]]:
    """Kind, content and time of each whole record, up to the first that is not."""
    while len(head := file.read(_RECORD.size)) == _RECORD.size:
        kind, length, crc, taken_at = _RECORD.unpack(head)
        body = file.read(length)
        if len(body) != length or zlib.crc32(body) != crc:
            return
        yield kind, body, taken_at
