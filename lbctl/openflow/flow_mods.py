"""A flow as the bytes of a flow-mod (OpenFlow 1.4.0, 7.3.4.1; fields and actions of Nicira's: nicira-ext.h).

The switch libraries need 215 us for one, this some 10: an LB that takes a thousand external IPs over gets thousands of
flows while clients wait. A test compares the two.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton

from lbctl.frames.packets import parse_mac
from lbctl.openflow.flow import (
    KEPT_ACTIONS,
    KEPT_FLOWS,
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
from lbctl.openflow.tables import number

ADD, DELETE_STRICT = 0, 4
"""Commands."""
VERSION, FLOW_MOD = 5, 14
NO_BUFFER, ANY, EXACTLY = 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
SEND_FLOW_REM = 1
IN_PORT, TO_CONTROLLER = 0xFFFFFFF8, 0xFFFFFFFD
WHOLE_PACKET, MOST_OF_IT = 0xFFFF, 0xFFE5
"""Bytes of a packet that goes to the controller; and where that says nothing."""
NICIRA, RESUBMIT_IN_PORT = 0x00002320, 0xFFF8
BASIC, NXM_0, NXM_1, ERICSSON = 0x8000, 0x0000, 0x0001, 0x1000
"""Classes of fields; the last one: ovs-fields(7), since Open vSwitch 2.11."""


def _number(text: MatchValue, width: int) -> bytes:
    assert isinstance(text, int)
    return text.to_bytes(width)


def _mac(text: MatchValue, _: int) -> bytes:
    return parse_mac(str(text))


def _ipv4(text: MatchValue, _: int) -> bytes:
    return inet_pton(AF_INET, str(text))


def _ipv6(text: MatchValue, _: int) -> bytes:
    return inet_pton(AF_INET6, str(text))


class Field:
    """How a field is written: the class and number of its header, bytes of its value, and what makes them.

    plain, masked: its header, where a value follows, and where a value and a mask do.
    """

    def __init__(self, family: int, number: int, width: int,
                 pack: Callable[[MatchValue, int], bytes] = _number) -> None:
        self.width, self.pack = width, pack
        self.plain = struct.pack("!HBB", family, number << 1, width)
        self.masked = struct.pack("!HBB", family, number << 1 | 1, 2 * width)


FIELDS = {
    "in_port": Field(BASIC, 0, 4), "metadata": Field(BASIC, 2, 8),
    "eth_dst": Field(BASIC, 3, 6, _mac), "eth_src": Field(BASIC, 4, 6, _mac), "eth_type": Field(BASIC, 5, 2),
    "vlan_vid": Field(BASIC, 6, 2), "ip_proto": Field(BASIC, 10, 1),
    "ipv4_src": Field(BASIC, 11, 4, _ipv4), "ipv4_dst": Field(BASIC, 12, 4, _ipv4),
    "tcp_src": Field(BASIC, 13, 2), "tcp_dst": Field(BASIC, 14, 2),
    "udp_src": Field(BASIC, 15, 2), "udp_dst": Field(BASIC, 16, 2), "icmpv4_type": Field(BASIC, 19, 1),
    "arp_op": Field(BASIC, 21, 2), "arp_spa": Field(BASIC, 22, 4, _ipv4), "arp_tpa": Field(BASIC, 23, 4, _ipv4),
    "arp_sha": Field(BASIC, 24, 6, _mac), "arp_tha": Field(BASIC, 25, 6, _mac),
    "ipv6_src": Field(BASIC, 26, 16, _ipv6), "ipv6_dst": Field(BASIC, 27, 16, _ipv6),
    "icmpv6_type": Field(BASIC, 29, 1), "ipv6_nd_target": Field(BASIC, 31, 16, _ipv6),
    "ipv6_nd_tll": Field(BASIC, 33, 6, _mac), "tunnel_id": Field(BASIC, 38, 8),
    "reg0": Field(NXM_1, 0, 4), "reg1": Field(NXM_1, 1, 4), "reg2": Field(NXM_1, 2, 4), "reg3": Field(NXM_1, 3, 4),
    "ip_frag": Field(NXM_1, 26, 1), "nw_ttl": Field(NXM_1, 29, 1),
    "tun_ipv4_src": Field(NXM_1, 31, 4, _ipv4), "tun_ipv4_dst": Field(NXM_1, 32, 4, _ipv4),
    "tcp_flags": Field(NXM_1, 34, 2),
    "nd_reserved": Field(ERICSSON, 1, 4), "nd_options_type": Field(ERICSSON, 2, 1),
}
_OLD_IN_PORT = Field(NXM_0, 0, 2)
"""The one that can be set."""
_FIRST = {"eth_type": 0, "ip_proto": 1}
"""What other fields need comes before them."""

_HEAD = struct.Struct("!BBHIQQBBHHHIIIHH")
_MATCH = struct.Struct("!HH")
_METER, _APPLY, _GOTO = struct.Struct("!HHI"), struct.Struct("!HH4x"), struct.Struct("!HHB3x")
_OUTPUT = struct.Struct("!HHIH6x")
_EXPERIMENTER = struct.Struct("!HHIH")
_LEARN = struct.Struct("!HHHQHBxHH")
_SIMPLE = {
    "controller": _OUTPUT.pack(0, 16, TO_CONTROLLER, WHOLE_PACKET),
    "in_port": _OUTPUT.pack(0, 16, IN_PORT, WHOLE_PACKET),
    "dec_ttl": struct.pack("!HH4x", 24, 8), "pop_vlan": struct.pack("!HH4x", 18, 8),
    # Nicira's reg_load of 0 into all 16 bits.
    "forget_in_port": b"".join([_EXPERIMENTER.pack(0xFFFF, 24, NICIRA, 7), struct.pack("!H", 15), _OLD_IN_PORT.plain,
                                bytes(8)]),
}


def added(flow: Flow, xid: int) -> bytes:
    """What adds it, or replaces the one with its table, priority and match."""
    return _encoded(flow, ADD, xid)


def deleted(flow: Flow, xid: int) -> bytes:
    """What deletes it, if its cookie is still this."""
    return _encoded(flow, DELETE_STRICT, xid)


@lru_cache(maxsize=KEPT_FLOWS)
def _encoded(flow: Flow, command: int, xid: int) -> bytes:
    """Most flows are the same on all LBs."""
    fields = sorted(flow.match, key=lambda pair: _FIRST.get(pair[0], len(_FIRST)))
    matched = b"".join([_matched(FIELDS[name], value) for name, value in fields])
    match = _padded(_MATCH.pack(1, _MATCH.size + len(matched)) + matched)
    instructions, mask = (_instructions(flow), 0) if command == ADD else (b"", EXACTLY)
    size = _HEAD.size + len(match) + len(instructions)
    return _HEAD.pack(VERSION, FLOW_MOD, size, xid, flow.cookie, mask, number(flow.table), command, 0,
                      flow.hard_timeout, flow.priority, NO_BUFFER, ANY, ANY, SEND_FLOW_REM if flow.send_removed else 0,
                      0) + match + instructions


def _matched(field: Field, value: MatchValue) -> bytes:
    """A field of a match, with its mask where it has one."""
    if isinstance(value, tuple):
        return b"".join([field.masked, *(field.pack(part, field.width) for part in value)])
    if isinstance(value, str) and "/" in value:
        address, _, mask = value.partition("/")
        if mask.isdigit():
            address, mask = _prefix(value)
        return field.masked + field.pack(address, field.width) + field.pack(mask, field.width)
    return field.plain + field.pack(value, field.width)


def _prefix(text: str) -> tuple[str, str]:
    network: IPv4Network | IPv6Network = ip_network(text)
    return str(network.network_address), str(network.netmask)


def _instructions(flow: Flow) -> bytes:
    parts = []
    if flow.meter is not None:
        parts.append(_METER.pack(6, 8, flow.meter))
    if flow.actions:
        actions = b"".join([_action(action) for action in flow.actions])
        parts.append(_APPLY.pack(4, _APPLY.size + len(actions)) + actions)
    if flow.goto:
        parts.append(_GOTO.pack(1, 8, number(flow.goto)))
    return b"".join(parts)


@lru_cache(maxsize=KEPT_ACTIONS)
def _action(action: FlowAction) -> bytes:
    match action:
        case SetField(name, value):
            field = FIELDS[name]
            body = field.plain + field.pack(value, field.width)
            return _padded(_MATCH.pack(25, 4 + len(body) + -(4 + len(body)) % 8) + body)
        case MoveField(source, target, bits):
            return _nicira(6, struct.pack("!HHH", bits, 0, 0) + FIELDS[source].plain + FIELDS[target].plain)
        case Output(port):
            return _OUTPUT.pack(0, 16, port, MOST_OF_IT)
        case Simple(name):
            return _SIMPLE[name]
        case FinTimeout(idle):
            return _nicira(19, struct.pack("!HH2x", idle, 0))
        case SetTtl(ttl):
            return struct.pack("!HHB3x", 23, 8, ttl)
        case CheckLarger(length, name):
            return _nicira(49, struct.pack("!HH", length, 0) + FIELDS[name].plain + bytes(6))
        case Resubmit(table):
            return _nicira(14, struct.pack("!HB3x", RESUBMIT_IN_PORT, number(table)))
        case Learn():
            return _learn(action)
    raise TypeError(f"no OpenFlow action for {action!r}")


def _learn(action: Learn) -> bytes:
    """Its flow matches constants: type 1 << 13, and as many bits as the field has."""
    specs = []
    for name, value in action.match:
        field = FIELDS[name]
        constant = value.to_bytes(field.width + field.width % 2)  # in whole words of 16 bits
        specs.append(struct.pack("!H", 1 << 13 | 8 * field.width) + constant + field.plain + bytes(2))
    head = _LEARN.pack(0, action.seconds, action.priority, action.cookie, 0, number(action.table), 0, 0)
    return _nicira(16, head + b"".join(specs))


def _nicira(subtype: int, body: bytes) -> bytes:
    size = _EXPERIMENTER.size + len(body)
    return _padded(_EXPERIMENTER.pack(0xFFFF, size + -size % 8, NICIRA, subtype) + body)


def _padded(data: bytes) -> bytes:
    """To a multiple of eight bytes."""
    return data + bytes(-len(data) % 8)
