"""Flow-mods by the switch library's classes: what lbctl/openflow/flow_mods.py is compared with."""

from __future__ import annotations

import struct
from ipaddress import ip_network

from lbctl.openflow.flow import (
    CheckLarger,
    FinTimeout,
    Flow,
    FlowAction,
    Learn,
    MoveField,
    Output,
    Resubmit,
    SetField,
    SetTtl,
    Simple,
)
from lbctl.openflow.tables import number
from ryu_apps.library.names import LIBRARY, ofp, parser
from ryu_apps.library.openflow import SWITCH

if LIBRARY == "ryu":
    from ryu.lib.pack_utils import msg_pack_into
    from ryu.ofproto.ofproto_v1_4_parser import OFPAction
else:
    from os_ken.lib.pack_utils import msg_pack_into
    from os_ken.ofproto.ofproto_v1_4_parser import OFPAction

WHOLE_PACKET, RESUBMIT_IN_PORT = 0xFFFF, 0xFFF8
UNKNOWN_FIELDS = {"nd_reserved": bytes.fromhex("10000204"), "nd_options_type": bytes.fromhex("10000401")}
CHECK_PKT_LARGER = 49
_CHECK_PKT_LARGER = struct.Struct("!HHI6x")
_REGISTER_HEADERS = {f"reg{number}": 0x00010004 | number << 9 for number in range(8)}
_BITS = {"eth_type": 16, "arp_op": 16, "ip_proto": 8, "icmpv6_type": 8}


def flow_mod(flow: Flow, command: int, xid: int) -> bytes:
    """The whole message."""
    message = _flow_mod(flow, command)
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def _flow_mod(flow: Flow, command: int) :
    instructions = []
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
