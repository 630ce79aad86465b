"""The library's connection to a switch, with less work for each message.

The library reads every message with two system calls, parses it in full (15 to 180 us), copies what is left of its
buffer, and sends each answer through a queue and another green thread. Here one read takes what is there, messages that
come often go to one function as bytes, and all answers to one read leave in one write.

Other apps in the same process don't see those messages: lbctl is the only app that may control its LBs.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections import deque
from collections.abc import Callable
from socket import SO_RCVBUF, SOL_SOCKET
from socket import socket as Socket

from ryu_apps.library.names import DEAD_DISPATCHER, Datapath, controller, hub, ofp, ofp_msg_to_ev, ofproto_parser
from ryu_apps.shell.threads import Turn
from ryu_apps.shell.wire import BARRIER_REPLY, BUNDLE_CONTROL, ERROR, FLOW_REMOVED, MULTIPART_REPLY, PACKET_IN

RAW = frozenset({ERROR, PACKET_IN, FLOW_REMOVED, BARRIER_REPLY, BUNDLE_CONTROL})
STATISTICS = b"\x00\x01", b"\x00\x09"
"""Of flows and of meters: the types of multipart replies that the core decodes."""
OPENFLOW = ofp.OFP_VERSION

READ = 64 * 1024
"""Bytes at once."""
UNREAD = 128 * 1024
"""Bytes that may wait in the socket (Linux doubles it, for its own bookkeeping). Beyond that they wait in Open vSwitch,
which drops packets when it has 100, rather than here for seconds, while others' packets and all answers wait behind
them."""
UNSENT = 256 * 1024
"""Bytes that may wait for the socket before the sender shall wait."""

_HEADER = struct.Struct("!BBHI")

Handler = Callable[["LeanDatapath", int, int, bytes], None]
"""(datapath, message type, xid, whole message)"""


def _nobody(datapath: LeanDatapath, kind: int, xid: int, message: bytes) -> None:
    """Before `install` there is nobody to tell."""


class LeanDatapath(Datapath):
    """Takes the place of the library's Datapath: see `install`."""

    handler: Handler = staticmethod(_nobody)

    def __init__(self, socket: Socket, address: tuple[str, int]) -> None:
        self._unsent: deque[bytes] = deque()
        self._unsent_size = 0
        self._corked = False
        self._wake = hub.Event()
        self._idle = hub.Event()
        self._last = False
        socket.setsockopt(SOL_SOCKET, SO_RCVBUF, UNREAD)
        super().__init__(socket, address)

    # Sending.

    @property
    def busy(self) -> bool:
        """Is so much waiting for the socket that the sender shall wait, too?"""
        return self._unsent_size > UNSENT

    def wait_idle(self) -> None:
        """Waits, in the caller's green thread, until nothing is waiting for the socket."""
        while self._wake.is_set() and self.state != DEAD_DISPATCHER:
            self._idle.clear()
            self._idle.wait()

    def send(self, buf: bytes | bytearray, close_socket: bool = False) -> bool:
        """What the library sends. Never waits."""
        self._last = self._last or close_socket
        self.add(bytes(buf))
        self.flush()
        return self.state != DEAD_DISPATCHER

    def add(self, buf: bytes) -> None:
        """Leaves with the next flush, after what was added before; nothing does from a connection that has ended."""
        if self.state != DEAD_DISPATCHER:
            self._unsent.append(buf)
            self._unsent_size += len(buf)

    def flush(self) -> None:
        """Never waits: what waits leaves at once, unless a read is being answered; then it leaves with the answers."""
        if not self._corked:
            self._flush()

    def _flush(self) -> None:
        """One write for all that waits, if the socket takes it; else the send loop goes on with it."""
        if self._wake.is_set() or not self._unsent:
            return
        data = b"".join(self._unsent)
        self._unsent.clear()
        raw = getattr(self.socket, "fd", None)
        if raw is not None and not self._last:
            try:
                data = data[raw.send(data):]
            except BlockingIOError:
                pass
            except OSError:
                data = b""  # the connection is lost: the receive loop finds out
        self._unsent_size = len(data)
        if data:
            self._unsent.append(data)
            self._wake.set()

    def _send_loop(self) -> None:
        """While `_wake` is set, only this loop writes to the socket."""
        try:
            while self.state != DEAD_DISPATCHER:
                self._wake.wait()
                while self._unsent:
                    data = self._unsent.popleft()
                    self.socket.sendall(data)
                    self._unsent_size -= len(data)
                self._wake.clear()
                self._idle.set()
                if self._last:
                    break
        except OSError:
            pass
        finally:
            self._unsent.clear()
            self._idle.set()
            self.send_q = None
            self._close_write()

    # Receiving.

    def _recv_loop(self) -> None:
        try:
            self._receive()
        finally:
            with contextlib.suppress(OSError):
                self.socket.close()

    def _receive(self) -> None:
        rest = b""
        while self.state != DEAD_DISPATCHER:
            try:
                data = self.socket.recv(READ)
            except (TimeoutError, ssl.SSLError):
                continue
            except (EOFError, OSError):
                break
            if not data:
                break
            self.unreplied_echo_requests.clear()  # whatever it says, it lives: its reply may wait behind much else
            self._corked = True
            rest = self._messages(rest + data)
            self._corked = False
            self._flush()
            if len(data) == READ:
                hub.sleep(0)  # a switch that has always more to say must not keep the others waiting

    def _give_way(self, seconds: float) -> None:
        """What has been answered until now leaves, and others run."""
        self._corked = False
        self._flush()
        hub.sleep(seconds)
        self._corked = True

    def _messages(self, data: bytes) -> bytes:
        """Takes each whole message; returns what is left."""
        turn = Turn(self._give_way)
        offset, end = 0, len(data)
        while offset + _HEADER.size <= end and self.state != DEAD_DISPATCHER:
            version, kind, length, xid = _HEADER.unpack_from(data, offset)
            length = max(length, _HEADER.size)
            if offset + length > end:
                break
            message = data[offset:offset + length]
            offset += length
            often = kind in RAW or kind == MULTIPART_REPLY and message[8:10] in STATISTICS
            if often and version == OPENFLOW:
                self.handler(self, kind, xid, message)
            else:
                self._to_library(version, kind, length, xid, message)
            turn.pause()
        return data[offset:]

    def _to_library(self, version: int, kind: int, length: int, xid: int, message: bytes) -> None:
        """As the library's own receive loop does: to the apps that observe it, and to the library's own handlers."""
        parsed = ofproto_parser.msg(self, version, kind, length, xid, bytearray(message))
        if not parsed or self.ofp_brick is None:
            return
        event = ofp_msg_to_ev(parsed)
        self.ofp_brick.send_event_to_observers(event, self.state)
        for handler in list(self.ofp_brick.get_handlers(event)):
            if self.state in handler.callers[event.__class__].dispatchers:
                handler(event)


def install(handler: Handler) -> None:
    """From now on every switch is connected by a LeanDatapath, and `handler` gets what comes often."""

    def serve(socket: Socket, address: tuple[str, int]) -> None:
        with contextlib.closing(LeanDatapath(socket, address)) as datapath:
            datapath.serve()

    LeanDatapath.handler = staticmethod(handler)
    controller.datapath_connection_factory = serve
