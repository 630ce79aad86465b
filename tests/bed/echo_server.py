"""A TCP server that says who it is: `python echo_server.py NAME PORT...`, in a server's namespace. Stands alone.

Lines are answered with `NAME LINE`; HTTP/1.1 requests with JSON {"server", "client": [address, port], "port",
"received"}, where `received` counts the bytes of the body; GET /bytes/N with N bytes. It prints "ready" once all
ports listen. SIGUSR1: it forgets its connections, and nothing of them stays in its kernel.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import socket
import struct
import sys
from typing import ClassVar

CHUNK = b"x" * 65536
AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: a socket that is closed sends RST, and is gone."""


class Answering(asyncio.Protocol):
    """One connection: HTTP if it begins so, else lines."""

    here: ClassVar[set[asyncio.Transport]] = set()
    """All of this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.buffer = b""
        self.body_left = 0
        self.body_size = 0
        self.bytes_to_send = 0
        self.writable = True
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.here.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        self.here.discard(self.transport)

    @classmethod
    def forget_all(cls) -> None:
        """As if there had never been a connection."""
        for transport in tuple(cls.here):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.body_left:
            used = min(self.body_left, len(data))
            self.body_left -= used
            data = data[used:]
            if self.body_left:
                return
            self.answer_json()
        self.buffer += data
        while self.buffer and not self.body_left and self.take_one():
            pass

    def take_one(self) -> bool:
        """Answer the first request or line in the buffer; False if it is not whole yet."""
        if self.buffer[:4] in (b"GET ", b"POST", b"PUT ", b"HEAD"):
            head, separator, rest = self.buffer.partition(b"\r\n\r\n")
            if not separator:
                return False
            self.buffer = rest
            self.answer_request(head.decode("latin-1").split("\r\n"))
            return True
        line, separator, rest = self.buffer.partition(b"\n")
        if not separator:
            return False
        self.buffer = rest
        self.transport.write(self.name.encode() + b" " + line + b"\n")
        return True

    def answer_request(self, head: list[str]) -> None:
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
        path = head[0].split(" ")[1]
        self.closing = headers.get("connection", "").lower() == "close"
        self.body_size = int(headers.get("content-length", 0))
        if path.startswith("/bytes/"):
            self.bytes_to_send = int(path.rpartition("/")[2])
            self.write_head(self.bytes_to_send)
            self.resume_writing()
            return
        self.body_left = max(0, self.body_size - len(self.buffer))
        self.buffer = self.buffer[self.body_size :]
        if not self.body_left:
            self.answer_json()

    def answer_json(self) -> None:
        client, local = self.transport.get_extra_info("peername"), self.transport.get_extra_info("sockname")
        answer = {"server": self.name, "client": list(client[:2]), "port": local[1], "received": self.body_size}
        body = json.dumps(answer).encode()
        self.write_head(len(body))
        self.transport.write(body)
        self.close_if_asked()

    def write_head(self, length: int) -> None:
        self.transport.write(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nX-Server: {self.name}\r\n\r\n".encode())

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        was_sending = self.bytes_to_send > 0
        while self.bytes_to_send and self.writable:
            chunk = CHUNK[: self.bytes_to_send]
            self.bytes_to_send -= len(chunk)
            self.transport.write(chunk)
        if was_sending and not self.bytes_to_send:
            self.close_if_asked()

    def close_if_asked(self) -> None:
        if self.closing:
            self.transport.close()

    def eof_received(self) -> bool:
        return False


async def serve(name: str, ports: list[int]) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, Answering.forget_all)
    for port in ports:
        await loop.create_server(lambda: Answering(name), "::" if ":" in name else "0.0.0.0", port, backlog=4096)
    print("ready", flush=True)
    await stopped.wait()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(serve(sys.argv[1], [int(port) for port in sys.argv[2:]]))
