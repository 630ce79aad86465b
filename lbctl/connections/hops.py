"""Entries of which it is not known yet where they are answered to: one that was read back with one flow only."""

from __future__ import annotations

from lbctl.connections.arrival import Arrival
from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.frames.packets import parse_mac
from lbctl.ground.serving import Serving
from lbctl.values.side import EXTERNAL


def lacks_hop(serving: Serving, entry: Entry) -> bool:
    """Such an entry's flows would send packets to no MAC."""
    return entry.next_hop == NO_HOP or serving.outbound and not entry.inner_hop


def learn_hops(arrival: Arrival, serving: Serving, entry: Entry) -> bool:
    """Completes that entry, whose packet this is, where it lacks a hop. False: this packet does not tell it."""
    from_outside = arrival.way is EXTERNAL
    if not serving.outbound:
        if from_outside and entry.next_hop == NO_HOP:
            entry.next_hop = arrival.packet.eth_src
    else:
        router = serving.config.router
        mac = arrival.switch.neighbours.get(router) if router else None
        if entry.next_hop == NO_HOP and mac:
            entry.next_hop = parse_mac(mac)
        if not entry.inner_hop and not from_outside:
            entry.inner_hop = arrival.packet.eth_src
    return not lacks_hop(serving, entry)
