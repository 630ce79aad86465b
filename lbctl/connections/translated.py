"""Whose a packet is that a switch has translated and sent on: its addresses are the inverse of what comes back."""

from __future__ import annotations

from typing import NamedTuple

from lbctl.connections.arrival import Arrival
from lbctl.connections.sliced import find
from lbctl.entries.access_table import Entry
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.values.keys import inverse_key
from lbctl.values.side import EXTERNAL


class Translated(NamedTuple):
    """entry: None if it is there no more."""

    serving: Serving
    entry: Entry | None


def whose(ground: Ground, arrival: Arrival) -> Translated | None:
    """None: of no external IP."""
    packet, key, directory = arrival.packet, arrival.key, ground.external_ips
    back = inverse_key(key) if key else None
    if arrival.way is EXTERNAL and back and (found := directory.of_reply(back)):
        return Translated(*found)
    serving = directory.of_packet(packet.dst, packet.src, arrival.way.other)
    if serving is None:
        return None
    return Translated(serving, find(ground, arrival.switch, serving, arrival.way.other, back) if back else None)
