"""Connections that notice what happens to them: `python load.py OPTIONS`, in a client's namespace. Stands alone.

`--lines N`: N connections that stay open, each sending a numbered line every `--interval` and expecting it back.
`--requests N`: N workers that open a connection, make one HTTP request on it, and close it, again and again.
`--bind A,B,...`: local addresses, taken in turn. `--at-least N`: requests that are to succeed before it ends. It prints
"ready" when all long connections have had their first answer, ends on SIGTERM or after `--seconds`, and prints one JSON
object then (see traffic.LoadResult).
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import itertools
import json
import signal
import socket
import struct
import time

CONNECT_TIMEOUT = 20.0
"""Linux sends a SYN again after 1, 3, 7 and 15 s: who was not answered for 5 s may hear of it only then."""
ANSWER_TIMEOUT = 10.0
PATIENCE = 15.0
"""Seconds, after it was stopped, for the requests that are wanted at least."""
SLOW = 0.5
"""Seconds; a request that takes longer counts as slow, whether it succeeds or fails."""
TCP_INFO_TOTAL_RETRANS = 100
"""Offset of tcpi_total_retrans in struct tcp_info (linux/tcp.h)."""


class Load:
    """What all connections of one run share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.addresses = itertools.cycle(options.bind.split(",") if options.bind else [None])
        self.stopped = asyncio.Event()
        self.end = 0.0
        self.long: list[dict] = []
        self.requests = {"succeeded": 0, "slow": 0, "failures": [], "servers": {}, "longest": 0.0}

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = next(self.addresses)
        connecting = asyncio.open_connection(
            self.options.address, self.options.port, local_addr=(address, 0) if address else None
        )
        reader, writer = await asyncio.wait_for(connecting, CONNECT_TIMEOUT)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return reader, writer

    async def one_long(self, number: int, ready: asyncio.Event) -> None:
        """One connection that stays open. Its record says what it saw."""
        record = {"sent": 0, "received": 0, "longest_gap": 0.0, "worst_round_trip": 0.0, "retransmissions": 0}
        record |= {"server": None, "local": None, "error": None}
        self.long.append(record)
        writer = None
        try:
            reader, writer = await self.open()
            record["local"] = list(writer.get_extra_info("sockname")[:2])
            last_answer = time.monotonic()
            while not self.stopped.is_set():
                sent = time.monotonic()
                writer.write(b"%d\n" % record["sent"])
                record["sent"] += 1
                answer = await asyncio.wait_for(reader.readline(), ANSWER_TIMEOUT)
                now = time.monotonic()
                if not answer:
                    raise EOFError
                server, _, line = answer.decode().strip().partition(" ")
                if line != str(record["sent"] - 1):
                    raise ValueError(f"expected line {record['sent'] - 1}, got {answer!r}")
                if record["server"] not in (None, server):
                    raise ValueError(f"server changed from {record['server']} to {server}")
                record["server"] = server
                record["received"] += 1
                record["worst_round_trip"] = max(record["worst_round_trip"], now - sent)
                record["longest_gap"] = max(record["longest_gap"], now - last_answer)
                last_answer = now
                ready.set()
                await self.pause(sent + self.options.interval - now)
        except (OSError, ValueError, EOFError) as error:
            record["error"] = describe(error)
        finally:
            ready.set()
            if writer is not None:
                record["retransmissions"] = total_retransmissions(writer)
                writer.close()

    async def one_worker(self) -> None:
        """Short requests, one after the other."""
        while not self.stopped.is_set() or self.too_few():
            begun = time.monotonic()
            try:
                server = await self.one_request()
                self.requests["succeeded"] += 1
                self.requests["servers"][server] = self.requests["servers"].get(server, 0) + 1
            except (OSError, ValueError, EOFError) as error:
                self.requests["failures"].append(describe(error))
                await self.pause(0.05)
            elapsed = time.monotonic() - begun
            self.requests["slow"] += elapsed > SLOW
            self.requests["longest"] = max(self.requests["longest"], elapsed)
            await self.pause(self.options.interval - elapsed)

    async def one_request(self) -> str:
        reader, writer = await self.open()
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), ANSWER_TIMEOUT)
            head, _, body = answer.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise ValueError(f"answer {answer[:60]!r}")
            return json.loads(body)["server"]
        finally:
            writer.close()

    def too_few(self) -> bool:
        """Whether more requests are wanted though it has been stopped."""
        self.end = self.end or time.monotonic() + PATIENCE
        return self.requests["succeeded"] < self.options.at_least and time.monotonic() < self.end

    async def pause(self, seconds: float) -> None:
        if seconds > 0:
            try:
                await asyncio.wait_for(self.stopped.wait(), seconds)
            except TimeoutError:
                pass

    async def run(self) -> dict:
        """Everything at once, until the end; the result."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopped.set)
        first_answers = [asyncio.Event() for _ in range(self.options.lines)]
        tasks = [asyncio.create_task(self.one_long(i, event)) for i, event in enumerate(first_answers)]
        tasks += [asyncio.create_task(self.one_worker()) for _ in range(self.options.requests)]
        await asyncio.gather(*(event.wait() for event in first_answers))
        print("ready", flush=True)
        await self.pause(self.options.seconds)
        self.stopped.set()
        await asyncio.gather(*tasks)
        return {"long": self.long, "requests": self.requests}


def describe(error: BaseException) -> str:
    """The kind of failure in a word or two: what tests compare."""
    if isinstance(error, ConnectionResetError):
        return "reset"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, EOFError):
        return "closed"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return "unreachable"
    return f"{type(error).__name__}: {error}"


def total_retransmissions(writer: asyncio.StreamWriter) -> int:
    """TCP retransmissions of the connection so far."""
    try:
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    except OSError:
        return 0
    return struct.unpack_from("=I", info, TCP_INFO_TOTAL_RETRANS)[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--lines", type=int, default=0)
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--interval", type=float, default=0.02)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--bind", default="")
    parser.add_argument("--at-least", type=int, default=0)
    print(json.dumps(asyncio.run(Load(parser.parse_args()).run())), flush=True)


if __name__ == "__main__":
    main()
