"""Packet-out as OpenFlow 1.4 bytes: sent for every new connection and every held packet (Ryu needs 60 us for one).

Sources: OpenFlow 1.4.0 section 7.3.7; nicira-ext.h for resubmit.
"""

from __future__ import annotations

import struct

from lbctl.openflow.messages import OUTPUT_TABLE, PacketOut
from lbctl.openflow.tables import number

OFPP_TABLE, OFPP_IN_PORT_NXM = 0xFFFFFFF9, 0xFFF8

_HEAD = struct.Struct("!BBHIIIH6x")
_OUTPUT = struct.Struct("!HHIH6x")
_TUNNEL = struct.Struct("!HHI4s4xHHI4s4xHHIQ")
_TUN_SRC, _TUN_DST, _TUN_ID = 0x00013E04, 0x00014004, 0x80004C08
"""Headers of the fields: the address that a packet's tunnel comes from, goes to, and its key."""
_RESUBMIT = struct.Struct("!HHIHHB3x")


def packet_out(message: PacketOut, xid: int) -> bytes:
    """The whole OpenFlow message."""
    if isinstance(message.output, str):
        action = _RESUBMIT.pack(0xFFFF, 16, 0x00002320, 14, OFPP_IN_PORT_NXM, number(message.output))
    else:
        port = OFPP_TABLE if message.output == OUTPUT_TABLE else message.output
        action = _OUTPUT.pack(0, 16, port, 0xFFFF)
    if message.tunnel:
        remote, key = message.tunnel.remote.packed, message.tunnel.key
        action = _TUNNEL.pack(25, 16, _TUN_SRC, remote, 25, 16, _TUN_DST, remote, 25, 16, _TUN_ID, key) + action
    size = _HEAD.size + len(action) + len(message.frame)
    return _HEAD.pack(5, 13, size, xid, 0xFFFFFFFF, message.in_port, len(action)) + action + message.frame
