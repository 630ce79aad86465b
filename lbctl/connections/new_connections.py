"""What a connection request leads to: an entry at every LB that holds this external IP's, by which it then goes on."""

from __future__ import annotations

from ipaddress import ip_address

from lbctl.connections.answers import drop, refuse, send_icmp_error
from lbctl.connections.arrival import Arrival
from lbctl.connections.endings import Endings
from lbctl.connections.opening import Opening, Refusal
from lbctl.connections.transition import Transition
from lbctl.entries.access_table import ENDING, REINSTALLED, RESET, REUSED, Entry
from lbctl.frames import icmp
from lbctl.frames.packets import Packet
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.messages import AddEntries, PacketOut
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import service_of
from lbctl.values.protocols import TCP
from lbctl.values.transfer import TransferMode

EARLY_SECONDS = 1.0
"""A datagram may come here for so long after its entry was made, since the datapath does not know the flows yet. They
are not sent again with each one: the datapath would be checked anew each time, and a burst last longer."""


class NewConnections:
    """What makes their entries known."""

    def __init__(self, ground: Ground, transition: Transition, endings: Endings) -> None:
        self._switches = ground.switches
        self._transition = transition
        self._endings = endings
        self._opening = Opening(ground)

    def arrived(self, arrival: Arrival, serving: Serving) -> Outbox:
        """A SYN, or the first datagram; or one that comes again before the switch knows the entry."""
        switch, packet = arrival.switch, arrival.packet
        if switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, serving)
        key = arrival.key
        if key is None:
            return drop(switch, "unknown_protocol")
        if packet.ttl <= 1:
            return send_icmp_error(arrival, serving, icmp.TTL_EXPIRED)
        out: Outbox = []
        entry = serving.table.find(arrival.side, key)
        reused = packet.protocol == TCP and (entry is not None or self._endings.has_just_ended(key))
        if entry and (entry.flags & ENDING and entry.isn != packet.seq or _waits_in_vain(serving, entry, packet)):
            out = self._endings.end_all(serving, [entry], arrival.now)
            entry = None
        if entry is None:
            try:
                entry = self._opening.entry(arrival, serving, key)
            except Refusal as refusal:
                if refusal.wait:
                    return [*out, *drop(switch, refusal.wait)]
                switch.counters["connections_refused"] += 1
                return [*out, *refuse(arrival, serving)]
            entry.flags = REUSED if reused else 0
            serving.table.add(entry)
            switch.counters["connections_opened"] += 1
            serving.opened += 1
        elif not self._comes_again(arrival, entry):
            return [_go_on(arrival)]
        # An LB that is being read back would get the entry too late to be read, and too early to be put back.
        out += [ToSwitch(name, AddEntries((entry,))) for name in serving.holders if self._switches[name].ready]
        out.append(_go_on(arrival))
        return out

    @staticmethod
    def _comes_again(arrival: Arrival, entry: Entry) -> bool:
        """A packet that opened, or would open, that entry. Shall the switches be given the entry again?"""
        packet, counters = arrival.packet, arrival.switch.counters
        if packet.protocol != TCP:
            counters["early_datagrams"] += 1
            return arrival.now >= entry.created + EARLY_SECONDS
        if entry.isn == packet.seq:
            counters["syn_retransmissions"] += 1
            # A RST that came meanwhile was for what the server still had of an earlier connection with these ports.
            entry.flags = entry.flags & ~RESET | REINSTALLED
        else:
            # The port is used again: by a connection that ended unseen (its flows may be running out), or by a forged
            # SYN. The same server can tell, and the flows are put back as new.
            entry.isn, entry.created, entry.last_seen = packet.seq, arrival.now, arrival.now
            entry.flags |= REUSED
        return True


def _waits_in_vain(serving: Serving, entry: Entry, packet: Packet) -> bool:
    """A SYN that has not been answered, to a server that has gone down meanwhile?"""
    if not serving.servers.down or packet.protocol != TCP or entry.isn != packet.seq:
        return False
    address, port = entry.server
    return (service_of(entry.key), Endpoint(ip_address(address), port)) in serving.servers.down


def _go_on(arrival: Arrival) -> ToSwitch:
    """By the entry that is there now."""
    message = PacketOut(arrival.frame, arrival.in_port, arrival.side.access_table)
    return ToSwitch(arrival.switch.lb.name, message)
