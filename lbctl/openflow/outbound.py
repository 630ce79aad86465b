"""Packet-out as OpenFlow 1.4 bytes: sent for every new connection and every held packet (Ryu needs 60 us for one).

Sources: OpenFlow 1.4.0 section 7.3.7; nicira-ext.h for resubmit.
"""

from __future__ import annotations

import struct

from lbctl.messages import OUTPUT_TABLE, PacketOut
from lbctl.pipeline.tables import number

OFPP_TABLE, OFPP_IN_PORT_NXM = 0xFFFFFFF9, 0xFFF8

_HEAD = struct.Struct("!BBHIIIH6x")
_OUTPUT = struct.Struct("!HHIH6x")
_RESUBMIT = struct.Struct("!HHIHHB3x")


def packet_out(message: PacketOut, xid: int) -> bytes:
    """The whole OpenFlow message."""
    if isinstance(message.output, str):
        action = _RESUBMIT.pack(0xFFFF, 16, 0x00002320, 14, OFPP_IN_PORT_NXM, number(message.output))
    else:
        port = OFPP_TABLE if message.output == OUTPUT_TABLE else message.output
        action = _OUTPUT.pack(0, 16, port, 0xFFFF)
    size = _HEAD.size + 16 + len(message.frame)
    return _HEAD.pack(5, 13, size, xid, 0xFFFFFFFF, message.in_port, 16) + action + message.frame
