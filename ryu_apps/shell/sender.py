"""One sender for each switch: messages leave in order, and no event handler ever waits for a socket."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from lbctl.openflow.messages import Message
from lbctl.openflow.outbound import EntryCodec
from ryu_apps.shell.threads import Threads

MAX_QUEUED = 200_000
"""Messages. A switch that is this far behind is disconnected: it is read back when it returns."""

Encode = Callable[[Message, EntryCodec], bytes]
"""A message as one or more whole OpenFlow messages."""


class SwitchConnection(Protocol):
    """A switch's OpenFlow connection."""

    @property
    def busy(self) -> bool:
        """Is so much waiting for the socket that the sender shall wait, too?"""
        ...

    def add(self, buf: bytes) -> None:
        """Leaves with the next flush, after what was added before."""

    def flush(self) -> None:
        """Never waits: what the socket does not take at once leaves when it does."""

    def wait_idle(self) -> None:
        """Waits, in the caller's green thread, until nothing is waiting for the socket."""

    def close(self) -> None:
        """Ends it; Events.lost is called as for any other end."""


class Sender:
    """Encodes late, so that a long queue costs little memory and the event loop turns in between."""

    def __init__(self, connection: SwitchConnection, encode: Encode, codec: EntryCodec, threads: Threads) -> None:
        self._connection = connection
        self._encode = encode
        self._codec = codec
        self._threads = threads
        self._queue: deque[Message] = deque()
        self._wake = threads.event()
        self._thread = threads.spawn(self._loop)

    def send(self, message: Message) -> bool:
        """It leaves with the next flush. False if the queue is full: the switch has been disconnected."""
        if not self._queue and not self._connection.busy:
            self._connection.add(self._encode(message, self._codec))
            return True
        if len(self._queue) >= MAX_QUEUED:
            self._connection.close()
            return False
        self._queue.append(message)
        self._wake.set()
        return True

    def flush(self) -> None:
        """What has been sent leaves, in one write if the socket takes it."""
        self._connection.flush()

    def use(self, codec: EntryCodec) -> None:
        """For all that is encoded from now on."""
        self._codec = codec

    def stop(self) -> None:
        """What has not been sent is dropped."""
        self._queue.clear()
        self._threads.kill(self._thread)

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._connection.wait_idle()
                while self._queue and not self._connection.busy:
                    self._connection.add(self._encode(self._queue[0], self._codec))
                    self._queue.popleft()
                self._connection.flush()
                self._threads.sleep(0)
