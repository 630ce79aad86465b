"""A meter as the bytes of meter-mods (OpenFlow 1.4.0, 7.3.4.4): a site has two for each external IP, on each LB."""

from __future__ import annotations

import struct

from lbctl.openflow.messages import SetMeter

VERSION, METER_MOD = 5, 29
ADD, MODIFY = 0, 1
PACKETS_PER_SECOND, BURST, STATS = 2, 4, 8
DROP = 1
_METER_MOD = struct.Struct("!BBHIHHIHHII4x")


def set_meter(meter: SetMeter, xid: int) -> bytes:
    """ADD fails where the meter is there already (openflow/errors.py knows that); MODIFY then sets its rate."""
    return b"".join([
        _METER_MOD.pack(VERSION, METER_MOD, _METER_MOD.size, xid, command, PACKETS_PER_SECOND | BURST | STATS,
                        meter.number, DROP, 16, meter.rate, meter.burst)
        for command in (ADD, MODIFY)])
