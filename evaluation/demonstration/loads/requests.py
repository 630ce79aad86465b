"""Short HTTP requests on new connections all the while, at a steady rate, however the ones before fare.

    python -m evaluation.demonstration.loads.requests ADDRESS PORT RATE

Each connection carries REQUESTS requests with pauses between, so that at any time some are young and some are
established.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

from evaluation.lab_traffic.inside import STALL, Breaks, finish, ready, until_input_ends

REQUESTS = 3
PAUSE = 0.1
"""Seconds between the requests of a connection, on average."""
PATIENCE = 30.0
"""Seconds that the last connections get at the end."""


class Requests:
    """All connections of the program."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.breaks = Breaks()
        self.opened = 0
        self.answered = 0
        self.failed = 0
        self.slowest = 0.0

    async def visit(self) -> None:
        """One connection with its requests. One that breaks fails the request that was to be answered on it."""
        self.opened += 1
        try:
            async with asyncio.timeout(STALL):
                reader, writer = await asyncio.open_connection(self.host, self.port)
        except (OSError, EOFError) as error:
            self._fail(error)
            return
        try:
            for left in reversed(range(REQUESTS)):
                began = time.monotonic()
                async with asyncio.timeout(STALL):
                    await self._request(reader, writer, last=left == 0)
                self.answered += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                if left:
                    await asyncio.sleep(random.uniform(0, 2 * PAUSE))
        except (OSError, EOFError, ValueError) as error:
            self._fail(error)
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last: bool) -> None:
        end = "Connection: close\r\n" if last else ""
        writer.write(f"GET /1k HTTP/1.1\r\nHost: {self.host}\r\n{end}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(head.splitlines()[0].decode(errors="replace"))
        await reader.readexactly(1024)

    def _fail(self, error: BaseException) -> None:
        self.failed += 1
        self.breaks.add(error)


async def main() -> None:
    """Request until standard input ends, let the last ones finish, then print the result."""
    host, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    requests = Requests(host, port)
    end = asyncio.create_task(until_input_ends())
    await requests.visit()
    if requests.failed:
        raise SystemExit(f"the first request to {host}:{port} failed: {requests.breaks.list[0][1]}")
    ready()
    running: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    while not end.done():
        task = asyncio.create_task(requests.visit())
        running.add(task)
        task.add_done_callback(running.discard)
        due += 1 / rate
        await asyncio.wait([end], timeout=max(0.0, due - time.monotonic()))
    if running:
        await asyncio.wait(running, timeout=PATIENCE)
    finish(
        {
            "opened": requests.opened,
            "breaks": requests.breaks.list,
            "answered": requests.answered,
            "failed": requests.failed,
            "slowest": requests.slowest,
        }
    )


if __name__ == "__main__":
    asyncio.run(main())
