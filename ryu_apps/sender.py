"""One sender for each switch: messages leave in order, and no event handler ever waits for a socket."""

from __future__ import annotations

from collections import deque

from ryu.lib import hub

from lbctl.openflow.entry_codec import EntryCodec
from lbctl.openflow.messages import Message
from ryu_apps.datapath import LeanDatapath
from ryu_apps.openflow import encode

MAX_QUEUED = 200_000
"""Messages. A switch that is this far behind is disconnected: it is read back when it returns."""


class Sender:
    """Encodes late, so that a long queue costs little memory and the event loop turns in between."""

    def __init__(self, datapath: LeanDatapath, codec: EntryCodec, spawn) -> None:
        self._datapath = datapath
        self._codec = codec
        self._queue: deque[Message] = deque()
        self._wake = hub.Event()
        self._thread = spawn(self._loop)

    def send(self, message: Message) -> bool:
        """False if the queue is full: the switch has been disconnected."""
        if not self._queue and not self._datapath.busy:
            self._datapath.send(encode(message, self._codec))
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
            while self._queue:
                self._datapath.wait_idle()
                while self._queue and not self._datapath.busy:
                    self._datapath.send(encode(self._queue[0], self._codec))
                    self._queue.popleft()
                hub.sleep(0)
