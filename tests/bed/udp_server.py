"""A UDP server that says who it is: `python udp_server.py NAME PORT[@ADDRESS]...`, in a server's namespace. Stands
alone.

A datagram is answered with `NAME DATAGRAM`, but not one that begins with "-". It prints "ready" once all ports are
open.
"""

from __future__ import annotations

import selectors
import socket
import sys


def serve(name: str, ports: list[str]) -> None:
    """For ever."""
    ready = selectors.DefaultSelector()
    for place in ports:
        port, _, address = place.partition("@")
        plug = socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET, socket.SOCK_DGRAM)
        plug.bind((address, int(port)))
        ready.register(plug, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in ready.select():
            datagram, sender = key.fileobj.recvfrom(65536)
            if not datagram.startswith(b"-"):
                key.fileobj.sendto(name.encode() + b" " + datagram, sender)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
