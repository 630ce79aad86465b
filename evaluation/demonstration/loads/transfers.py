"""Long downloads and uploads: paced, checked byte by byte, watched for standstill. One that breaks is begun anew.

python -m evaluation.demonstration.loads.transfers ADDRESS PORT DOWNLOADS UPLOADS RATE
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time

from evaluation.lab_traffic.inside import STALL, Breaks, chunk, finish, matches, pace, ready, until_input_ends

PIECE = 16384


class Transfers:
    """All transfers of the program. `rate`: bytes/s of each."""

    def __init__(self, host: str, port: int, rate: int) -> None:
        self.host, self.port, self.rate = host, port, rate
        self.breaks = Breaks()
        self.opened = 0
        self.bytes = 0
        self.longest_pause = 0.0
        self.wrong_bytes = 0

    async def keep(self, download: bool) -> None:
        """One transfer after the other, each until it breaks."""
        while True:
            try:
                await (self._download() if download else self._upload())
            except (OSError, EOFError) as error:
                self.breaks.add(error)
                await asyncio.sleep(0.2)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(STALL):
            connection = await asyncio.open_connection(self.host, self.port)
        self.opened += 1
        return connection

    async def _download(self) -> None:
        reader, writer = await self._connect()
        try:
            writer.write(f"DOWN {self.rate}\n".encode())
            offset, last = 0, time.monotonic()
            while True:
                async with asyncio.timeout(STALL):
                    data = await reader.read(PIECE)
                if not data:
                    raise EOFError
                self.wrong_bytes += not matches(data, offset)
                offset += len(data)
                last = self._progress(len(data), last)
        finally:
            writer.transport.abort()

    async def _upload(self) -> None:
        reader, writer = await self._connect()
        try:
            writer.transport.set_write_buffer_limits(high=PIECE)
            sock = writer.get_extra_info("socket")
            # A small buffer: what is written has nearly been sent, so that a standstill shows at once.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * PIECE)
            pace(sock, self.rate)
            writer.write(b"UP\n")
            offset, last = 0, time.monotonic()
            while not reader.at_eof():
                writer.write(chunk(offset, PIECE))
                async with asyncio.timeout(STALL):
                    await writer.drain()
                offset += PIECE
                last = self._progress(PIECE, last)
            raise EOFError
        finally:
            writer.transport.abort()

    def _progress(self, size: int, last: float) -> float:
        now = time.monotonic()
        self.bytes += size
        self.longest_pause = max(self.longest_pause, now - last)
        return now


async def main() -> None:
    """Transfer until standard input ends, then print the result."""
    host, port, downloads, uploads, rate = sys.argv[1], *map(int, sys.argv[2:6])
    transfers = Transfers(host, port, rate)
    running = [asyncio.create_task(transfers.keep(n < downloads)) for n in range(downloads + uploads)]
    while transfers.opened < len(running):
        await asyncio.sleep(0.05)
    ready()
    await until_input_ends()
    finish(
        {
            "opened": transfers.opened,
            "breaks": transfers.breaks.list,
            "bytes": transfers.bytes,
            "wrong_bytes": transfers.wrong_bytes,
            "longest_pause": transfers.longest_pause,
        }
    )


if __name__ == "__main__":
    asyncio.run(main())
