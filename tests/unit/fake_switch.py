"""A switch in memory: it applies the core's messages, runs frames through its tables, and answers in OpenFlow bytes.

It knows nothing of the core's plans. Its bytes are packed by hand from the OpenFlow 1.4.0 text, so that the core's
decoders meet something else than themselves. Time is passed in; nothing happens by itself.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import NamedTuple

from lbctl.openflow import messages as m
from lbctl.openflow.cookies import Kind, kind_of
from lbctl.openflow.entry_flows import entry_flows
from lbctl.openflow.errors import Refusal
from lbctl.openflow.flow import (
    CheckLarger,
    FinTimeout,
    Flow,
    FlowAction,
    Learn,
    MatchValue,
    MoveField,
    Output,
    Resubmit,
    SetField,
    SetTtl,
    Simple,
)
from lbctl.openflow.tables import TABLES, number
from lbctl.site.model import Tunnel
from lbctl.switches.switch import PortState
from lbctl.values.addresses import Address
from lbctl.values.keys import pack_key, unpack_key

FIN_OR_RST = 0x05
METERS = dict.fromkeys(range(1 << 16), 1)
"""For a test that applies flows by hand: every meter that they use."""
IPV4, IPV6, ARP, VLAN = 0x0800, 0x86DD, 0x0806, 0x8100
VLAN_PRESENT = 0x1000
ICMP, TCP, UDP, IPV6_FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
Places = Mapping[str, tuple[int, int]]

_LINK = {"eth_dst": (0, 6), "eth_src": (6, 6), "eth_type": (12, 2)}
_NETWORK = {
    ARP: {"arp_op": (20, 2), "arp_sha": (22, 6), "arp_spa": (28, 4), "arp_tha": (32, 6), "arp_tpa": (38, 4)},
    IPV4: {"nw_ttl": (22, 1), "ip_proto": (23, 1), "ipv4_src": (26, 4), "ipv4_dst": (30, 4)},
    IPV6: {"ip_proto": (20, 1), "nw_ttl": (21, 1), "ipv6_src": (22, 16), "ipv6_dst": (38, 16)},
}
_TRANSPORT_AT = {IPV4: 34, IPV6: 54}
_TRANSPORT = {
    (IPV4, ICMP): {"icmpv4_type": (0, 1)},
    (IPV6, ICMPV6): {
        "icmpv6_type": (0, 1),
        "nd_reserved": (4, 4),
        "ipv6_nd_target": (8, 16),
        "nd_options_type": (24, 1),
        "ipv6_nd_tll": (26, 6),
    },
    **{(kind, TCP): {"tcp_src": (0, 2), "tcp_dst": (2, 2), "tcp_flags": (13, 1)} for kind in (IPV4, IPV6)},
    **{(kind, UDP): {"udp_src": (0, 2), "udp_dst": (2, 2)} for kind in (IPV4, IPV6)},
}
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@functools.cache
def places(eth_type: int, protocol: int) -> Places:
    """Where a field is in an untagged frame without IP options or extension headers, and how many bytes it has."""
    start = _TRANSPORT_AT.get(eth_type, 0)
    transport = {
        field: (start + offset, size) for field, (offset, size) in _TRANSPORT.get((eth_type, protocol), {}).items()
    }
    return {**_LINK, **_NETWORK.get(eth_type, {}), **transport}


class Sent(NamedTuple):
    """A frame that left by a port; through a tunnel: to which other end, and with which key."""

    port: int
    frame: bytes
    tunnel: tuple[Address, int] | None = None


class Event(NamedTuple):
    """What the switch tells the controller: the name of the ControlFunction method, and its arguments."""

    name: str
    arguments: tuple


@dataclass(slots=True)
class Installed:
    """A flow in a table; times in seconds, `idle` is 0 until fin_timeout has set it. hard: seconds that a learned one
    lives."""

    flow: Flow
    created: float
    used: float
    packets: int = 0
    idle: int = 0
    hard: float = float("inf")

    @property
    def entry(self) -> tuple[bytes, bytes] | None:
        """Key and reply key, if it is a flow of an entry."""
        return entry_keys(self.flow)


class Run:
    """One frame on its way through the tables."""

    def __init__(self, frame: bytes, in_port: int, tunnel: Tunnel | None = None) -> None:
        self.frame = bytearray(frame)
        remote, key = (int(tunnel.remote), tunnel.key) if tunnel else (0, 0)
        self.others = {
            "in_port": in_port,
            "reg0": 0,
            "reg1": 0,
            "reg2": 0,
            "reg3": 0,
            "metadata": 0,
            "tunnel_id": key,
            "tun_ipv4_src": remote,
            "tun_ipv4_dst": 0,
        }
        self._look()
        self.path: list[Flow | None] = []
        """The flow met in each table; None where no flow matches."""

    def _look(self) -> None:
        """What kind of frame it is."""
        frame = self.frame
        eth_type = int.from_bytes(frame[12:14])
        protocol = frame[23] if eth_type == IPV4 else frame[20]
        self.others.pop("vlan_vid", None)
        if eth_type == VLAN:
            self.others["vlan_vid"] = VLAN_PRESENT | int.from_bytes(frame[14:16]) & 0xFFF
        if eth_type in (IPV4, IPV6):
            self.others["ip_frag"] = int(int.from_bytes(frame[20:22]) & 0x3FFF != 0) if eth_type == IPV4 else int(
                protocol == IPV6_FRAGMENT)
        self.places = places(eth_type, protocol)

    def untag(self) -> None:
        """Takes the frame's VLAN tag away."""
        del self.frame[12:16]
        self._look()

    @property
    def in_port(self) -> int:
        return self.others["in_port"]

    def has(self, field: str) -> bool:
        """Is there such a field in this kind of frame, and is the frame long enough?"""
        return field in self.others or field in self.places and sum(self.places[field]) <= len(self.frame)

    def value(self, field: str) -> int:
        if field in self.others:
            return self.others[field]
        start, size = self.places[field]
        return int.from_bytes(self.frame[start:start + size])

    def set(self, field: str, value: int) -> None:
        """What the frame has no room for (an option that is not there) is not set."""
        if field in self.others:
            self.others[field] = value
        elif self.has(field):
            start, size = self.places[field]
            self.frame[start:start + size] = value.to_bytes(size)


@functools.cache
def as_number(value: int | str) -> int:
    """A set-field value as the number in the frame."""
    if isinstance(value, int):
        return value
    return int(value.replace(":", ""), 16) if _MAC.fullmatch(value) else int(ip_address(value))


@functools.cache
def as_masked(value: MatchValue) -> tuple[int, int]:
    """The value and the mask of a match; -1: all bits."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, str) and "/" in value:
        network = ip_network(value)
        return int(network.network_address), int(network.netmask)
    return as_number(value), -1


class FakeSwitch:
    """Ports: 1 external, 2 internal. `loss` of its tables is a restart of the switch."""

    def __init__(self, name: str, dpid: int, external_port: str, internal_port: str, linger: int) -> None:
        self.name, self.dpid, self.linger = name, dpid, linger
        self.ports = [PortState(external_port, 1, f"02:00:00:00:{dpid & 0xFF:02x}:01", True),
                      PortState(internal_port, 2, f"02:00:00:00:{dpid & 0xFF:02x}:02", True)]
        self.tables: dict[str, dict[object, Installed]] = {}
        self.meters: dict[int, int] = {}
        self.limited: dict[int, int] = {}
        """Packets that a meter has dropped: by the test, since there are no rates here."""
        self.received = {1: 0, 2: 0}
        """Frames that have come in by each port, as its counter says."""
        self.configured = False
        self.full: set[str] = set()
        """Tables that take no more flows."""
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

    def entries(self, address: Address | None = None) -> dict[bytes, set[str]]:
        """Key of each entry (of one external IP) -> the tables that hold a flow of it."""
        found: dict[bytes, set[str]] = {}
        for table in ("access_in", "access_out"):
            for item in self.tables[table].values():
                if item.entry and (address is None or unpack_key(item.entry[0])[3] == address.packed):
                    found.setdefault(item.entry[0], set()).add(table)
        return found

    # Messages in.

    def apply(self, message: m.Message, now: float) -> tuple[list[Sent], list[Event]]:
        """What one message does: frames sent, and answers."""
        refused = list(self._refused(message))
        if refused and getattr(message, "token", None) is not None:
            return [], [Event("failed", (message.token, refused[0]))]
        self._change(message, now)
        if refused:
            return [], [Event("failed", (0, refusal)) for refusal in refused]
        match message:
            case m.PacketOut():
                return self._packet_out(message, now)
            case m.Barrier(token) | m.AddEntries(_, int(token)):
                return [], [Event("confirmed", (token,))]
            case m.ReadFlows(table, cookie, mask, token):
                return [], self._read(table, cookie, mask, token, now)
            case m.ReadPorts(token):
                return [], [Event("ports_read", (token, dict(self.received)))]
            case m.ReadMeters(token):
                stats = [struct.pack("!IH6xIQQIIQQ", meter, 56, 0, 0, 0, 0, 0, self.limited.get(meter, 0), 0)
                         for meter in self.meters]
                return [], [Event("flow_stats", (token, b"".join(stats), False))]
            case m.SetMeter(meter, rate, _):
                self.meters[meter] = rate
            case m.Configure():
                self.configured = True
        return [], []

    def _refused(self, message: m.Message) -> Iterator[Refusal]:
        """For each flow that there is no room for."""
        match message:
            case m.AddFlows(flows):
                wanted = list(flows)
            case m.AddEntries(entries, _):
                wanted = [flow for entry in entries for flow in entry_flows(entry, self.linger)]
            case _:
                return
        for flow in wanted:
            if self._no_room(flow):
                yield Refusal(f"a flow of table {flow.table}", "that table is full", "make room",
                              of_entry=entry_keys(flow) is not None)

    def _no_room(self, flow: Flow) -> bool:
        return flow.table in self.full and flow.identity not in self.tables[flow.table]

    def _change(self, message: m.Message, now: float) -> None:
        """The messages that change tables."""
        match message:
            case m.AddFlows(flows):
                self._add(flows, now)
            case m.DeleteFlows(flows):
                self._delete(flows)
            case m.AddEntries(entries, _):
                self._add([flow for entry in entries for flow in entry_flows(entry, self.linger)], now)
            case m.ModifyEntries(entries):
                for flow in [flow for entry in entries for flow in entry_flows(entry, self.linger)]:
                    if item := self.tables[flow.table].get(flow.identity):
                        item.flow = flow
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
            if not self._no_room(flow):
                self.tables[flow.table][flow.identity] = Installed(flow, now, now)

    def _delete(self, flows: Iterable[Flow]) -> None:
        for flow in flows:
            item = self.tables[flow.table].get(flow.identity)
            if item and item.flow.cookie == flow.cookie:
                del self.tables[flow.table][flow.identity]

    def _packet_out(self, message: m.PacketOut, now: float) -> tuple[list[Sent], list[Event]]:
        frame, in_port, output, tunnel = message.frame, message.in_port, message.output, message.tunnel
        if isinstance(output, str):
            return self._run(Run(frame, in_port, tunnel), output, now)
        if output == m.OUTPUT_TABLE:
            return self.receive(frame, in_port, now, tunnel)
        assert output != in_port, "a switch never sends a frame back to its in-port"
        return [Sent(output, frame, (tunnel.remote, tunnel.key) if tunnel else None)], []

    # Frames.

    def receive(
        self, frame: bytes, in_port: int, now: float, tunnel: Tunnel | None = None
    ) -> tuple[list[Sent], list[Event]]:
        return self._run(Run(frame, in_port, tunnel), "classify", now)

    def path(self, frame: bytes, in_port: int, tunnel: Tunnel | None = None) -> list[Flow | None]:
        """The flows that a frame would meet, without meeting them."""
        run = Run(frame, in_port, tunnel)
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
            if action == Simple("dec_ttl") and run.value("nw_ttl") <= 1:
                return
            if isinstance(action, FinTimeout):
                if now is not None and run.value("tcp_flags") & FIN_OR_RST:
                    item.idle = action.idle
            elif isinstance(action, Learn):
                if now is not None:
                    self._learn(action, now)
            elif isinstance(action, Resubmit):
                yield from self._table(run, action.table, now)
            else:
                yield from _act(run, action, item.flow.cookie)
        if item.flow.goto:
            yield from self._table(run, item.flow.goto, now)

    def _learn(self, action: Learn, now: float) -> None:
        """As OVS does: a flow that is there already begins anew."""
        learned = Flow(action.table, action.priority, tuple(sorted(action.match)), cookie=action.cookie)
        self.tables[action.table][learned.identity] = Installed(learned, now, now, hard=action.seconds)

    # Time.

    def expire(self, now: float) -> list[Event]:
        """Removes the flows that are idle for too long after FIN or RST, and the learned ones whose time is over."""
        events = []
        for rows in self.tables.values():
            for identity, item in list(rows.items()):
                if item.idle and now - item.used >= item.idle or now - item.created >= item.hard:
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
    if kind_of(flow.cookie) not in (Kind.ENTRY_IN, Kind.ENTRY_OUT):
        return None
    before = {field: as_number(value) for field, value in flow.match}
    after = before | {action.field: as_number(action.value) for action in flow.actions if isinstance(action, SetField)}
    protocol = before["ip_proto"]
    version, transport = 4 if before["eth_type"] == IPV4 else 6, {TCP: "tcp", UDP: "udp"}[protocol]

    def key(fields: Mapping[str, int], side: str, other: str) -> bytes:
        size = {4: 4, 6: 16}[version]
        return pack_key(protocol, fields[f"ipv{version}_{side}"].to_bytes(size), fields[f"{transport}_{side}"],
                        fields[f"ipv{version}_{other}"].to_bytes(size), fields[f"{transport}_{other}"])

    matched, made = key(before, "src", "dst"), key(after, "dst", "src")
    return (matched, made) if flow.table == "access_in" else (made, matched)


def _act(run: Run, action: FlowAction, cookie: int) -> Iterator[Sent | Event]:
    """One action that is nothing but a change of the frame, or sends it."""
    match action:
        case SetField(field, value):
            run.set(field, as_number(value))
        case MoveField(source, target, _):
            run.set(target, run.value(source))
        case Simple("dec_ttl"):
            run.set("nw_ttl", run.value("nw_ttl") - 1)
        case Simple("pop_vlan"):
            run.untag()
        case Simple("forget_in_port"):
            run.set("in_port", 0)
        case SetTtl(ttl):
            run.set("nw_ttl", ttl)
        case CheckLarger(length, field):
            run.set(field, int(len(run.frame) > length))
        case Output(port) if port != run.in_port:
            yield _sent(run, port)
        case Simple("in_port"):
            yield _sent(run, run.in_port)
        case Simple("controller"):
            yield packet_in(cookie, run.in_port, bytes(run.frame))


def _sent(run: Run, port: int) -> Sent:
    remote = run.value("tun_ipv4_dst")
    return Sent(port, bytes(run.frame), (IPv4Address(remote), run.value("tunnel_id")) if remote else None)


def _matches(flow: Flow, run: Run) -> bool:
    for field, wanted in flow.match:
        value, mask = as_masked(wanted)
        if not run.has(field) or run.value(field) & mask != value:
            return False
    return True


# OpenFlow 1.4 bytes.

def packet_in(cookie: int, in_port: int, frame: bytes, reason: int = 1) -> Event:
    """OpenFlow 1.4.0 section 7.4.1."""
    body = struct.pack("!IHBBQ", 0xFFFFFFFF, len(frame), reason, 0, cookie)
    body += struct.pack("!HHII4x", 1, 12, 0x80000004, in_port) + bytes(2) + frame
    return Event("packet_in", (struct.pack("!BBHI", 5, 10, 8 + len(body), 0) + body,))


def entry_match(key: bytes) -> bytes:
    """The match of an entry's flow in the order in which OVS reports it; key: the sender first."""
    protocol, a, a_port, b, b_port = unpack_key(key)
    version, transport = 4 if len(a) == 4 else 6, {TCP: "tcp", UDP: "udp"}[protocol]
    fields = (_oxm("eth_type", b"\x08\x00" if version == 4 else b"\x86\xdd") + _oxm(f"ipv{version}_src", a)
              + _oxm(f"ipv{version}_dst", b) + _oxm("ip_proto", bytes([protocol]))
              + _oxm(f"{transport}_src", a_port.to_bytes(2)) + _oxm(f"{transport}_dst", b_port.to_bytes(2)))
    return _match(fields)


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
    """OpenFlow 1.4.0 section 7.3.5.2. In full for entries and deliveries; of other flows the head, and a number that
    stands for all the rest."""
    flow = item.flow
    if item.entry:
        tail = entry_match(item.entry[flow.table == "access_out"])
        tail += _entry_instructions(flow)
    elif flow.table == "deliver_server" and any(field in ("ipv4_dst", "ipv6_dst") for field, _ in flow.match):
        tail = _delivery(flow)
    else:
        text = flow.text(with_cookie=False).encode()
        tail = struct.pack("!HH4x", 1, 4) + struct.pack("!HHIQ", 0xFFFF, 16, 0, zlib.crc32(text))
    hard = flow.hard_timeout if item.hard == float("inf") else int(item.hard)
    head = struct.pack("!HBxIIHHHHHxxQQQ", 48 + len(tail), number(flow.table), *duration(item, now), flow.priority,
                       item.idle, hard, int(flow.send_removed), 0, flow.cookie, item.packets, 60 * item.packets)
    return head + tail


def _entry_instructions(flow: Flow) -> bytes:
    actions = b""
    for action in flow.actions:
        if isinstance(action, FinTimeout):
            actions += struct.pack("!HHIHHH2x", 0xFFFF, 16, 0x2320, 19, action.idle, 0)
        else:
            actions += _set_field(action)
    return struct.pack("!HH4x", 4, 8 + len(actions)) + actions + struct.pack("!HHB3x", 1, 8, number(flow.goto))


# OpenFlow 1.4.0 table 8 (the numbers of fields) and its sections 7.2.2 to 7.2.4.

_OXM_NUMBERS = {
    "metadata": 2,
    "eth_dst": 3,
    "eth_src": 4,
    "eth_type": 5,
    "ip_proto": 10,
    "ipv4_src": 11,
    "ipv4_dst": 12,
    "tcp_src": 13,
    "tcp_dst": 14,
    "udp_src": 15,
    "udp_dst": 16,
    "ipv6_src": 26,
    "ipv6_dst": 27,
}
_SIZES = {
    "metadata": 8,
    "eth_dst": 6,
    "eth_src": 6,
    "ipv4_src": 4,
    "ipv4_dst": 4,
    "ipv6_src": 16,
    "ipv6_dst": 16,
    "tcp_src": 2,
    "tcp_dst": 2,
    "udp_src": 2,
    "udp_dst": 2,
}


def _oxm(field: str, value: bytes) -> bytes:
    return struct.pack("!HBB", 0x8000, _OXM_NUMBERS[field] << 1, len(value)) + value


def _match(fields: bytes) -> bytes:
    match = struct.pack("!HH", 1, 4 + len(fields)) + fields
    return match + bytes(-len(match) % 8)


def _set_field(action: SetField) -> bytes:
    oxm = _oxm(action.field, as_number(action.value).to_bytes(_SIZES[action.field]))
    return struct.pack("!HH", 25, 4 + len(oxm) + -(4 + len(oxm)) % 8) + oxm + bytes(-(4 + len(oxm)) % 8)


def _delivery(flow: Flow) -> bytes:
    match = dict(flow.match)
    field = "ipv4_dst" if "ipv4_dst" in match else "ipv6_dst"
    fields = _oxm("eth_type", match["eth_type"].to_bytes(2)) + _oxm(
        field, as_number(match[field]).to_bytes(_SIZES[field])
    )
    actions = b"".join(_set_field(action) for action in flow.actions if isinstance(action, SetField))
    actions += struct.pack("!HH4x", 24, 8)
    actions += struct.pack("!HHIHHIQ", 0xFFFF, 24, 0x2320, 7, 15, 0x00000002, 0)  # nicira-ext.h: reg_load
    actions += struct.pack("!HHIH6x", 0, 16, 2, 0xFFE5)
    return _match(fields) + struct.pack("!HH4x", 4, 8 + len(actions)) + actions
