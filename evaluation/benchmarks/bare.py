"""The yardstick of capacity: answers each packet-in by two flow-mods and a packet-out of constant bytes.

It is a program that listens on 127.0.0.1 port 6653, on one thread, without decision, table or event library.
"""

from __future__ import annotations

import select
import socket

from evaluation.benchmarks.switches import FLOW_MOD, HELLO, PACKET_IN, PACKET_OUT, READ, message
from lbctl.openflow.tables import number

MOD = message(FLOW_MOD, 0, bytes(16) + bytes((number("access_in"), 0)) + bytes(126))
"""As long as an entry's flow-mod."""
FRAME = 42
"""Where the frame starts in a packet-in of a simulated switch."""


def main() -> None:
    """Until it is ended."""
    poll, listener = select.epoll(), socket.create_server(("127.0.0.1", 6653), backlog=512)
    poll.register(listener, select.EPOLLIN)
    switches: dict[int, socket.socket] = {}
    rests: dict[int, bytes] = {}
    while True:
        for handle, _ in poll.poll():
            if handle == listener.fileno():
                switch, _ = listener.accept()
                switch.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                switches[switch.fileno()], rests[switch.fileno()] = switch, b""
                poll.register(switch, select.EPOLLIN)
                switch.sendall(message(HELLO, 0))
            elif data := switches[handle].recv(READ):
                rests[handle] = _answer(switches[handle], rests[handle] + data)
            else:
                poll.unregister(handle)
                switches.pop(handle).close()


def _answer(switch: socket.socket, data: bytes) -> bytes:
    """Answers whole messages; returns what is left."""
    offset, out = 0, []
    while offset + 8 <= len(data) and offset + (length := int.from_bytes(data[offset + 2 : offset + 4])) <= len(data):
        if data[offset + 1] == PACKET_IN:
            out += [
                MOD,
                MOD,
                message(PACKET_OUT, 0, bytes(8) + b"\0\x10" + bytes(22) + data[offset + FRAME : offset + length]),
            ]
        offset += length
    switch.sendall(b"".join(out))
    return data[offset:]


if __name__ == "__main__":
    main()
