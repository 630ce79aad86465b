"""The file of NAT records (site file: nat_log): written in a thread, so that nobody waits for the disk.

It is opened anew for each batch: whoever renames it (logrotate, say) gets a new one without telling us.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from lbctl.entries.nat_records import NatRecord, line
from lbctl.ground.effects import WriteRecords
from ryu_apps.shell.log import log
from ryu_apps.shell.threads import Threads

MOST = 100_000
"""Records that may wait, some 25 MB."""
BATCH = 1000
JUMP = 0.5
"""Seconds that the machine's clock must have jumped at least to be followed; less is the time between two looks."""
LOG_INTERVAL = 60.0
"""Seconds between two log lines about a file that can't be written."""


class RecordWriter:
    """directory: of the site file, which the file's name is relative to. What cannot be written is counted in
    `counters`. now: the clock of the records' times."""

    def __init__(self, directory: Path, counters: Counter[str], threads: Threads, now: Callable[[], float]) -> None:
        self._directory, self._counters, self._threads, self._now = directory, counters, threads, now
        self._waiting: deque[tuple[str, NatRecord]] = deque()
        self._wake = threads.event()
        self._told = float("-inf")
        self._behind = 0.0
        """Seconds that the records' clock, which does not jump, is behind the machine's, which may have."""
        self._torn = False
        """Has the last line no end?"""
        threads.spawn(self._loop)

    def write(self, order: WriteRecords) -> None:
        """Returns at once."""
        room = MOST - len(self._waiting)
        self._waiting.extend((order.file, record) for record in order.records[:room])
        if len(order.records) > room:
            self._counters["dropped_nat_record_queue_full"] += len(order.records) - room
        self._wake.set()

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                file = self._waiting[0][0]
                batch: list[NatRecord] = []
                while self._waiting and self._waiting[0][0] == file and len(batch) < BATCH:
                    batch.append(self._waiting.popleft()[1])
                if error := self._threads.apart(self._append, self._directory / file, batch):
                    self._counters["dropped_nat_record_not_written"] += len(batch)
                    self._tell(file, error)
                else:
                    self._counters["nat_records"] += len(batch)

    def _append(self, path: Path, records: Sequence[NatRecord]) -> str | None:
        """Why it can't be done; None: it is."""
        behind = time.time() - self._now()
        if abs(behind - self._behind) > JUMP:
            self._behind = behind
        text = ("\n" if self._torn else "") + "".join(line(record, self._behind) for record in records)
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                left = text.encode()
                while left:
                    left = left[os.write(file, left):]
                    self._torn = bool(left)
            finally:
                os.close(file)
        except OSError as error:
            return str(error)
        return None

    def _tell(self, file: str, reason: str) -> None:
        if time.monotonic() >= self._told + LOG_INTERVAL:
            self._told = time.monotonic()
            log.error("NAT records lost", file=file, reason=reason)
