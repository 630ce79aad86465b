"""Answers each request of the probe at once, with TCP's own account of the server's side.

python -m evaluation.demonstration.loads.probe_server PORT
"""

from __future__ import annotations

import selectors
import socket
import sys

from evaluation.demonstration.loads.probe import ANSWER, REQUEST
from evaluation.lab_traffic.inside import prefer, ready, tcp_info


class Peer:
    """One probe's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""

    def answer(self) -> None:
        """Answer all complete requests. Raises OSError or EOFError when the connection is over."""
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        data = self.rest + data
        complete = len(data) - len(data) % REQUEST.size
        self.rest = data[complete:]
        info = tcp_info(self.sock)
        answers = [ANSWER.pack(*request, *info) for request in REQUEST.iter_unpack(data[:complete])]
        self.sock.sendall(b"".join(answers))


def main() -> None:
    """Serve until killed, or until standard input ends."""
    prefer()
    selector = selectors.DefaultSelector()
    with socket.create_server(("", int(sys.argv[1])), backlog=64) as listener:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        ready()
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    sock, _ = listener.accept()
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_READ, Peer(sock))
                    continue
                try:
                    key.data.answer()
                except (OSError, EOFError):
                    selector.unregister(key.fileobj)
                    key.data.sock.close()


if __name__ == "__main__":
    main()
