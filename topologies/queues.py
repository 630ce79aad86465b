"""Receive queues of the userspace datapath, long enough for a machine whose processors are busy.

There, the receive queue of a port is a socket's buffer. Linux's default holds some 90 full frames: an ovs-vswitchd that is
kept from the processor for 20 ms loses packets, where a network adapter's ring would have held them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

LENGTH = 8 * 1024 * 1024
"""Bytes."""

DEFAULT = Path("/proc/sys/net/core/rmem_default")
"""One for all network namespaces; it can be changed from the machine's first one only."""


@contextlib.contextmanager
def long_receive_queues() -> Iterator[bool]:
    """Sockets opened inside have LENGTH; afterwards the machine's default is what it was. Whether that was allowed."""
    before = DEFAULT.read_text()
    changed = int(before) < LENGTH and _set(str(LENGTH))
    try:
        yield changed
    finally:
        if changed:
            _set(before)


def _set(length: str) -> bool:
    try:
        DEFAULT.write_text(length)
    except OSError:
        return False
    return True
