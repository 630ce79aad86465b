"""DNS clients that notice a lost answer: `python dns_load.py ADDRESS NAME OPTIONS`, in a client's namespace. Stands
alone.

`--steady N`: N clients that keep their port; `--changing N`: N clients that take another port for each query. Each
asks for the TXT record of NAME every `--interval` seconds and never asks twice. It prints "ready" when every client
has had an answer, ends on SIGTERM, and prints one JSON object then (see dns.DnsResult).
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import threading
import time

TIMEOUT = 3.0
TXT, IN = 16, 1


class Lost(Exception):
    """A query without its answer."""


def query(number: int, name: str) -> bytes:
    """RFC 1035 4.1: one question, recursion desired."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, TXT, IN)


def text_of(answer: bytes, asked: bytes) -> str:
    """The text of the first record. Raises Lost if it answers another question."""
    number, flags, _, answers = struct.unpack_from("!HHHH", answer)
    if not flags & 0x8000 or flags & 15 or answers < 1 or answer[12:len(asked)] != asked[12:]:
        raise Lost(f"answer {answer[:40]!r}")
    start = len(asked) + 12  # a compressed name, type, class, TTL, length
    return answer[start + 1:start + 1 + answer[start]].decode()


class Clients:
    """What all clients of one run share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        self.result = {"asked": 0, "failures": [], "servers": {}, "longest": 0.0, "changed": 0}
        self.waiting = options.steady + options.changing
        self.ready = threading.Event()

    def run(self, steady: bool) -> None:
        plug, number, before = self.open(), 0, None
        while not self.stopped.is_set():
            number = number % 65535 + 1
            begun = time.monotonic()
            try:
                server, failure = self.ask(plug, number), None
            except (OSError, Lost) as error:
                server, failure = None, f"{type(error).__name__}: {error}"
            self.note(server, failure, time.monotonic() - begun, number == 1)
            if steady and before and server and server != before:
                self.result["changed"] += 1
            before = server or before
            if not steady:
                plug.close()
                plug = self.open()
            self.stopped.wait(self.options.interval - (time.monotonic() - begun))

    def open(self) -> socket.socket:
        plug = socket.socket(socket.AF_INET6 if ":" in self.options.address else socket.AF_INET, socket.SOCK_DGRAM)
        plug.connect((self.options.address, self.options.port))
        return plug

    def ask(self, plug: socket.socket, number: int) -> str:
        asked = query(number, self.options.name)
        plug.send(asked)
        deadline = time.monotonic() + TIMEOUT
        while (left := deadline - time.monotonic()) > 0:
            plug.settimeout(left)
            answer = plug.recv(4096)
            if answer[:2] == asked[:2]:
                return text_of(answer, asked)
        raise Lost("no answer")

    def note(self, server: str | None, failure: str | None, took: float, first: bool) -> None:
        with self.lock:
            result = self.result
            result["asked"] += 1
            result["longest"] = max(result["longest"], took)
            if failure:
                result["failures"].append(failure)
            else:
                result["servers"][server] = result["servers"].get(server, 0) + 1
            if first:
                self.waiting -= 1
                if not self.waiting:
                    self.ready.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--steady", type=int, default=4)
    parser.add_argument("--changing", type=int, default=2)
    parser.add_argument("--interval", type=float, default=0.02)
    clients = Clients(parser.parse_args())
    signal.signal(signal.SIGTERM, lambda *_: clients.stopped.set())
    kinds = [True] * clients.options.steady + [False] * clients.options.changing
    threads = [threading.Thread(target=clients.run, args=(steady,)) for steady in kinds]
    for thread in threads:
        thread.start()
    clients.ready.wait()
    print("ready", flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(clients.result))


if __name__ == "__main__":
    main()
