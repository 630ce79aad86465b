"""A switch in memory: it applies the core's messages, runs frames through its tables, and answers in OpenFlow bytes.

It knows nothing of the core's plans. Its bytes are packed by hand from the OpenFlow 1.4.0 text, so that the core's
decoders meet something else than themselves. Time is passed in; nothing happens by itself.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from lbctl import messages as m
from lbctl.access_table import KEY
from lbctl.pipeline.entries import entry_flows
from lbctl.pipeline.flow import Action, FinTimeout, Flow, Move, Output, Resubmit, SetField, Simple
from lbctl.pipeline.tables import TABLES, number
from lbctl.switch import PortState

FIN_OR_RST = 0x05
PLACES = {"eth_dst": (0, 6), "eth_src": (6, 6), "eth_type": (12, 2), "ip_ttl": (22, 1), "ip_proto": (23, 1), "ipv4_src": (26, 4),
          "ipv4_dst": (30, 4), "tcp_src": (34, 2), "tcp_dst": (36, 2), "arp_op": (20, 2), "arp_sha": (22, 6),
          "arp_spa": (28, 4), "arp_tha": (32, 6), "arp_tpa": (38, 4)}
"""Where a field is in an untagged frame without IP options, and how many bytes it has."""


class Sent(NamedTuple):
    """A frame that left by a port."""

    port: int
    frame: bytes


class Event(NamedTuple):
    """What the switch tells the controller: the name of the ControlFunction method, and its arguments."""

    name: str
    arguments: tuple


@dataclass(slots=True)
class Installed:
    """A flow in a table; times in seconds, `idle` is 0 until fin_timeout has set it."""

    flow: Flow
    created: float
    used: float
    packets: int = 0
    idle: int = 0

    @property
    def entry(self) -> tuple[bytes, bytes] | None:
        """Key and reply key, if it is a flow of an entry."""
        return entry_keys(self.flow)


class Run:
    """One frame on its way through the tables."""

    def __init__(self, frame: bytes, in_port: int) -> None:
        self.frame = bytearray(frame)
        self.in_port = in_port
        self.registers = {"reg0": 0, "reg1": 0}
        self.path: list[Flow | None] = []
        """The flow met in each table; None where no flow matches."""

    def value(self, field: str) -> int:
        if field == "in_port":
            return self.in_port
        if field in self.registers:
            return self.registers[field]
        if field == "ip_frag":
            return int(int.from_bytes(self.frame[20:22]) & 0x3FFF != 0)
        if field == "tcp_flags":
            return self.frame[47] if len(self.frame) > 47 else 0
        start, size = PLACES[field]
        return int.from_bytes(self.frame[start:start + size])

    def set(self, field: str, value: int) -> None:
        if field in self.registers:
            self.registers[field] = value
        else:
            start, size = PLACES[field]
            self.frame[start:start + size] = value.to_bytes(size)


@functools.cache
def as_number(value: int | str) -> int:
    """A match or set-field value as the number in the frame."""
    if isinstance(value, str):
        return int(value.replace(":", ""), 16) if ":" in value else int(IPv4Address(value))
    return value


class FakeSwitch:
    """Ports: 1 external, 2 internal. `loss` of its tables is a restart of the switch."""

    def __init__(self, name: str, dpid: int, external_port: str, internal_port: str, linger: int) -> None:
        self.name, self.dpid, self.linger = name, dpid, linger
        self.ports = [PortState(external_port, 1, f"02:00:00:00:{dpid & 0xFF:02x}:01", True),
                      PortState(internal_port, 2, f"02:00:00:00:{dpid & 0xFF:02x}:02", True)]
        self.tables: dict[str, dict[object, Installed]] = {}
        self.meters: dict[int, int] = {}
        self.configured = False
        self.lose_tables()

    def lose_tables(self) -> None:
        self.tables = {table: {} for table in TABLES}
        self.meters, self.configured = {}, False

    def flows(self) -> Iterator[Installed]:
        for table in self.tables.values():
            yield from table.values()

    def hash(self) -> str:
        """Of all flows, without their counters."""
        text = "\n".join(sorted(item.flow.text() for item in self.flows()))
        return hashlib.sha256(text.encode()).hexdigest()

    def entries(self, address: IPv4Address | None = None) -> dict[bytes, set[str]]:
        """Key of each entry (of one external IP) -> the tables that hold a flow of it."""
        found: dict[bytes, set[str]] = {}
        for table in ("access_in", "access_out"):
            for item in self.tables[table].values():
                if item.entry and (address is None or KEY.unpack(item.entry[0])[3] == address.packed):
                    found.setdefault(item.entry[0], set()).add(table)
        return found

    # Messages in.

    def apply(self, message: m.Message, now: float) -> tuple[list[Sent], list[Event]]:
        """What one message does: frames sent, and answers."""
        self._change(message, now)
        match message:
            case m.PacketOut(frame, in_port, output):
                return self._packet_out(frame, in_port, output, now)
            case m.Barrier(token) | m.AddEntries(_, int(token)):
                return [], [Event("confirmed", (token,))]
            case m.ReadFlows(table, cookie, mask, token):
                return [], self._read(table, cookie, mask, token, now)
            case m.SetMeter(meter, rate, _):
                self.meters[meter] = rate
            case m.Configure():
                self.configured = True
        return [], []

    def _change(self, message: m.Message, now: float) -> None:
        """The messages that change tables."""
        match message:
            case m.AddFlows(flows):
                self._add(flows, now)
            case m.DeleteFlows(flows):
                self._delete(flows)
            case m.AddEntries(entries, _):
                self._add([flow for entry in entries for flow in entry_flows(entry, self.linger)], now)
            case m.DeleteEntries(entries):
                self._delete([flow for entry in entries for flow in entry_flows(entry, self.linger)])
            case m.DeleteCookie(table, cookie, mask):
                rows = self.tables[table]
                for identity in [key for key, item in rows.items() if item.flow.cookie & mask == cookie & mask]:
                    del rows[identity]

    def _add(self, flows: Iterable[Flow], now: float) -> None:
        for flow in flows:
            if flow.meter is not None:
                assert flow.meter in self.meters, f"{flow.text()}: OVS refuses a flow whose meter is not there"
            self.tables[flow.table][flow.identity] = Installed(flow, now, now)

    def _delete(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            item = self.tables[flow.table].get(flow.identity)
            if item and item.flow.cookie == flow.cookie:
                del self.tables[flow.table][flow.identity]

    def _packet_out(self, frame: bytes, in_port: int, output: int | str, now: float) -> tuple[list[Sent], list[Event]]:
        if isinstance(output, str):
            return self._run(Run(frame, in_port), output, now)
        if output == m.OUTPUT_TABLE:
            return self.receive(frame, in_port, now)
        assert output != in_port, "a switch never sends a frame back to its in-port"
        return [Sent(output, frame)], []

    # Frames.

    def receive(self, frame: bytes, in_port: int, now: float) -> tuple[list[Sent], list[Event]]:
        return self._run(Run(frame, in_port), "classify", now)

    def path(self, frame: bytes, in_port: int) -> list[Flow | None]:
        """The flows that a frame would meet, without meeting them."""
        run = Run(frame, in_port)
        self._table(run, "classify", None)
        return run.path

    def _run(self, run: Run, table: str, now: float) -> tuple[list[Sent], list[Event]]:
        out = list(self._table(run, table, now))
        return [item for item in out if isinstance(item, Sent)], [item for item in out if isinstance(item, Event)]

    def lookup(self, run: Run, table: str) -> Installed | None:
        best = None
        for item in self.tables[table].values():
            if (best is None or item.flow.priority > best.flow.priority) and _matches(item.flow, run):
                best = item
        return best

    def _table(self, run: Run, table: str, now: float | None) -> Iterator[Sent | Event]:
        """now: None to look only."""
        item = self.lookup(run, table)
        run.path.append(item.flow if item else None)
        if item is None:
            return
        if now is not None:
            item.packets, item.used = item.packets + 1, now
        for action in item.flow.actions:
            if action == Simple("dec_ttl") and run.value("ip_ttl") <= 1:
                yield packet_in(item.flow.cookie, run.in_port, bytes(run.frame), reason=2)
                return
            if isinstance(action, FinTimeout) and now is not None and run.value("tcp_flags") & FIN_OR_RST:
                item.idle = action.idle
            elif isinstance(action, Resubmit):
                yield from self._table(run, action.table, now)
            else:
                yield from _act(run, action, item.flow.cookie)
        if item.flow.goto:
            yield from self._table(run, item.flow.goto, now)

    # Time.

    def expire(self, now: float) -> list[Event]:
        """Removes the flows that are idle for too long after FIN or RST."""
        events = []
        for rows in self.tables.values():
            for identity, item in list(rows.items()):
                if item.idle and now - item.used >= item.idle:
                    del rows[identity]
                    if item.flow.send_removed and item.entry:
                        events.append(Event("flow_removed", (flow_removed(item, now),)))
        return events

    # Statistics.

    def _read(self, table: str | None, cookie: int, mask: int, token: int, now: float) -> list[Event]:
        """Two parts, so that a reader must understand `more`."""
        records = [stats_record(item, now) for item in self.flows()
                   if table in (None, item.flow.table) and item.flow.cookie & mask == cookie & mask]
        half = len(records) // 2
        return [Event("flow_stats", (token, b"".join(records[:half]), True)),
                Event("flow_stats", (token, b"".join(records[half:]), False))]


@functools.cache
def entry_keys(flow: Flow) -> tuple[bytes, bytes] | None:
    """Key and reply key of the entry that a flow of the access tables belongs to; None for any other flow."""
    match = {field: as_number(value) for field, value in flow.match}
    if "tcp_src" not in match:
        return None
    protocol, a, b = match["ip_proto"], match["ipv4_src"].to_bytes(4), match["ipv4_dst"].to_bytes(4)
    sets = {action.field: as_number(action.value) for action in flow.actions if isinstance(action, SetField)}
    if flow.table == "access_in":
        server, server_port = sets["ipv4_dst"].to_bytes(4), sets["tcp_dst"]
        return (KEY.pack(protocol, a, match["tcp_src"], b, match["tcp_dst"]),
                KEY.pack(protocol, server, server_port, a, match["tcp_src"]))
    external, external_port = sets["ipv4_src"].to_bytes(4), sets["tcp_src"]
    return (KEY.pack(protocol, b, match["tcp_dst"], external, external_port),
            KEY.pack(protocol, a, match["tcp_src"], b, match["tcp_dst"]))


def _act(run: Run, action: Action, cookie: int) -> Iterator[Sent | Event]:
    """One action that is nothing but a change of the frame, or sends it."""
    match action:
        case SetField(field, value):
            run.set(field, as_number(value))
        case Move(source, target, _):
            run.set(target, run.value(source))
        case Simple("dec_ttl"):
            run.set("ip_ttl", run.value("ip_ttl") - 1)
        case Output(port) if port != run.in_port:
            yield Sent(port, bytes(run.frame))
        case Simple("in_port"):
            yield Sent(run.in_port, bytes(run.frame))
        case Simple("controller"):
            yield packet_in(cookie, run.in_port, bytes(run.frame))


def _matches(flow: Flow, run: Run) -> bool:
    for field, value in flow.match:
        if isinstance(value, tuple):
            if run.value(field) & value[1] != value[0]:
                return False
        elif run.value(field) != as_number(value):
            return False
    return True


# OpenFlow 1.4 bytes.

def packet_in(cookie: int, in_port: int, frame: bytes, reason: int = 1) -> Event:
    """OpenFlow 1.4.0 section 7.4.1."""
    body = struct.pack("!IHBBQ", 0xFFFFFFFF, len(frame), reason, 0, cookie)
    body += struct.pack("!HHII4x", 1, 12, 0x80000004, in_port) + bytes(2) + frame
    return Event("packet_in", (struct.pack("!BBHI", 5, 10, 8 + len(body), 0) + body,))


def entry_match(key: bytes) -> bytes:
    """The match of an entry's flow in the order in which OVS reports it; key: 13 bytes, the sender first."""
    protocol, a, a_port, b, b_port = KEY.unpack(key)
    fields = (b"\x80\x00\x0a\x02\x08\x00" + b"\x80\x00\x16\x04" + a + b"\x80\x00\x18\x04" + b
              + b"\x80\x00\x14\x01" + bytes([protocol]) + struct.pack("!IHIH", 0x80001A02, a_port, 0x80001C02, b_port))
    match = struct.pack("!HH", 1, 4 + len(fields)) + fields
    return match + bytes(-len(match) % 8)


def duration(item: Installed, now: float) -> tuple[int, int]:
    """Seconds and nanoseconds."""
    return int(now - item.created), int((now - item.created) % 1 * 1e9)


def flow_removed(item: Installed, now: float, reason: int = 0) -> bytes:
    """OpenFlow 1.4.0 section 7.4.2."""
    flow = item.flow
    body = struct.pack("!QHBBIIHHQQ", flow.cookie, flow.priority, reason, number(flow.table), *duration(item, now),
                       item.idle, 0, item.packets, 60 * item.packets)
    body += entry_match(item.entry[flow.table == "access_out"])
    return struct.pack("!BBHI", 5, 11, 8 + len(body), 0) + body


def stats_record(item: Installed, now: float) -> bytes:
    """OpenFlow 1.4.0 section 7.3.5.2. In full for entries and deliveries; of other flows only the head."""
    flow = item.flow
    if item.entry:
        tail = entry_match(item.entry[flow.table == "access_out"])
        tail += _entry_instructions(flow)
    elif flow.table == "deliver_server" and dict(flow.match).get("ipv4_dst"):
        tail = _delivery(flow)
    else:
        tail = struct.pack("!HH4x", 1, 4)
    head = struct.pack("!HBxIIHHHHHxxQQQ", 48 + len(tail), number(flow.table), *duration(item, now), flow.priority,
                       item.idle, 0, int(flow.send_removed), 0, flow.cookie, item.packets, 60 * item.packets)
    return head + tail


def _entry_instructions(flow: Flow) -> bytes:
    actions = b""
    for action in flow.actions:
        if isinstance(action, FinTimeout):
            actions += struct.pack("!HHIHHH2x", 0xFFFF, 16, 0x2320, 19, action.idle, 0)
        else:
            actions += _set_field(action)
    return struct.pack("!HH4x", 4, 8 + len(actions)) + actions + struct.pack("!HHB3x", 1, 8, number(flow.goto))


def _set_field(action: SetField) -> bytes:
    code, size = {"ipv4_src": (11, 4), "ipv4_dst": (12, 4), "tcp_src": (13, 2), "tcp_dst": (14, 2), "eth_dst": (3, 6),
                  "eth_src": (4, 6)}[action.field]
    oxm = struct.pack("!HBB", 0x8000, code << 1, size) + as_number(action.value).to_bytes(size)
    return struct.pack("!HH", 25, 4 + len(oxm) + -(4 + len(oxm)) % 8) + oxm + bytes(-(4 + len(oxm)) % 8)


def _delivery(flow: Flow) -> bytes:
    fields = b"\x80\x00\x0a\x02\x08\x00\x80\x00\x18\x04" + as_number(dict(flow.match)["ipv4_dst"]).to_bytes(4)
    match = struct.pack("!HH", 1, 4 + len(fields)) + fields
    actions = b"".join(_set_field(action) for action in flow.actions if isinstance(action, SetField))
    actions += struct.pack("!HH4x", 24, 8) + struct.pack("!HHIH6x", 0, 16, 2, 0)
    return match + bytes(-len(match) % 8) + struct.pack("!HH4x", 4, 8 + len(actions)) + actions
