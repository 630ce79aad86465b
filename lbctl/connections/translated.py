"""Whose a packet is that a switch has translated and sent on: its addresses are the inverse of what comes back."""

from __future__ import annotations

from typing import NamedTuple

from lbctl.connections.arrival import Arrival
from lbctl.entries.access_table import Entry
from lbctl.ground.serving import Directory, Serving
from lbctl.values.keys import inverse_key
from lbctl.values.side import EXTERNAL, INTERNAL


class Translated(NamedTuple):
    """entry: None if it is there no more."""

    serving: Serving
    entry: Entry | None


def whose(directory: Directory, arrival: Arrival) -> Translated | None:
    """None: of no external IP."""
    packet, key = arrival.packet, arrival.key
    if serving := directory.by_address.get(packet.src):
        side = EXTERNAL
    elif serving := directory.of_packet(packet.dst, packet.src, INTERNAL):
        side = INTERNAL
    else:
        return None
    return Translated(serving, serving.table.find(side, inverse_key(key)) if key else None)
