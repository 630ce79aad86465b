"""Hands each packet that a switch has shown to the controller to the part that knows what it leads to.

The datapath's cached flows may send a packet here a moment after the tables have changed, so a packet's kind is a hint:
what decides is the access table and the LB's role now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from lbctl.connections.answers import drop
from lbctl.connections.arrival import Arrival, way_of
from lbctl.connections.departures import Departures
from lbctl.connections.endings import Endings
from lbctl.connections.fragments import Fragments
from lbctl.connections.icmp_handler import IcmpHandler
from lbctl.connections.last_hops import LastHops
from lbctl.connections.misdirected import Misdirected
from lbctl.connections.new_connections import NewConnections
from lbctl.connections.no_way import NoWay
from lbctl.connections.outward import Outward, gateway_for
from lbctl.connections.slice_counters import SliceCounters
from lbctl.connections.slices import Slices
from lbctl.connections.socket_counts import SocketCounts
from lbctl.connections.strays import Strays
from lbctl.connections.transition import Transition
from lbctl.entries.access_table import Entry
from lbctl.frames import packets
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.cookies import Kind
from lbctl.openflow.inbound import EntryRemoved, EntryStats, PacketIn
from lbctl.site.model import ServiceName
from lbctl.store import SavedSlices
from lbctl.switches.switch import Switch
from lbctl.values.side import EXTERNAL, INTERNAL

TRANSLATED = {Kind.RESET, Kind.EXPIRED, Kind.TOO_BIG, Kind.HOP}
"""What the switch has translated before it showed it."""


class Connections:
    """Packets and entries of all external IPs: what other rooms call.

    Every method returns the messages that its event calls for.
    """

    strays: type[Strays] = Strays
    """What is done with packets that have no entry in the switch."""

    def __init__(self, ground: Ground, slices: Mapping[ServiceName, SavedSlices] = MappingProxyType({})) -> None:
        """slices: see State."""
        self._directory = ground.external_ips
        self._endings = endings = Endings(ground)
        self._transition = transition = Transition(ground)
        self._departures = Departures(ground, endings)
        self._slices = Slices(ground, endings, slices)
        self._slice_counters, self._socket_counts = SliceCounters(ground), SocketCounts(ground)
        self._last_hops = last_hops = LastHops(ground)
        self._new = NewConnections(ground, transition, endings, last_hops)
        self.take_asked, new = self._new.take_asked, self._new.arrived
        icmp_handler = IcmpHandler(ground)
        strays, misdirected = self.strays(ground, transition, endings), Misdirected(ground).arrived
        self._fragments = Fragments(ground, new, strays.arrived, misdirected)
        self._outward = Outward(ground, self._new, strays, transition)
        self._by_kind: dict[Kind | None, Callable[[Arrival, Serving], Outbox]] = {
            Kind.NEW: new, Kind.HOLD: transition.hold, Kind.STRAY: strays.arrived, Kind.UNASSIGNED: misdirected}
        """Those whose own addresses tell whose packets they are."""
        self._others: dict[Kind | None, Callable[[Arrival], Outbox]] = {
            Kind.RESET: endings.reset, Kind.EXPIRED: icmp_handler.expired, Kind.TOO_BIG: icmp_handler.too_big,
            Kind.TRANSLATE_ICMP: icmp_handler.translate, Kind.HOP: last_hops.arrived,
            Kind.NO_WAY: NoWay(ground.external_ips).arrived}
        """Those whose own addresses don't."""

    def restore(self) -> None:
        """The site's external IPs are there, and no switch is yet."""
        self._slices.restore()

    def packet_in(self, switch: Switch, packet_in: PacketIn, now: float) -> Outbox:
        """A packet that has come to the controller, by whatever flow."""
        _, _, kind, in_port, frame = packet_in
        switch.counters["packet_ins"] += 1
        handler, other = self._by_kind.get(kind), self._others.get(kind)
        if handler is None and other is None and kind is not Kind.FRAGMENT:
            return drop(switch, "unknown_flow")
        ports = switch.of_ports
        if not switch.ready or ports is None:
            return drop(switch, "not_ready")
        if kind is Kind.FRAGMENT:
            return self._fragments.arrived(switch, ports, in_port, frame, now)
        try:
            packet = packets.decode(frame)
        except packets.Malformed:
            return drop(switch, "malformed")
        side, directory = ports.side_of(in_port), self._directory
        if other and kind in TRANSLATED:
            # What a server sends has its external IP for a source by now.
            way = INTERNAL if packet.src in directory.by_address else EXTERNAL
        else:
            way = way_of(ports, in_port, packet.dst, directory)
        arrival = Arrival(switch, ports, side, in_port, frame, packet, now, way)
        if other:
            return other(arrival)
        serving = directory.of_packet(packet.src, packet.dst, way)
        if serving is None:
            return drop(switch, "unknown_address")
        if way is INTERNAL and (gateway := gateway_for(arrival, serving, directory)):
            return self._outward.arrived(arrival, gateway, kind in (Kind.NEW, Kind.STRAY))
        return handler(arrival, serving) if handler else drop(switch, "unknown_flow")

    def release(self, serving: Serving, name: str) -> Outbox:
        """The held packets, in order, through that LB's tables."""
        return self._transition.release(serving, name)

    def entry_removed(self, switch: Switch, removed: EntryRemoved, now: float) -> Outbox:
        """One direction of an entry has seen its FIN and ran out; after both, the entry ends."""
        return self._endings.entry_removed(switch, removed, now)

    def finished(self, serving: Serving, found: Iterable[EntryStats], now: float) -> Outbox:
        """What an LB held of an external IP that it serves no more: ends what has seen its FINs."""
        return self._endings.finished(serving, found, now)

    def end_all(self, serving: Serving, entries: Iterable[Entry], now: float) -> Outbox:
        """Takes entries out of the table and out of every switch."""
        return self._endings.end_all(serving, entries, now)

    def expire(self, serving: Serving, entries: Iterable[Entry], now: float) -> Outbox:
        """The same for those that have been silent for too long."""
        return self._endings.expire(serving, entries, now)

    def tick(self, now: float) -> Outbox:
        """Ends what has lingered long enough, and what has lost its server; what has followed others to another router
        follows on."""
        self._fragments.tick(now)
        out = self._slices.tick(now) + self._endings.tick(now) + self._departures.tick(now)
        out += self._new.tick(now) + self._last_hops.tick(now)
        return out + self._slice_counters.tick(now) + self._socket_counts.tick(now)
