"""Many established connections that rest, as most do; at the end each says a line and must hear it back.

python -m evaluation.demonstration.loads.quiet ADDRESS PORT CONNECTIONS
"""

from __future__ import annotations

import asyncio
import resource
import sys

from evaluation.lab_traffic.inside import STALL, Breaks, finish, ready, until_input_ends

OPENED_AT_ONCE = 8
ASKED_AT_ONCE = 100

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Quiet:
    """All connections of the program."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.breaks = Breaks()
        self.connections: list[Connection] = []
        self._opening = asyncio.Semaphore(OPENED_AT_ONCE)
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)

    async def open(self) -> None:
        """One connection more."""
        async with self._opening, asyncio.timeout(STALL):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(b"ECHO\nhello\n")
            await reader.readline()
            self.connections.append((reader, writer))

    async def ask(self, connection: Connection) -> None:
        """A connection that does not answer is broken."""
        reader, writer = connection
        try:
            async with self._asking, asyncio.timeout(STALL):
                writer.write(b"still there?\n")
                if await reader.readline() != b"still there?\n":
                    raise EOFError
        except (OSError, EOFError) as error:
            self.breaks.add(error)
            writer.transport.abort()


async def main() -> None:
    """Open all, rest until standard input ends, ask all, then print the result."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    quiet = Quiet(sys.argv[1], int(sys.argv[2]))
    await asyncio.gather(*(quiet.open() for _ in range(int(sys.argv[3]))))
    ready()
    await until_input_ends()
    await asyncio.gather(*(quiet.ask(connection) for connection in quiet.connections))
    finish({"opened": len(quiet.connections), "breaks": quiet.breaks.list})


if __name__ == "__main__":
    asyncio.run(main())
