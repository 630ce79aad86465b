"""The core's messages as OpenFlow 1.4: hot ones by lbctl.openflow, all others by the library's classes."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from lbctl.openflow.cookies import Kind, known_kind
from lbctl.openflow.flow import (
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
from lbctl.openflow.messages import (
    AddEntries,
    AddFlows,
    Barrier,
    Configure,
    DeleteCookie,
    DeleteEntries,
    DeleteFlows,
    Message,
    ModifyEntries,
    PacketOut,
    ReadFlows,
    ReadMeters,
    ReadPorts,
    SetMeter,
)
from lbctl.openflow.outbound import EntryCodec, packet_out
from lbctl.openflow.tables import number
from ryu_apps.library.names import OFPAction, ProtocolDesc, msg_pack_into, ofp, parser
from ryu_apps.shell.wire import XID_MARK

if TYPE_CHECKING:
    from ryu_apps.library.names import Instruction, SeldomMessage

SWITCH = ProtocolDesc(ofp.OFP_VERSION)
"""What the library's classes of messages are told of any switch."""
ALL_TABLES, NO_BUFFER, WHOLE_PACKET = 0xFF, 0xFFFFFFFF, 0xFFFF
RESUBMIT_IN_PORT = 0xFFF8
UNKNOWN_FIELDS = {"nd_reserved": bytes.fromhex("10000204"), "nd_options_type": bytes.fromhex("10000401")}
"""OXM headers of ERICOXM_OF_ICMPV6_ND_RESERVED and _OPTIONS_TYPE (ovs-fields(7), since Open vSwitch 2.11)."""
CHECK_PKT_LARGER = 49
"""NXAST_CHECK_PKT_LARGER, which the library does not know (openvswitch, lib/ofp-actions.c).

Its data: length, bit, header of the register.
"""
_CHECK_PKT_LARGER = struct.Struct("!HHI6x")
_REGISTER_HEADERS = {f"reg{number}": 0x00010004 | number << 9 for number in range(8)}
"""NXM_NX_REG0 to NXM_NX_REG7 (nicira-ext.h)."""

_MASKED = {"tcp_src": 0x80001B04, "udp_src": 0x80001F04, "ipv4_src": 0x80001708, "ipv6_src": 0x80003520}
"""OXM headers with a mask of what tells slices."""
_BITS = {"eth_type": 16, "arp_op": 16, "ip_proto": 8, "icmpv6_type": 8}


def encode(message: Message, codec: EntryCodec) -> bytes:
    """One or more whole OpenFlow messages. Raises TypeError for what no switch understands."""
    match message:
        case PacketOut():
            return packet_out(message, XID_MARK)
        case AddEntries(entries, None):
            return b"".join([codec.add(entry) for entry in entries])
        case AddEntries(entries, int(token)):
            return codec.bundle(entries, XID_MARK | token)
        case ModifyEntries(entries):
            return codec.modify(entries)
        case DeleteEntries(entries):
            return codec.delete(entries)
        case AddFlows(flows):
            return b"".join([_encoded(flow, ofp.OFPFC_ADD) for flow in flows])
        case DeleteFlows(flows):
            return b"".join([_encoded(flow, ofp.OFPFC_DELETE_STRICT) for flow in flows])
    return b"".join([_serialized(item, xid) for item, xid in _by_library(message)])


def _serialized(item: SeldomMessage, token: int) -> bytes:
    item.set_xid(XID_MARK | token)
    item.serialize()
    return bytes(item.buf)


def _by_library(message: Message) -> list[tuple[SeldomMessage, int]]:
    """The library's messages, each with its token (0: none)."""
    match message:
        case DeleteCookie(table, cookie, mask):
            return [(parser.OFPFlowMod(SWITCH, cookie, mask, number(table), ofp.OFPFC_DELETE,
                                       out_port=ofp.OFPP_ANY, out_group=ofp.OFPG_ANY), 0)]
        case Barrier(token):
            return [(parser.OFPBarrierRequest(SWITCH), token)]
        case ReadFlows(table, cookie, mask, token):
            table_id = ALL_TABLES if table is None else number(table)
            return [(parser.OFPFlowStatsRequest(SWITCH, 0, table_id, ofp.OFPP_ANY, ofp.OFPG_ANY, cookie, mask),
                     token)]
        case ReadPorts(token):
            return [(parser.OFPPortStatsRequest(SWITCH, 0, ofp.OFPP_ANY), token)]
        case ReadMeters(token):
            return [(parser.OFPMeterStatsRequest(SWITCH, 0, ofp.OFPM_ALL), token)]
        case SetMeter(meter, rate, burst):
            band = parser.OFPMeterBandDrop(rate=rate, burst_size=burst)
            flags = ofp.OFPMF_PKTPS | ofp.OFPMF_BURST | ofp.OFPMF_STATS
            # ADD fails where the meter is there already (openflow/errors.py knows that); MODIFY then sets its rate.
            return [(parser.OFPMeterMod(SWITCH, command, flags, meter, [band]), 0)
                    for command in (ofp.OFPMC_ADD, ofp.OFPMC_MODIFY)]
        case Configure():
            reasons = 1 << ofp.OFPRR_IDLE_TIMEOUT | 1 << ofp.OFPRR_HARD_TIMEOUT
            ask = parser.OFPAsyncConfigPropReasons(ofp.OFPACPT_FLOW_REMOVED_MASTER, 8, reasons)
            return [(parser.OFPSetAsync(SWITCH, [ask]), 0)]
    raise TypeError(f"{message!r} is not for a switch")


@lru_cache(maxsize=KEPT_FLOWS)
def _encoded(flow: Flow, command: int) -> bytes:
    """Most flows are the same on all LBs, and the library needs 215 us for one."""
    place = _slice_place(flow)
    if place is None:
        return _serialized(_flow_mod(flow, command), 0)
    field, value = flow.match[place]
    bits, none = _bits(value)
    template = bytearray(_encoded_alike(replace(flow, cookie=0, match=(
        *flow.match[:place], (field, none), *flow.match[place + 1:])), command))
    struct.pack_into("!Q", template, 8, flow.cookie)
    offset = _value_of(template, _MASKED[field])
    template[offset:offset + len(bits)] = bits
    return bytes(template)


@lru_cache(maxsize=KEPT_FLOWS)
def _encoded_alike(flow: Flow, command: int) -> bytes:
    """What the flows of a service's slices have in common: a service has some hundreds, and all may change at once."""
    return _serialized(_flow_mod(flow, command), 0)


def _slice_place(flow: Flow) -> int | None:
    """Where, in its match, a flow says which slice it is of; None: it is of none."""
    if known_kind(flow.cookie) is not Kind.SLICE:
        return None
    return next((place for place, (field, value) in enumerate(flow.match) if field in _MASKED and (
        isinstance(value, tuple) or isinstance(value, str) and "/" in value)), None)


def _bits(value: object) -> tuple[bytes, MatchValue]:
    """The bits of a masked port or address; and the same match with none of them."""
    if isinstance(value, tuple):
        return value[0].to_bytes(2), (0, value[1])
    address, _, mask = str(value).partition("/")
    return ip_address(address).packed, f"{type(ip_address(address))(0)}/{mask}"


def _value_of(message: bytes | bytearray, header: int) -> int:
    """Where the value of that field is in a flow-mod's match (OpenFlow 1.4.0, 7.2.3)."""
    offset = 52
    while (found := int.from_bytes(message[offset:offset + 4])) != header:
        offset += 4 + (found & 0xFF)
    return offset + 4


def _flow_mod(flow: Flow, command: int) -> SeldomMessage:
    instructions: list[Instruction] = []
    if command == ofp.OFPFC_ADD:
        if flow.meter is not None:
            instructions.append(parser.OFPInstructionMeter(flow.meter))
        if flow.actions:
            actions = [_action(action) for action in flow.actions]
            instructions.append(parser.OFPInstructionActions(ofp.OFPIT_APPLY_ACTIONS, actions))
        if flow.goto:
            instructions.append(parser.OFPInstructionGotoTable(number(flow.goto)))
    return parser.OFPFlowMod(
        SWITCH, flow.cookie, 0 if command == ofp.OFPFC_ADD else 0xFFFFFFFFFFFFFFFF, number(flow.table), command,
        hard_timeout=flow.hard_timeout, priority=flow.priority, out_port=ofp.OFPP_ANY, out_group=ofp.OFPG_ANY,
        flags=ofp.OFPFF_SEND_FLOW_REM if flow.send_removed else 0,
        match=parser.OFPMatch(_ordered_fields=_match_fields(flow)), instructions=instructions)


def _match_fields(flow: Flow) -> list[tuple[str, object]]:
    """What a field needs (eth_type, then ip_proto) must come before it; the library would put Nicira's fields first."""
    first = {"eth_type": 0, "ip_proto": 1}
    fields = sorted(flow.match, key=lambda pair: first.get(pair[0], 2))
    return [("tcp_flags_nxm" if field == "tcp_flags" else field, _masked(value)) for field, value in fields]


def _masked(value: object) -> object:
    """A prefix, or an address and its mask, as the library takes them: address and mask."""
    if isinstance(value, str) and "/" in value:
        address, _, mask = value.partition("/")
        if not mask.isdigit():
            return address, mask
        network = ip_network(value)
        return str(network.network_address), str(network.netmask)
    return value


class _RawSetField(OFPAction):
    """The action set_field of a field that the library has no name for, as far as a flow-mod needs it.

    See OpenFlow 1.4.0, section 7.2.4.
    """

    def __init__(self, header: bytes, value: int) -> None:
        # Not OFPAction's own: it asks for a registered type.
        self.type = 25
        body = header + value.to_bytes(header[3])
        self.len = 4 + len(body) + -(4 + len(body)) % 8
        self._bytes = struct.pack("!HH", self.type, self.len) + body

    def serialize(self, buf: bytearray, offset: int) -> None:
        """As the library's actions do: into `buf`, which grows as needed."""
        msg_pack_into(f"!{self.len}s", buf, offset, self._bytes)


def _simple(name: str) -> OFPAction:
    if name == "dec_ttl":
        return parser.OFPActionDecNwTtl()
    if name == "pop_vlan":
        return parser.OFPActionPopVlan()
    if name == "forget_in_port":
        return parser.NXActionRegLoad(ofs_nbits=15, dst="in_port_nxm", value=0)
    return parser.OFPActionOutput({"controller": ofp.OFPP_CONTROLLER, "in_port": ofp.OFPP_IN_PORT}[name], WHOLE_PACKET)


def _action(action: FlowAction) -> OFPAction:
    match action:
        case SetField(field, int(value)) if field in UNKNOWN_FIELDS:
            return _RawSetField(UNKNOWN_FIELDS[field], value)
        case SetField(field, value):
            return parser.OFPActionSetField(**{field: value})
        case MoveField(source, target, bits):
            return parser.NXActionRegMove(src_field=source, dst_field=target, n_bits=bits)
        case Output(port):
            return parser.OFPActionOutput(port)
        case Simple(name):
            return _simple(name)
        case FinTimeout(idle):
            return parser.NXActionFinTimeout(idle, 0)
        case SetTtl(ttl):
            return parser.OFPActionSetNwTtl(ttl)
        case CheckLarger(length, field):
            return parser.NXActionUnknown(CHECK_PKT_LARGER, _CHECK_PKT_LARGER.pack(length, 0, _REGISTER_HEADERS[field]))
        case Resubmit(table):
            return parser.NXActionResubmitTable(RESUBMIT_IN_PORT, number(table))
        case Learn(table, priority, seconds, cookie, match):
            specs = [parser.NXFlowSpecMatch(src=value, dst=(field, 0), n_bits=_BITS[field]) for field, value in match]
            return parser.NXActionLearn(number(table), specs, hard_timeout=seconds, priority=priority, cookie=cookie)
    raise TypeError(f"no OpenFlow action for {action!r}")
