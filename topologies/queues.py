"""Receive queues of the userspace datapath, long enough for a machine whose processors are busy.

There, the receive queue of a port is a socket's buffer. Linux's default holds some 90 full frames: an ovs-vswitchd that
is kept from the processor for 20 ms loses packets, where a network adapter's ring would have held them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

LENGTH = 8 * 1024 * 1024
"""Bytes."""

DEFAULT = Path("/proc/sys/net/core/rmem_default")
"""One for all network namespaces; it can be changed from the machine's first one only."""

LOCK = Path("/run/lbctl-receive-queues")
"""Locked by all who want long queues, in several processes; holds what the default was before the first of them."""


@contextlib.contextmanager
def long_receive_queues() -> Iterator[bool]:
    """Sockets opened inside have LENGTH. Whether that was allowed. The last one to leave makes the default what it
    was."""
    if not os.access(DEFAULT, os.W_OK):
        yield False
        return
    file = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        _lengthen(file)
        yield True
    finally:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _restore(file)
        os.close(file)


def _lengthen(file: int) -> None:
    before = DEFAULT.read_text()
    if int(before) < LENGTH:
        os.pwrite(file, before.encode(), 0)
        DEFAULT.write_text(str(LENGTH))


def _restore(file: int) -> None:
    if before := os.pread(file, 100, 0):
        DEFAULT.write_bytes(before)
        os.truncate(file, 0)
