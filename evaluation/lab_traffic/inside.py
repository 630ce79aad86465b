"""What the programs share: the pattern that transfers carry, TCP's own account of a connection, beginning and end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import random
import socket
import struct
import sys
import time
from typing import NamedTuple

SO_MAX_PACING_RATE = 47
"""Linux: bytes/s that TCP sends at most; the socket module has no name for it."""

BLOCK = random.Random(1).randbytes(65536)
"""What transfers carry, again and again: whoever gets wrong bytes or a gap sees it."""
TWICE = memoryview(BLOCK + BLOCK)

STALL = 3.0
"""Seconds without progress after which a connection counts as stalled."""


class TcpInfo(NamedTuple):
    """From TCP_INFO: segments with data, each time that they were sent or came; and those that were sent again."""

    retransmitted: int
    received: int
    sent: int


HEALTHY = TcpInfo(0, 0, 0)
"""Before anything was sent."""


def tcp_info(sock: socket.socket) -> TcpInfo:
    """TCP's account of a connection. Zeros for what the kernel does not know."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256).ljust(256, b"\0")
    # tcpi_total_retrans, tcpi_data_segs_in, tcpi_data_segs_out of linux/tcp.h.
    return TcpInfo(*(struct.unpack_from("=I", raw, offset)[0] for offset in (100, 152, 156)))


def pace(sock: socket.socket, rate: int) -> None:
    """At most `rate` bytes/s from now on."""
    sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)


def matches(data: bytes, offset: int) -> bool:
    """Whether `data` is what a transfer carries from `offset` bytes after its beginning; at most one block."""
    start = offset % len(BLOCK)
    return TWICE[start : start + len(data)] == data


def chunk(offset: int, size: int) -> memoryview:
    """`size` bytes (at most a block) of what a transfer carries from `offset` on."""
    start = offset % len(BLOCK)
    return TWICE[start : start + size]


def reason_of(error: BaseException) -> str:
    """Why a connection broke, in one word."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError | EOFError):
        return "reset"
    if isinstance(error, TimeoutError):
        return "stalled"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    return f"{type(error).__name__}: {error}"


class Breaks:
    """The connections that broke: when, and why."""

    def __init__(self) -> None:
        self.list: list[tuple[float, str]] = []

    def add(self, error: BaseException) -> None:
        self.list.append((time.monotonic(), reason_of(error)))


def ready() -> None:
    """Tell who started the program that its traffic flows."""
    print("ready", flush=True)


def finish(result: dict[str, object]) -> None:
    """Print the result and leave without waiting for anything."""
    print(json.dumps(result), flush=True)
    os._exit(0)


async def until_input_ends() -> None:
    """Wait until who started the program wants it to end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def prefer() -> bool:
    """Ask for real-time scheduling, so that what is measured is the network; whether the machine grants it."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        return True
    return False
