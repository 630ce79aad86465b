"""What happens to packets that the switches can't handle themselves, and how entries come and go.

Every method returns the messages that its event calls for. Cached datapath flows may send a packet here a moment after
the tables have changed, so a packet's kind is a hint: what decides is the access table and the LB's role now.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from ipaddress import ip_address

from lbctl.connections.answers import drop, mac_of, send_error, time_exceeded
from lbctl.connections.icmp_handler import IcmpHandler
from lbctl.connections.opening import Opening, Refusal
from lbctl.entries.access_table import ENDING, FIN_IN, FIN_OUT, GONE, NO_HOP, REINSTALLED, RESET, REUSED, Entry
from lbctl.entries.held import HeldPacket
from lbctl.frames import icmp, packets
from lbctl.frames.packets import Packet, parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.cookies import Kind, kind_of, owner_in
from lbctl.openflow.entry_flows import entry_flows
from lbctl.openflow.inbound import EntryRemoved, EntryStats, PacketIn
from lbctl.openflow.messages import OUTPUT_TABLE, AddEntries, AddFlows, DeleteEntries, PacketOut, portions
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import pack_key, unpack_key
from lbctl.values.protocols import TCP, UDP
from lbctl.values.transfer import TransferMode

CACHED_SECONDS = 15.0
"""The datapath may remember an unused flow for this long: Open vSwitch's max-idle (10 s), and some more."""
UNDER_WAY = 1.0
"""Seconds: a datagram may come here for so long after its entry was made, since the datapath does not know the flows yet. They are
not sent again with each one: the datapath would be checked anew each time, and a burst last longer."""
CLOCK_RATIO, CLOCK_STEP = 1.01, 0.5
"""A switch's clock may run that much faster than ours; and a busy one reads its clock only so often (seconds). A flow that
ran out was there for a second (the shortest linger) at least, so a new entry is told from an old flow all the same."""


class Connections:
    """Entries and packets of all external IPs."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._switches, self._directory = ground, ground.switches, ground.external_ips
        self._opening = Opening(ground)
        self._now = 0.0
        self._ended: dict[bytes, float] = {}
        """Keys of the opening packets of entries that ended in the last CACHED_SECONDS, and when; the oldest first."""
        self._lingering: deque[tuple[float, Serving, Entry]] = deque()
        icmp_handler = IcmpHandler(ground.external_ips)
        self._by_kind = {Kind.NEW: self._new, Kind.STRAY: self._stray, Kind.HOLD: self._hold,
                         Kind.UNASSIGNED: self._unassigned}
        self._translated = {Kind.RESET: self._reset, Kind.EXPIRED: icmp_handler.expired, Kind.TOO_BIG: icmp_handler.too_big,
                            Kind.TRANSLATE_ICMP: icmp_handler.translate}
        """Kinds of packets whose own addresses don't tell what they concern."""

    def packet_in(self, switch: Switch, packet_in: PacketIn, now: float) -> Outbox:
        """A packet that has come to the controller, by whatever flow."""
        counters = switch.counters
        counters["packet_ins"] += 1
        kind = kind_of(packet_in.cookie)
        handler, translated = self._by_kind.get(kind), self._translated.get(kind)
        if handler is None and translated is None:
            return self._drop(switch, "unknown_flow")
        if not switch.ready:
            return self._drop(switch, "not_ready")
        try:
            packet = packets.decode(packet_in.frame)
        except packets.Malformed:
            return self._drop(switch, "malformed")
        if translated:
            return translated(switch, packet, packet_in, now)
        inward = packet_in.in_port == switch.of_ports.external.number
        serving = self._directory.of_packet(packet.src, packet.dst, inward)
        if serving is None:
            return self._drop(switch, "unknown_address")
        if not inward:
            packet_in = packet_in._replace(tunnel=serving.tunnel_to(packet.src))
        return handler(switch, serving, packet, packet_in, inward, now)

    _drop, _send_error, _mac = staticmethod(drop), staticmethod(send_error), staticmethod(mac_of)

    def _new(self, switch: Switch, serving: Serving, packet: Packet, packet_in: PacketIn, inward: bool,
             now: float) -> Outbox:
        """A connection request: makes an entry at every LB that holds this external IP's, then lets it go on."""
        if switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._hold(switch, serving, packet, packet_in, inward, now)
        if packet.src_port is None:
            return self._drop(switch, "unknown_protocol")
        if packet.ttl <= 1:
            return time_exceeded(switch, serving, packet, packet_in.frame, inward)
        key = pack_key(packet.protocol, packet.src, packet.src_port, packet.dst, packet.dst_port)
        out: Outbox = []
        entry = serving.table.by_key(key) if inward else serving.table.by_reply(key)
        reused = packet.protocol == TCP and (entry is not None or key in self._ended)
        if entry and (entry.flags & ENDING and entry.isn != packet.seq or self._waits_in_vain(serving, entry, packet)):
            out = self.end(serving, entry)
            entry = None
        if entry is None:
            try:
                entry = self._opening.entry(switch, serving, packet, inward, now)
            except Refusal as refusal:
                if refusal.wait:
                    return [*out, *self._drop(switch, refusal.wait)]
                switch.counters["connections_refused"] += 1
                return [*out, *self._answer(switch, serving, packet, packet_in, inward)]
            entry.flags = REUSED if reused else 0
            serving.table.add(entry)
            switch.counters["connections_opened"] += 1
            serving.opened += 1
        elif packet.protocol != TCP:
            switch.counters["early_datagrams"] += 1
            if now < entry.created + UNDER_WAY:
                return [self._go_on(switch, packet_in, inward)]
        elif entry.isn == packet.seq:
            switch.counters["syn_retransmissions"] += 1
            # A RST that came meanwhile was for what the server still had of an earlier connection with these ports.
            entry.flags = entry.flags & ~RESET | REINSTALLED
        else:
            # The port is used again: by a connection that ended unseen (its flows may be running out), or by a forged
            # SYN. The same server can tell, and the flows are put back as new.
            entry.isn, entry.created, entry.last_seen = packet.seq, now, now
            entry.flags |= REUSED
        return [*out, *self._install(serving, entry), self._go_on(switch, packet_in, inward)]

    @staticmethod
    def _waits_in_vain(serving: Serving, entry: Entry, packet: Packet) -> bool:
        """A SYN that has not been answered, to a server that has gone down meanwhile?"""
        if not serving.servers.down or packet.protocol != TCP or entry.isn != packet.seq:
            return False
        address, port = entry.server
        return (unpack_key(entry.key)[::4], Endpoint(ip_address(address), port)) in serving.servers.down

    @staticmethod
    def _go_on(switch: Switch, packet_in: PacketIn, inward: bool) -> ToSwitch:
        """By the entry that has just been made."""
        return ToSwitch(switch.lb.name, PacketOut(packet_in.frame, packet_in.in_port, "access_in" if inward else "access_out"))

    def _install(self, serving: Serving, entry: Entry) -> Outbox:
        return [ToSwitch(name, AddEntries((entry,))) for name in self._ready_holders(serving)]

    def _ready_holders(self, serving: Serving) -> list[str]:
        """An LB that is being read back would get a new entry too late to be read, and too early to be put back."""
        return [name for name in serving.holders if self._switches[name].ready]

    def _stray(self, switch: Switch, serving: Serving, packet: Packet, packet_in: PacketIn, inward: bool,
               now: float) -> Outbox:
        """A packet without an entry in the switch: put the flow of a known entry back, else answer with an error."""
        if switch.role(serving.address).mode is not TransferMode.NORMAL:
            return self._hold(switch, serving, packet, packet_in, inward, now)
        if packet.src_port is not None:
            key = pack_key(packet.protocol, packet.src, packet.src_port, packet.dst, packet.dst_port)
            entry = serving.table.by_key(key) if inward else serving.table.by_reply(key)
            if entry:
                return self._put_back(switch, serving, entry, packet, packet_in, inward)
        return self._answer(switch, serving, packet, packet_in, inward)

    def _put_back(self, switch: Switch, serving: Serving, entry: Entry, packet: Packet, packet_in: PacketIn,
                  inward: bool) -> Outbox:
        """The switch has lost a flow of this entry. Not the other direction's: that one may have seen its FIN, and
        would forget it."""
        only_this_way, taught = slice(0, 1) if inward else slice(1, 2), []
        if entry.next_hop == NO_HOP or serving.outbound and not entry.inner_hop:
            if not self._learn_hops(switch, serving, entry, packet, inward):
                # Only packets from the other side can tell it: let the next one come here.
                switch.counters["dropped_next_hop_unknown"] += 1
                return [ToSwitch(name, DeleteEntries((entry,))) for name in serving.holders]
            only_this_way = slice(2)
            taught = self._teach(serving, entry)
        entry.flags |= REINSTALLED
        if packet.payload_length:
            # Its sender has not closed: what ran out had been told of the FIN of an earlier connection with the same
            # ports, which the datapath's cache may still remember.
            entry.flags &= ~(FIN_IN if inward else FIN_OUT)
        serving.table.changed(entry)
        switch.counters["entries_put_back"] += 1
        flows = entry_flows(entry, self._ground.settings.linger)[only_this_way]
        return [*(ToSwitch(name, message) for message in (AddFlows(flows), *taught) for name in self._ready_holders(serving)),
                ToSwitch(switch.lb.name, PacketOut(packet_in.frame, packet_in.in_port, OUTPUT_TABLE, packet_in.tunnel))]

    def _teach(self, serving: Serving, entry: Entry) -> list[AddEntries]:
        """What a client's packet has told is the next hop of its other connections too; and if it came by a router, of all others
        that do."""
        client, near = unpack_key(entry.key)[1], self._ground.on_link(unpack_key(entry.key)[1])
        alike, rest = [], []
        for other in serving.hopless:
            theirs = unpack_key(other.key)[1]
            if not other.flags & GONE and other.next_hop == NO_HOP:
                (alike if theirs == client or not (near or self._ground.on_link(theirs)) else rest).append(other)
        serving.hopless = rest
        for other in alike:
            other.next_hop = entry.next_hop
            serving.table.changed(other)
        return portions(AddEntries, alike)

    @staticmethod
    def _learn_hops(switch: Switch, serving: Serving, entry: Entry, packet: Packet, inward: bool) -> bool:
        """Completes an entry that was read back with one flow only. False: this packet does not tell what is missing."""
        if serving.outbound:
            router = switch.neighbours.get(serving.config.router)
            if entry.next_hop == NO_HOP and router:
                entry.next_hop = parse_mac(router)
            if not entry.inner_hop and not inward:
                entry.inner_hop = packet.eth_src
            return entry.next_hop != NO_HOP and bool(entry.inner_hop)
        if inward:
            entry.next_hop = packet.eth_src
        return inward

    def _answer(self, switch: Switch, serving: Serving, packet: Packet, packet_in: PacketIn, inward: bool) -> Outbox:
        """There is no connection for this packet here."""
        mac = self._mac(switch, inward)
        if packet.protocol == TCP:
            return self._send_error(switch, packets.tcp_reset(packet, mac), inward, packet_in.tunnel)
        kind = icmp.PORT_UNREACHABLE if packet.protocol == UDP else icmp.PROTOCOL_UNREACHABLE
        return self._send_error(switch, icmp.error(packet_in.frame, kind, mac, serving.error_source(packet.dst, inward)), inward,
                                packet_in.tunnel)

    def _unassigned(self, switch: Switch, serving: Serving, packet: Packet, packet_in: PacketIn, inward: bool,
                    now: float) -> Outbox:
        if switch.role(serving.address).mode is not None:
            return [ToSwitch(switch.lb.name, PacketOut(packet_in.frame, packet_in.in_port, OUTPUT_TABLE, packet_in.tunnel))]
        return self._send_error(switch, icmp.error(packet_in.frame, icmp.HOST_UNREACHABLE, self._mac(switch, inward),
                                                   serving.error_source(packet.dst, inward)), inward,
                                packet_in.tunnel)

    # Held packets.

    def _hold(self, switch: Switch, serving: Serving, packet: Packet, packet_in: PacketIn, inward: bool,
              now: float) -> Outbox:
        """In transition: wait for the LB that the external IP is assigned to, or go to it if it is normal again."""
        held = HeldPacket(packet_in.frame, inward, packet_in.tunnel)
        if self._serves(serving):
            return [self._through(self._switches[serving.assigned], held)]
        if serving.move is None:
            return self._drop(switch, "no_normal_lb")
        serving.held.hold(held)
        return []

    def _serves(self, serving: Serving) -> bool:
        home = self._switches[serving.assigned]
        return home.ready and home.role(serving.address).mode is TransferMode.NORMAL

    def release(self, serving: Serving, name: str) -> Outbox:
        """The held packets, in order, through that LB's tables."""
        home = self._switches[name]
        if not home.ready:
            serving.held.discard()
            return []
        return [self._through(home, packet) for packet in serving.held.release()]

    @staticmethod
    def _through(home: Switch, packet: HeldPacket) -> ToSwitch:
        port = home.of_ports.external if packet.inward else home.of_ports.to(packet.tunnel)
        frame = packets.with_eth_dst(packet.frame, parse_mac(port.mac))
        return ToSwitch(home.lb.name, PacketOut(frame, port.number, OUTPUT_TABLE, packet.tunnel))

    # How entries end.

    def _reset(self, switch: Switch, packet: Packet, _: PacketIn, now: float) -> Outbox:
        """A RST that a switch has translated and sent on: its entry lingers, then ends."""
        key = pack_key(packet.protocol, packet.dst, packet.dst_port or 0, packet.src, packet.src_port or 0)
        # It has been translated, so it carries the inverse of the other side's key.
        if serving := self._directory.by_address.get(packet.src):
            entry = serving.table.by_key(key)
        elif serving := self._directory.of_packet(packet.dst, packet.src, inward=False):
            entry = serving.table.by_reply(key)
        else:
            return self._drop(switch, "unknown_address")
        if entry and not entry.flags & RESET:
            entry.flags |= RESET
            serving.table.changed(entry)
            self._lingering.append((now + self._ground.settings.linger, serving, entry))
        return []

    def entry_removed(self, switch: Switch, removed: EntryRemoved, now: float) -> Outbox:
        """One direction of an entry has seen its FIN and ran out; after both, the entry ends."""
        serving = self._directory.by_owner.get(owner_in(removed.cookie))
        if serving is None:
            return []
        entry = serving.table.by_key(removed.key) if removed.inward else serving.table.by_reply(removed.key)
        if entry is None or removed.duration > (now - entry.created) * CLOCK_RATIO + CLOCK_STEP:
            return []  # older than the entry: it was a flow of an earlier connection with the same ports
        entry.flags |= FIN_IN if removed.inward else FIN_OUT
        if serving.holders != {switch.lb.name}:
            entry.flags |= REINSTALLED
        if not self._has_finished(entry):
            serving.table.changed(entry)
            return []
        out = self.end(serving, entry)
        return out if entry.flags & REINSTALLED else []

    def finished(self, serving: Serving, found: Iterable[EntryStats], now: float) -> Outbox:
        """What an LB held of an external IP that it serves no more. Which of it has seen its FIN or RST was known there
        alone: elsewhere those entries would stay until they are idle for too long."""
        ended = []
        for stats in found:
            entry = serving.table.by_key(stats.key)
            # A flow older than the entry was an earlier connection's, with the same ports.
            if stats.finished and entry and entry.reply == stats.reply and stats.duration <= now - entry.created:
                entry.flags |= REINSTALLED | (FIN_IN if stats.inward else FIN_OUT)
                if self._has_finished(entry):
                    ended.append(entry)
        return self.end_all(serving, ended)

    @staticmethod
    def _has_finished(entry: Entry) -> bool:
        """FIN both ways? Where the ports had been used shortly before, nobody knows: the datapath's cache may have told the
        flows of the earlier connection's FINs. Such an entry stays until it is idle; a packet puts its flows back."""
        return entry.flags & (FIN_IN | FIN_OUT | REUSED) == FIN_IN | FIN_OUT

    def end(self, serving: Serving, entry: Entry) -> Outbox:
        """Takes an entry out of the table and out of every switch."""
        return self.end_all(serving, [entry])

    def end_all(self, serving: Serving, entries: Iterable[Entry]) -> Outbox:
        ended = tuple(entry for entry in entries if not entry.flags & GONE)
        for entry in ended:
            serving.remove(entry, self._now)
            self._ended.pop(entry.opening_key, None)
            self._ended[entry.opening_key] = self._now
        return [ToSwitch(name, message) for name in serving.holders for message in portions(DeleteEntries, ended)]

    def tick(self, now: float) -> Outbox:
        """Ends what has lingered long enough."""
        self._now = now
        forgotten = [key for key, _ in itertools.takewhile(lambda item: item[1] < now - CACHED_SECONDS, self._ended.items())]
        for key in forgotten:
            del self._ended[key]
        out: Outbox = []
        while self._lingering and self._lingering[0][0] <= now:
            _, serving, entry = self._lingering.popleft()
            # A SYN may have made it live again, or another may have its place.
            if entry.flags & RESET and not entry.flags & GONE:
                out += self.end(serving, entry)
        return out
