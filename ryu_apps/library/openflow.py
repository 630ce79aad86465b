"""The core's messages as OpenFlow 1.4: hot ones by lbctl.openflow, all others by the library's classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbctl.openflow.flow_mods import added, deleted
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
from lbctl.openflow.meter_mods import set_meter
from lbctl.openflow.outbound import EntryCodec, packet_out
from lbctl.openflow.tables import number
from ryu_apps.library.names import ProtocolDesc, ofp, parser
from ryu_apps.shell.wire import XID_MARK

if TYPE_CHECKING:
    from ryu_apps.library.names import SeldomMessage

SWITCH = ProtocolDesc(ofp.OFP_VERSION)
"""What the library's classes of messages are told of any switch."""
ALL_TABLES = 0xFF


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
            return b"".join([added(flow, XID_MARK) for flow in flows])
        case DeleteFlows(flows):
            return b"".join([deleted(flow, XID_MARK) for flow in flows])
        case SetMeter():
            return set_meter(message, XID_MARK)
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
        case Configure():
            reasons = 1 << ofp.OFPRR_IDLE_TIMEOUT | 1 << ofp.OFPRR_HARD_TIMEOUT
            ask = parser.OFPAsyncConfigPropReasons(ofp.OFPACPT_FLOW_REMOVED_MASTER, 8, reasons)
            return [(parser.OFPSetAsync(SWITCH, [ask]), 0)]
    raise TypeError(f"{message!r} is not for a switch")
