"""The server of transfers and of quiet connections. The first line of a connection says what it is for.

    python -m evaluation.demonstration.loads.transfer_server PORT

`DOWN RATE`: sends the pattern for ever, at RATE bytes/s. `UP`: takes the pattern, and closes at the first wrong byte;
at the end answers the number of bytes. `ECHO`: sends lines back.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sys

from evaluation.lab_traffic.inside import chunk, matches, pace, ready, until_input_ends

PIECE = 16384


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    with contextlib.suppress(OSError, EOFError):
        command, *arguments = (await reader.readline()).decode().split() or [""]
        if command == "DOWN":
            await _down(writer, int(arguments[0]))
        elif command == "UP":
            await _up(reader, writer)
        elif command == "ECHO":
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
    writer.close()


async def _down(writer: asyncio.StreamWriter, rate: int) -> None:
    pace(writer.get_extra_info("socket"), rate)
    # Little ahead of the pace, so that the transfer's end is not far behind the sender's idea of it.
    writer.transport.set_write_buffer_limits(high=PIECE)
    offset = 0
    while True:
        writer.write(chunk(offset, PIECE))
        offset += PIECE
        await writer.drain()


async def _up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    offset = 0
    while data := await reader.read(PIECE):
        if not matches(data, offset):
            return
        offset += len(data)
    writer.write(f"{offset}\n".encode())
    await writer.drain()


async def main() -> None:
    """Serve until killed, or until standard input ends."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    async with await asyncio.start_server(serve, "", int(sys.argv[1]), backlog=4096):
        ready()
        await until_input_ends()


if __name__ == "__main__":
    asyncio.run(main())
