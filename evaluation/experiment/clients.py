"""The users of some groups, as a program in a client's namespace.

Each group makes its requests at their times, however those before fare.

    python -m evaluation.experiment.clients NUMBER OF SEED PHASE LBS

Client NUMBER (from 0) of so many; SEED, PHASE and LBS are those of shape.Shape. It prints "ready", reads a line with
the time of the beginning (time.monotonic()), and prints one JSON object at the end: `look_ups` (group, which, external
IP), `requests` (external IP, when it was due, seconds that it took), `failures` (external IP, when it was due, why),
`connections` (how many were opened).
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from evaluation.experiment.shape import GROUPS, SIZE, Shape
from evaluation.lab_traffic.inside import reason_of
from topologies.plan import SITE_NAME

REQUESTS = 20
"""A connection carries so many, one after the other."""
LINES = 12
"""Connections that a group has at most, as a proxy or a browser does: who finds none free waits."""
PATIENCE = 30.0
"""Seconds after which a request that is not answered has failed, waiting for a connection included."""
REQUEST = f"GET /100k HTTP/1.1\r\nHost: {SITE_NAME}\r\nRange: bytes=0-{SIZE - 1}\r\n\r\n".encode()


@dataclass
class Line:
    """A connection that is kept alive."""

    address: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: int = REQUESTS


@dataclass
class Result:
    """Of all groups of the program."""

    look_ups: list[tuple[int, int, str]] = field(default_factory=list)
    requests: list[tuple[str, float, float]] = field(default_factory=list)
    failures: list[tuple[str, float, str]] = field(default_factory=list)
    connections: int = 0


class Group:
    """The users behind one resolver."""

    def __init__(self, number: int, shape: Shape, begin: float, result: Result) -> None:
        self.number, self.shape, self.begin, self.result = number, shape, begin, result
        self.address = ""
        self._free: deque[Line] = deque()
        self._lines = asyncio.Semaphore(LINES)

    async def look_up(self) -> None:
        """Each time that the cached address has run out."""
        for which, at in enumerate(self.shape.look_ups(self.number)):
            await self._until(at)
            self.address = await resolved()
            self.result.look_ups.append((self.number, which, self.address))
            while self._free:
                self._free.popleft().writer.close()

    async def ask(self) -> None:
        """All requests, each at its time; returns when all have an answer or have failed."""
        async with asyncio.TaskGroup() as running:
            for at in self.shape.requests(self.number):
                await self._until(at)
                running.create_task(self._request(at))

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, self.begin + at - time.monotonic()))

    async def _request(self, at: float) -> None:
        address = self.address  # of when it asks: a look-up may come while it waits
        try:
            async with asyncio.timeout(PATIENCE), self._lines:
                address = self.address
                line = self._free.pop() if self._free else await self._open(address)
                await self._answered(line)
                if line.left and line.address == self.address:
                    self._free.append(line)
                else:
                    line.writer.close()
        except (OSError, EOFError, ValueError) as error:
            self.result.failures.append((address, at, reason_of(error)))
            return
        self.result.requests.append((address, at, time.monotonic() - self.begin - at))

    async def _open(self, address: str) -> Line:
        reader, writer = await asyncio.open_connection(address, 80)
        self.result.connections += 1
        return Line(address, reader, writer)

    async def _answered(self, line: Line) -> None:
        try:
            line.left -= 1
            line.writer.write(REQUEST)
            head = await line.reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 206 "):
                raise ValueError(head.splitlines()[0].decode(errors="replace"))
            await line.reader.readexactly(SIZE)
        except BaseException:
            line.writer.close()
            raise


async def resolved() -> str:
    """The first address, as any program takes it."""
    found = await asyncio.get_running_loop().getaddrinfo(SITE_NAME, 80, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


async def main() -> None:
    number, clients, seed = map(int, sys.argv[1:4])
    shape, result = Shape(seed, float(sys.argv[4]), int(sys.argv[5])), Result()
    print("ready", flush=True)
    begin = float(sys.stdin.readline())
    groups = [Group(group, shape, begin, result) for group in range(number, GROUPS, clients)]
    async with asyncio.TaskGroup() as running:
        for group in groups:
            running.create_task(group.look_up())
            running.create_task(group.ask())
    print(json.dumps(vars(result)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
