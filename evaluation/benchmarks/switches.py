"""Simulated switches: what the controller takes for Open vSwitch, on one thread for all of them, over real TCP.

Each speaks as much OpenFlow 1.4 as the controller uses: it shakes hands, keeps the flows that it is given and tells
them when asked (with counters of 0), confirms barriers and bundles, answers echo requests, ARP for servers and the
probes of other LBs. It looks no packet up in its flows: what comes to the controller is for the caller to say. Bytes
are made by hand (OpenFlow 1.4.0), for speed.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Container

from lbctl.frames.packets import arp_question
from lbctl.openflow.cookies import MARK, Kind
from lbctl.openflow.tables import number
from lbctl.values.protocols import ARP_REPLY, ETH_TYPE_ARP, ETH_TYPE_IPV4

VERSION = 5
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, FEATURES_REQUEST, FEATURES_REPLY = 0, 1, 2, 3, 5, 6
PACKET_IN, FLOW_REMOVED, PACKET_OUT, FLOW_MOD, MULTIPART_REQUEST, MULTIPART_REPLY = 10, 11, 13, 14, 18, 19
BARRIER_REQUEST, BARRIER_REPLY, BUNDLE_CONTROL, BUNDLE_ADD = 20, 21, 33, 34
FLOW_STATS, PORT_STATS, PORT_DESCRIPTION = 1, 4, 13
ADD, DELETE, DELETE_STRICT = 0, 3, 4
EXTERNAL, INTERNAL = 1, 2
"""OpenFlow numbers of the ports."""
ALL_TABLES, READ, REPLY_SIZE = 0xFF, 256 * 1024, 60_000
ENTRY_TABLES = (number("access_in"), number("access_out"))

_HEADER = struct.Struct("!BBHI")
_FLOW_MOD = struct.Struct("!QQBB")
_FLOW_REQUEST = struct.Struct("!B15xQQ")
_PACKET_IN = struct.Struct("!BBHIIHBBQHHIIxxxxxx")
_FLOW = struct.Struct("!HBxIIHHHHHxxQQQ")
_PORT = struct.Struct("!IH2x6s2x16sIIHH4xIIIIII")

PacketOut = Callable[["SimulatedSwitch", bytes], None]
"""Is told of every IP frame, and of every gratuitous ARP request, that the controller has sent out by a switch."""


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """A whole OpenFlow message."""
    return _HEADER.pack(VERSION, kind, 8 + len(body), xid) + body


def packet_in(kind: Kind, port: int, frame: bytes) -> bytes:
    """A frame that a flow of that kind shows to the controller (OpenFlow 1.4.0 7.4.1)."""
    return (
        _PACKET_IN.pack(
            VERSION,
            PACKET_IN,
            42 + len(frame),
            0,
            0xFFFFFFFF,
            len(frame),
            1,
            0,
            MARK << 56 | kind << 48,
            1,
            12,
            0x80000004,
            port,
        )
        + frame
    )


class SimulatedSwitch:
    """One LB, connected to a controller. `number` is in its dpid, its MACs, and the names of its ports.

    packet_out: see PacketOut. silent: MACs that nobody answers at any more. entry_mods: flow-mods that have added
    entries' flows.
    """

    def __init__(self, number: int, packet_out: PacketOut, silent: Container[bytes] = ()) -> None:
        self.number = number
        self.entry_mods = 0
        self.socket = socket.socket()
        self._packet_out, self._silent = packet_out, silent
        self._rest = b""
        self._out: list[bytes] = []
        self._flows: dict[int, dict[int, dict[bytes, bytes]]] = {}
        """Table -> cookie -> priority and match -> match and instructions."""
        self._cookies: dict[tuple[int, bytes], int] = {}
        """Table, priority and match -> the cookie of the flow that is there, or was."""
        self._by_kind = {
            ECHO_REQUEST: lambda xid, body: self._answer(ECHO_REPLY, xid, body),
            FEATURES_REQUEST: self._features,
            MULTIPART_REQUEST: self._multipart,
            BARRIER_REQUEST: lambda xid, _: self._answer(BARRIER_REPLY, xid),
            FLOW_MOD: self._flow_mod,
            BUNDLE_ADD: lambda _, body: self._flow_mod(0, body[16:]),
            PACKET_OUT: self._packet,
            BUNDLE_CONTROL: self._bundle,
        }

    def connect(self, address: tuple[str, int]) -> None:
        """Raises OSError."""
        self.socket.connect(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.send(message(HELLO, 0))

    def mac(self, port: int) -> bytes:
        return bytes((2, 0, port)) + self.number.to_bytes(3)

    def send(self, data: bytes) -> None:
        """What the socket does not take goes with the next message. Raises OSError."""
        if self._out:
            data = b"".join((*self._out, data))
            self._out.clear()
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._out.append(data[sent:])

    def receive(self) -> None:
        """Reads what has come, and answers it. Raises OSError when the controller has closed the connection."""
        data = self.socket.recv(READ)
        if not data:
            raise ConnectionError(f"the controller has closed the connection of switch {self.number}")
        data, offset = self._rest + data, 0
        end, by_kind = len(data), self._by_kind
        while offset + 8 <= end:
            _, kind, length, xid = _HEADER.unpack_from(data, offset)
            if offset + length > end:
                break
            if handler := by_kind.get(kind):
                handler(xid, data[offset + 8 : offset + length])
            offset += length
        self._rest = data[offset:]
        if self._out:
            self.send(b"")

    def _answer(self, kind: int, xid: int, body: bytes = b"") -> None:
        self._out.append(message(kind, xid, body))

    def _features(self, xid: int, _: bytes) -> None:
        self._answer(FEATURES_REPLY, xid, struct.pack("!QIBB2xII", self.number, 0, 254, 0, 0x4F, 0))

    def _bundle(self, xid: int, body: bytes) -> None:
        bundle, kind, flags = struct.unpack_from("!IHH", body)
        self._answer(BUNDLE_CONTROL, xid, struct.pack("!IHH", bundle, kind + 1, flags))

    def _multipart(self, xid: int, body: bytes) -> None:
        kind = struct.unpack_from("!H", body)[0]
        if kind == PORT_DESCRIPTION:
            self._parts(
                xid,
                kind,
                [
                    _PORT.pack(
                        port, 72, self.mac(port), f"{port}-{self.number}".encode(), 0, 4, 0, 32, 0, 0, 0, 0, 0, 0
                    )
                    for port in (EXTERNAL, INTERNAL)
                ],
            )
        elif kind == PORT_STATS:
            self._parts(xid, kind, [struct.pack("!H2xI", 80, port) + bytes(72) for port in (EXTERNAL, INTERNAL)])
        elif kind == FLOW_STATS:
            self._parts(xid, kind, self._flow_stats(*_FLOW_REQUEST.unpack_from(body, 8)))
        else:
            self._parts(xid, kind, [])

    def _parts(self, xid: int, kind: int, records: list[bytes]) -> None:
        """A multipart reply, in as many messages as it takes."""
        part: list[bytes] = []
        size = 0
        for record in records:
            if size + len(record) > REPLY_SIZE:
                self._answer(MULTIPART_REPLY, xid, struct.pack("!HH4x", kind, 1) + b"".join(part))
                part, size = [], 0
            part.append(record)
            size += len(record)
        self._answer(MULTIPART_REPLY, xid, struct.pack("!HH4x", kind, 0) + b"".join(part))

    def _flow_stats(self, table: int, cookie: int, mask: int) -> list[bytes]:
        found = []
        for place in [table] if table != ALL_TABLES else self._flows:
            cookies = self._flows.get(place, {})
            if mask == 0xFFFFFFFFFFFFFFFF:
                chosen = [cookie] if cookie in cookies else []
            else:
                chosen = [each for each in cookies if each & mask == cookie & mask]
            for each in chosen:
                found += [
                    _FLOW.pack(48 + len(tail), place, 0, 0, int.from_bytes(key[:2]), 0, 0, 1, 0, each, 0, 0) + tail
                    for key, tail in cookies[each].items()
                ]
        return found

    def _flow_mod(self, _: int, body: bytes) -> None:
        cookie, mask, table, command = _FLOW_MOD.unpack_from(body)
        cookies = self._flows.setdefault(table, {})
        if command == DELETE:
            for each in [each for each in cookies if each & mask == cookie & mask]:
                del cookies[each]
            return
        place = body[22:24] + body[40 : 40 + int.from_bytes(body[42:44])]
        if command == ADD:
            if (before := self._cookies.get((table, place), cookie)) != cookie:
                cookies.get(before, {}).pop(place, None)
            self._cookies[table, place] = cookie
            cookies.setdefault(cookie, {})[place] = body[40:]
            self.entry_mods += table in ENTRY_TABLES
        elif cookie in cookies:
            cookies[cookie].pop(place, None)

    def _packet(self, _: int, body: bytes) -> None:
        frame = body[16 + int.from_bytes(body[8:10]) :]
        ether_type = int.from_bytes(frame[12:14])
        if ether_type == ETH_TYPE_IPV4 or ether_type == ETH_TYPE_ARP and frame[28:32] == frame[38:42]:
            self._packet_out(self, frame)
        elif ether_type == ETH_TYPE_ARP and frame[:6] not in self._silent:
            self._out.append(self._arp_answer(frame, int.from_bytes(body[20:24])))

    def _arp_answer(self, frame: bytes, port: int) -> bytes:
        """What comes back for an ARP request that was sent out of that port.

        It is a server's answer, or another LB's to a probe, whose target is a number (openflow/probe_rules.py).
        """
        asker, sender, target = frame[22:28], frame[28:32], frame[38:42]
        probe = target[0] == 0
        answer = bytearray(arp_question(frame[:6], asker, sender, asker, target) if probe else
                           arp_question(b"\2\3" + target, asker, target, asker, sender))
        answer[20:22] = ARP_REPLY.to_bytes(2)
        return packet_in(Kind.PROBED if probe else Kind.SERVER_ARP, port, bytes(answer))
