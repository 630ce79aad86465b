"""Fragments at the controller: translated one by one, as they come.

A switch can tell fragments of one packet from another's by nothing but their identification, which Open vSwitch cannot
match; and its connection tracker, which can, takes no fragments below 1200 bytes with the userspace datapath, and puts
them together with the kernel's. So all come here, so many a second (setting `fragment_rate`).

The first fragment of a packet has its ports: it finds the entry, and so the way that the others go (RFC 4787 REQ-14).
Those that come before it wait. What they do not fit together is found by the host that puts them together (RFC 5722).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from lbctl.connections.answers import drop, send_icmp_error
from lbctl.connections.arrival import Arrival, way_of
from lbctl.connections.direct import straight_to
from lbctl.connections.hops import lacks_hop
from lbctl.connections.icmp_handler import echo_entry, is_request
from lbctl.connections.outward import gateway_for
from lbctl.connections.sliced import find
from lbctl.entries.access_table import Entry
from lbctl.frames import fragments, icmp
from lbctl.frames.fragments import Fragment
from lbctl.frames.icmp_translation import echo_reply
from lbctl.frames.packets import Malformed, may_not_be_fragmented
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.entry_flows import deliver_table
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.openflow.ports import Ports
from lbctl.site.model import Tunnel
from lbctl.switches.switch import Switch
from lbctl.values.keys import inverse_key, service_of, unpack_key
from lbctl.values.protocols import ETHERNET_HEADER, ICMP, ICMPV6, TCP
from lbctl.values.side import EXTERNAL, INTERNAL

PATIENCE = 15.0
"""Seconds that a fragment waits for the first one, or the first one for the others (RFC 791; RFC 6146: at least 2)."""
MOST_DATAGRAMS, MOST_WAITING = 4096, 4 * 1024 * 1024
"""Packets of which some fragments have come, and bytes of fragments that wait for the first one: the oldest go."""


class Way(NamedTuple):
    """What a packet's fragments become, and where they go.

    key: addresses and ports (of an echo: the identifier twice) as the receiver knows them. macs: destination and
    source. lb, output, tunnel: as in a PacketOut to that LB. limit: bytes that an IP packet may have there. answers: an
    echo request becomes its reply.
    """

    key: bytes
    macs: bytes
    lb: str
    output: int | str
    tunnel: Tunnel | None = None
    limit: int = fragments.LARGEST
    answers: bool = False


@dataclass(slots=True)
class _Datagram:
    """A packet of which fragments have come. passed: the offsets of those that have gone on; missing: bytes of what it
    carries that have not, less its length as long as the last fragment has not come."""

    since: float
    switch: Switch
    way: Way | None = None
    waiting: list[tuple[bytes, Fragment]] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)
    missing: int = 0
    last: bool = False

    def has_passed(self, fragment: Fragment) -> bool:
        """That one goes on. Have all, now?"""
        if fragment.offset not in self.passed:
            self.passed.add(fragment.offset)
            self.missing -= fragment.length
            if fragment.last and not self.last:
                self.last = True
                self.missing += fragment.offset + fragment.length
        return self.last and self.missing <= 0


Handler = Callable[[Arrival, Serving], Outbox]


class Fragments:
    """new, stray, misdirected: what deals with a first fragment as with any packet that has no entry."""

    def __init__(self, ground: Ground, new: Handler, stray: Handler, misdirected: Handler) -> None:
        self._ground, self._directory = ground, ground.external_ips
        self._new, self._stray, self._misdirected = new, stray, misdirected
        self._datagrams: dict[bytes, _Datagram] = {}
        """By what their fragments share, the oldest first."""
        self._waiting = 0
        """Bytes."""

    def arrived(self, switch: Switch, ports: Ports, in_port: int, frame: bytes, now: float) -> Outbox:
        """A fragment that is addressed to that LB."""
        self.tick(now)
        try:
            fragment = fragments.decode_fragment(frame)
            if fragment.offset:
                return self._later(switch, frame, fragment, now)
            packet = fragments.decode_first(frame)
        except Malformed:
            return drop(switch, "malformed")
        side, way = ports.side_of(in_port), way_of(ports, in_port, packet.dst, self._directory)
        return self._first(Arrival(switch, ports, side, in_port, frame, packet, now, way, True), fragment)

    def tick(self, now: float) -> None:
        """Forgets what was not completed in time."""
        while self._datagrams:
            oldest = next(iter(self._datagrams))
            if now < self._datagrams[oldest].since + PATIENCE:
                return
            self._forget(oldest, "fragments_incomplete")

    # The first fragment.

    def _first(self, arrival: Arrival, fragment: Fragment) -> Outbox:
        switch, packet = arrival.switch, arrival.packet
        serving = self._directory.of_packet(packet.src, packet.dst, arrival.way)
        if serving is None:
            return drop(switch, "unknown_address")
        serving = gateway_for(arrival, serving, self._directory) or serving
        if switch.role(serving.address).mode is None:
            return self._misdirected(arrival, serving)
        if packet.protocol in (ICMP, ICMPV6):
            return self._echo(arrival, fragment, serving)
        if packet.ttl <= 1:
            return send_icmp_error(arrival, serving, icmp.TTL_EXPIRED)
        entry = find(self._ground, switch, serving, arrival.way, arrival.key) if arrival.key else None
        if entry and serving.config.direct:
            return self._straight(arrival, fragment, serving, entry)
        if entry is None or lacks_hop(serving, entry):
            # What it leads to sends it through the tables again, and so here, once there is a complete entry.
            return (self._new if entry is None and _opens(arrival, serving) else self._stray)(arrival, serving)
        return self._to_limit(arrival, fragment, serving, entry, self._way(arrival, serving, entry))

    def _straight(self, arrival: Arrival, fragment: Fragment, serving: Serving, entry: Entry) -> Outbox:
        """To a server that answers clients itself: as it came."""
        server = entry.server[0]
        straight = straight_to(arrival, serving, server)
        if straight is None or arrival.key is None:
            return drop(arrival.switch, "next_hop_unknown")
        limit = self._ground.limit(serving, INTERNAL, server) or fragments.LARGEST
        way = Way(arrival.key, straight.macs, arrival.switch.lb.name, straight.port, straight.tunnel, limit)
        return self._to_limit(arrival, fragment, serving, entry, way)

    def _to_limit(
        self, arrival: Arrival, fragment: Fragment, serving: Serving, entry: Entry, way: Way
    ) -> Outbox:
        entry.last_seen = arrival.now
        if fragment.end - ETHERNET_HEADER > way.limit and may_not_be_fragmented(arrival.frame):
            return send_icmp_error(arrival, serving, icmp.too_big(way.limit))
        return self._go(arrival, fragment, way)

    def _echo(self, arrival: Arrival, fragment: Fragment, serving: Serving) -> Outbox:
        """A ping larger than a packet. Whole ones are answered in the switch, and dropped there if they are nobody's.
        An error is never so large (RFC 1812 4.3.2.3)."""
        packet, found = arrival.packet, fragments.first_carried(arrival.frame, fragment)
        if found is None:
            return drop(arrival.switch, "unknown_protocol")
        ours = arrival.way is EXTERNAL or ip_address(packet.dst) in serving.config.internal_addresses()
        if ours and is_request(arrival):
            return self._go(arrival, fragment, _back(arrival, serving, found.key))
        if not serving.outbound:
            return drop(arrival.switch, "icmp_no_echo")
        if packet.ttl <= 1:
            return send_icmp_error(arrival, serving, icmp.TTL_EXPIRED)
        entry = echo_entry(arrival, serving, found.key)
        return self._go(arrival, fragment, self._way(arrival, serving, entry)) if entry else []

    def _way(self, arrival: Arrival, serving: Serving, entry: Entry) -> Way:
        """By that entry, to the other side."""
        side, packet = arrival.way, arrival.packet
        key = inverse_key(entry.key_from(side.other))
        hop = (entry.inner_hop or packet.eth_dst) if side is EXTERNAL else entry.next_hop
        limit = self._ground.limit(serving, side.other, unpack_key(key)[3])
        return Way(key, hop + packet.eth_dst, arrival.switch.lb.name, deliver_table(side, bool(entry.inner_hop)),
                   limit=limit or fragments.LARGEST)

    def _go(self, arrival: Arrival, fragment: Fragment, way: Way) -> Outbox:
        """By that way, and so those that have waited for it."""
        name = fragment.datagram
        datagram = self._datagrams.get(name)
        if datagram is None or datagram.way:  # if there is one: the identification is used again
            self._datagrams.pop(name, None)
            datagram = self._remember(name, arrival.switch, arrival.now)
        datagram.way = way
        waiting, datagram.waiting = datagram.waiting, []
        self._waiting -= sum(len(frame) for frame, _ in waiting)
        out: Outbox = []
        for frame, each in ((arrival.frame, fragment), *waiting):
            out += self._pass(arrival.switch, datagram, way, frame, each)
        return out

    # The others.

    def _later(self, switch: Switch, frame: bytes, fragment: Fragment, now: float) -> Outbox:
        datagram = self._datagrams.get(fragment.datagram)
        if datagram and datagram.way:
            return self._pass(switch, datagram, datagram.way, frame, fragment)
        if datagram is None:
            datagram = self._remember(fragment.datagram, switch, now)
        datagram.waiting.append((frame, fragment))
        self._waiting += len(frame)
        while self._waiting > MOST_WAITING:
            self._forget(next(iter(self._datagrams)), "fragments_too_many")
        return []

    def _pass(self, switch: Switch, datagram: _Datagram, way: Way, frame: bytes, fragment: Fragment) -> Outbox:
        if datagram.has_passed(fragment):
            self._datagrams.pop(fragment.datagram, None)
        data = fragments.translated(frame, fragment, way.key)
        if way.answers:
            data = echo_reply(data, fragment.offset == 0)
        if len(data) > way.limit and may_not_be_fragmented(frame):
            return drop(switch, "larger_than_link")
        switch.counters["fragments_translated"] += 1
        head = way.macs + frame[12:ETHERNET_HEADER]
        return [ToSwitch(way.lb, PacketOut(head + piece, FROM_CONTROLLER, way.output, way.tunnel))
                for piece in fragments.cut(data, way.limit)]

    # What is remembered.

    def _remember(self, name: bytes, switch: Switch, now: float) -> _Datagram:
        if len(self._datagrams) >= MOST_DATAGRAMS:
            self._forget(next(iter(self._datagrams)), "fragments_too_many")
        self._datagrams[name] = datagram = _Datagram(now, switch)
        return datagram

    def _forget(self, name: bytes, reason: str) -> None:
        datagram = self._datagrams.pop(name)
        for frame, _ in datagram.waiting:
            self._waiting -= len(frame)
            drop(datagram.switch, reason)


def _back(arrival: Arrival, serving: Serving, key: bytes) -> Way:
    """An echo request of that key: its answer to who has sent it."""
    tunnel = arrival.tunnel(serving)
    return Way(inverse_key(key), arrival.packet.eth_src + arrival.mac, arrival.switch.lb.name,
               arrival.ports.of(arrival.side, tunnel).number, tunnel, answers=True)


def _opens(arrival: Arrival, serving: Serving) -> bool:
    """Would the packet open a connection, if it were whole? The flows of kind NEW say the same."""
    packet, key = arrival.packet, arrival.key
    if key is None or packet.protocol == TCP and not packet.asks_for_connection:
        return False
    return serving.outbound if arrival.way is not EXTERNAL else service_of(key) in serving.services
