"""One sender for each switch: messages leave in order, and no event handler ever waits for a socket."""

from __future__ import annotations

from collections import deque

from ryu.controller.controller import Datapath
from ryu.lib import hub

from lbctl.messages import Message
from lbctl.openflow.entries import EntryCodec
from ryu_apps.openflow import encode

MAX_QUEUED = 200_000
"""Messages. A switch that is this far behind is disconnected: it is read back when it returns."""
BATCH = 64 * 1024
"""Bytes handed to Ryu at once."""


class Sender:
    """Encodes late, so that a long queue costs little memory and the event loop turns between batches."""

    def __init__(self, datapath: Datapath, codec: EntryCodec, spawn) -> None:
        self._datapath = datapath
        self._codec = codec
        self._queue: deque[Message] = deque()
        self._sending = False
        self._wake = hub.Event()
        self._thread = spawn(self._loop)

    def send(self, message: Message) -> bool:
        """False if the queue is full: the switch has been disconnected."""
        queue = self._datapath.send_q
        if not self._queue and not self._sending and queue is not None and not queue.full():
            self._datapath.send(encode(self._datapath, message, self._codec))
            return True
        if len(self._queue) >= MAX_QUEUED:
            self._datapath.close()
            return False
        self._queue.append(message)
        self._wake.set()
        return True

    def use(self, codec: EntryCodec) -> None:
        self._codec = codec

    def stop(self) -> None:
        self._queue.clear()
        hub.kill(self._thread)

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._sending = True
            while self._queue:
                batch, size = [], 0
                while self._queue and size < BATCH:
                    data = encode(self._datapath, self._queue.popleft(), self._codec)
                    batch.append(data)
                    size += len(data)
                self._datapath.send(b"".join(batch))
            self._sending = False
