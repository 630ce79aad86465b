"""A probe: 1000 times a second a line to a server and back, over one TCP connection.

`python probe.py ADDRESS PORT FILE` stands alone, for a client's namespace. It prints "ready" after the first answer,
ends on SIGTERM, and writes the time of each answer (seconds of the monotonic clock, which all processes share) into
FILE, as 8-byte floats in machine order.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
import time
from array import array

INTERVAL = 0.001
STALLED = 10.0
"""Seconds without an answer that end the probe with an error."""


def probe(address: str, port: int, path: str) -> None:
    """Runs until SIGTERM. Raises OSError or EOFError when the connection breaks or stalls."""
    answers = array("d")
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    gc.disable()
    with socket.create_connection((address, port), STALLED) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.monotonic()
        while not stopped:
            connection.sendall(b"probe\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = connection.recv(256)
                if not part:
                    raise EOFError("the probe's connection was closed")
                answer += part
            now = time.monotonic()
            answers.append(now)
            if len(answers) == 1:
                print("ready", flush=True)
            due = max(due + INTERVAL, now)
            time.sleep(max(0.0, due - time.monotonic()))
    with open(path, "wb") as file:
        answers.tofile(file)


if __name__ == "__main__":
    probe(sys.argv[1], int(sys.argv[2]), sys.argv[3])
