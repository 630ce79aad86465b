"""Packets that have no entry in the switch, though they open no connection."""

from __future__ import annotations

from lbctl.connections.answers import drop, go_on, refuse, send_again
from lbctl.connections.arrival import Arrival
from lbctl.connections.endings import Endings
from lbctl.connections.hops import lacks_hop, learn_hops
from lbctl.connections.transition import Transition
from lbctl.entries.access_table import GONE, NO_HOP, REINSTALLED, Entry
from lbctl.frames.packets import ACK, SYN
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.entry_flows import checked_side, entry_flows
from lbctl.openflow.messages import AddEntries, AddFlows, DeleteEntries, Message, entry_messages
from lbctl.values.keys import unpack_key
from lbctl.values.protocols import TCP
from lbctl.values.side import INTERNAL
from lbctl.values.transfer import TransferMode


class Strays:
    """They end at a known entry, or with an error."""

    def __init__(self, ground: Ground, transition: Transition, endings: Endings) -> None:
        self._ground = ground
        self._transition = transition
        self._endings = endings

    def arrived(self, arrival: Arrival, serving: Serving) -> Outbox:
        """Put the flow of a known entry back, else answer with an error."""
        if arrival.switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, serving)
        key = arrival.key
        entry = None
        if key:
            entry = serving.table.find(arrival.way, key) or self._endings.revived(arrival, serving, key)
        if entry:
            return self.put_back(arrival, serving, entry)
        if key and arrival.way is INTERNAL and not serving.outbound and self._opens(arrival, key):
            arrival.switch.counters["no_way_outside"] += 1
        return refuse(arrival, serving)

    def _opens(self, arrival: Arrival, key: bytes) -> bool:
        """A server's packet, which no NAT gateway takes: would it open a connection?"""
        if arrival.packet.protocol == TCP:
            return _is_syn(arrival)
        return not self._ground.external_ips.answers(key)

    def put_back(self, arrival: Arrival, serving: Serving, entry: Entry) -> Outbox:
        """The switch has lost a flow of this entry. Not the other side's: that one may have seen its FIN, and would
        forget it."""
        side, switch = arrival.way, arrival.switch
        both_lost, taught = False, list[Message]()
        if lacks_hop(serving, entry):
            if not learn_hops(arrival, serving, entry):
                # Only packets from the other side can tell it: let the next one come here.
                drop(switch, "next_hop_unknown")
                return [ToSwitch(name, DeleteEntries((entry,))) for name in serving.holders]
            both_lost, taught = True, self._teach(serving, entry)
        if arrival.way is checked_side(bool(entry.inner_hop)):
            serving.table.half_open.pop(entry, None)  # its opener says more; the other end only repeats its SYN-ACK
        entry.flags |= REINSTALLED
        if arrival.packet.payload_length:
            # Its sender has not closed: what ran out had been told of the FIN of an earlier connection with the same
            # ports, which the datapath's cache may still remember.
            entry.flags &= ~side.flag
        serving.table.changed(entry)
        switch.counters["entries_put_back"] += 1
        flows = entry_flows(entry, self._ground.settings.linger)
        messages = [AddFlows(flows if both_lost else (flows[side.number],)), *taught]
        holders = [name for name in serving.holders if self._ground.switches[name].ready]
        out: Outbox = [ToSwitch(name, message) for message in messages for name in holders]
        # Every SYN comes to the controller: through all tables this one would come again, and again.
        out.append((go_on if _is_syn(arrival) else send_again)(arrival, serving))
        return out

    def _teach(self, serving: Serving, entry: Entry) -> list[Message]:
        """What a client's packet has told is the next hop of its other connections too; and if it came by a router, of
        all others that do."""
        client = unpack_key(entry.key)[1]
        by_router = self._ground.behind_router(client)
        alike: list[Entry] = []
        rest: list[Entry] = []
        for other in serving.hopless:
            theirs = unpack_key(other.key)[1]
            if not other.flags & GONE and other.next_hop == NO_HOP:
                same = theirs == client or by_router and self._ground.behind_router(theirs)
                (alike if same else rest).append(other)
        serving.hopless = rest
        for other in alike:
            other.next_hop = entry.next_hop
            serving.table.changed(other)
        return entry_messages(AddEntries, alike)


def _is_syn(arrival: Arrival) -> bool:
    return arrival.packet.protocol == TCP and arrival.packet.tcp_flags & (SYN | ACK) == SYN
