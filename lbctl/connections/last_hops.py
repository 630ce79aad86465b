"""Follows who has opened a connection to another MAC: a client whose router has failed over, or that is behind two of
them, or has another network card; a NAT gateway's inside host likewise.

Answers go to where the last packet came from (F5 calls it auto last hop). A forged packet diverts them as well, until
the next one that its host sends.
"""

from __future__ import annotations

from lbctl.connections.answers import drop
from lbctl.connections.arrival import Arrival
from lbctl.connections.client_hops import ClientHopsMet
from lbctl.connections.lately import Lately
from lbctl.connections.silent_routers import SilentRouters
from lbctl.connections.translated import whose
from lbctl.entries.access_table import Entry
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.entry_flows import checked_side
from lbctl.openflow.messages import ModifyEntries
from lbctl.values.keys import unpack_key
from lbctl.values.side import Side

SPACING, FOLLOWED = 1.0, 20_000
"""Seconds in which an entry follows once, since its packets may come by two routers in turn; so many entries do in that
time."""
NEW_HOPS = 200
"""A second: so many MACs become known. Others' packets are delivered all the same, and shown again."""


class LastHops:
    """Of all entries."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._silent = SilentRouters(ground)
        self._clients = ClientHopsMet(ground)
        self._followed = Lately[bytes](SPACING, FOLLOWED)
        """By the keys of the entries."""
        self._met = Lately[bytes](SPACING, NEW_HOPS)
        """MACs."""

    def met(self, side: Side, mac: bytes, now: float) -> Outbox:
        """An entry answers to that MAC, where its opener's packets come from."""
        if self._ground.hops.knows(side, mac) or not self._met.may(mac, now):
            return []
        return self._ground.let_pass(side, mac)

    def arrived(self, arrival: Arrival) -> Outbox:
        """A packet that has been delivered, and whose MAC the switch did not expect."""
        found = whose(self._ground, arrival)
        if found is None:
            return drop(arrival.switch, "unknown_address")
        serving, entry = found
        if entry is None:
            return []
        mac = arrival.packet.eth_src
        if serving.table.by_key(entry.key) is not entry:  # its slice's
            return self._clients.met(serving, unpack_key(entry.key)[1], mac, arrival.now)
        if mac == (entry.inner_hop or entry.next_hop):
            return self.met(arrival.way, mac, arrival.now)  # the switch had no flow for it
        return self._follow(arrival, serving, entry, mac)

    def _follow(self, arrival: Arrival, serving: Serving, entry: Entry, mac: bytes) -> Outbox:
        wrong_way = arrival.way is not checked_side(bool(entry.inner_hop))
        if wrong_way or not self._followed.may(entry.key, arrival.now):
            return []
        if entry.inner_hop:
            entry.inner_hop = mac
        else:
            if self._ground.behind_router(unpack_key(entry.key)[1]):
                self._silent.left(arrival.switch.lb.name, entry.next_hop, mac, arrival.now)
            entry.next_hop = mac
        serving.table.changed(entry)
        arrival.switch.counters["hops_followed"] += 1
        changed = [ToSwitch(name, ModifyEntries((entry,))) for name in serving.holders
                   if self._ground.switches[name].ready]
        return [*self.met(arrival.way, mac, arrival.now), *changed]

    def tick(self, now: float) -> Outbox:
        """Lets what is left at a silent router follow."""
        return self._silent.tick(now)
