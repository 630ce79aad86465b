"""What happens at the controller to ICMP that concerns connections, and to packets whose TTL ends at an LB.

An ICMP error is translated inside and out (RFC 5508 section 4): it goes to the end that had sent the packet that it
quotes, as that end knows the packet. docs/icmp.md says the same with examples.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from lbctl.connections.answers import drop, send_icmp_error
from lbctl.connections.arrival import Arrival
from lbctl.connections.direct import straight_to
from lbctl.connections.hops import lacks_hop
from lbctl.connections.sliced import find
from lbctl.connections.translated import whose
from lbctl.entries.access_table import Entry
from lbctl.frames import icmp
from lbctl.frames.fragments import cut
from lbctl.frames.icmp_translation import carried, quoted, readdressed_frame, translated_error
from lbctl.frames.packets import may_not_be_fragmented, parse_mac, with_eth_dst
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.entry_flows import deliver_table
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.openflow.responder_rules import ECHO_TYPES
from lbctl.switches.switch import Switch
from lbctl.values.keys import inverse_key, unpack_key
from lbctl.values.protocols import ETHERNET_HEADER, ICMP, ICMPV6
from lbctl.values.side import EXTERNAL, INTERNAL, Side

_REQUESTS = {protocol: request for _, protocol, request, _ in ECHO_TYPES.values()}


class _Original(NamedTuple):
    """A packet as it was before the switch translated it, and by which entry."""

    arrival: Arrival
    serving: Serving
    entry: Entry


class IcmpHandler:
    """Of all external IPs."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._directory = ground, ground.external_ips

    def translate(self, arrival: Arrival) -> Outbox:
        """An ICMP error, or an echo through a NAT gateway."""
        if arrival.packet.protocol not in (ICMP, ICMPV6):
            return drop(arrival.switch, "malformed")
        if icmp.is_error(arrival.frame, arrival.packet):
            return self._error(arrival)
        return self._echo(arrival)

    # Errors.

    def _error(self, arrival: Arrival) -> Outbox:
        switch, packet, way = arrival.switch, arrival.packet, arrival.way
        found = quoted(arrival.frame, packet)
        if found is None:
            return drop(switch, "icmp_quotes_no_connection")
        _, sender, _, receiver, _ = unpack_key(found.key)
        serving = self._directory.of_packet(receiver, sender, way)
        entry = self._entry(switch, serving, inverse_key(found.key), way) if serving else None
        if entry is None and way is INTERNAL and (gateway := self._directory.gateway_of(receiver)):
            serving, entry = gateway, self._entry(switch, gateway, inverse_key(found.key), way)
        if serving is None or sender != packet.dst:
            return drop(switch, "icmp_quotes_no_connection")
        if switch.role(serving.address).mode is None:
            return drop(switch, "icmp_not_assigned")
        if entry is None:
            return drop(switch, "icmp_quotes_no_connection")
        if serving.config.direct:
            # As it came: table deliver_server gives it its address back.
            ends = packet.src, entry.server[0]
            out = translated_error(arrival.frame, packet, found.transport, inverse_key(entry.key), ends)
            switch.counters["icmp_errors_translated"] += 1
            return _delivered(arrival, out, False)
        if lacks_hop(serving, entry):
            return drop(switch, "next_hop_unknown")
        key = entry.key_from(way.other)
        hop = (entry.inner_hop or packet.eth_dst) if way is EXTERNAL else entry.next_hop
        ends = _error_source(arrival, serving, entry), unpack_key(key)[1]
        out = with_eth_dst(translated_error(arrival.frame, packet, found.transport, key, ends), hop)
        switch.counters["icmp_errors_translated"] += 1
        return _delivered(arrival, out, bool(entry.inner_hop))

    def _entry(self, switch: Switch, serving: Serving, key: bytes, side: Side) -> Entry | None:
        """The entry whose packets from that side carry `key`."""
        if key[0] in (ICMP, ICMPV6):
            return serving.echoes.find(side, key)
        return find(self._ground, switch, serving, side, key)

    # The TTL.

    def expired(self, arrival: Arrival) -> Outbox:
        """A packet that the switch has translated, and whose TTL ends here: its sender is told, with the packet as it
        was."""
        found = self._as_it_came(arrival)
        if found is None:
            return drop(arrival.switch, "ttl_expired")
        return send_icmp_error(found.arrival, found.serving, icmp.TTL_EXPIRED)

    def too_big(self, arrival: Arrival) -> Outbox:
        """A packet that the switch has translated, and that is larger than the network or tunnel takes that it goes
        to: it is cut up, or its sender is told how large one may be (RFC 4787 REQ-13)."""
        found = self._as_it_came(arrival)
        limit = self._ground.limit(found.serving, arrival.way.other, arrival.packet.dst) if found else None
        if found is None or limit is None:
            return drop(arrival.switch, "larger_than_link")
        frame = arrival.frame
        if may_not_be_fragmented(frame):
            return send_icmp_error(found.arrival, found.serving, icmp.too_big(limit))
        arrival.switch.counters["packets_cut"] += 1
        if found.serving.config.direct:
            return _pieces_as_they_came(found, limit)
        end = arrival.packet.payload_offset + arrival.packet.payload_length
        return [effect for piece in cut(frame[ETHERNET_HEADER:end], limit)
                for effect in _delivered(arrival, frame[:ETHERNET_HEADER] + piece, bool(found.entry.inner_hop))]

    def _as_it_came(self, arrival: Arrival) -> _Original | None:
        """A packet that the switch has translated, as it was before. None: of no entry."""
        found = whose(self._ground, arrival)
        if found is None or found.entry is None:
            return None
        packet, (serving, entry) = arrival.packet, (found.serving, found.entry)
        original = entry.key_from(arrival.way)
        _, source, _, destination, _ = unpack_key(original)
        frame = readdressed_frame(arrival.frame, packet, original, packet.eth_dst)
        return _Original(replace(arrival, frame=frame, packet=packet._replace(src=source, dst=destination)), serving,
                         entry)

    # Echo through a NAT gateway.

    def _echo(self, arrival: Arrival) -> Outbox:
        switch, packet, frame = arrival.switch, arrival.packet, arrival.frame
        # Whoever's server it is: pings go by its NAT gateway alone.
        serving = self._directory.by_address.get(packet.dst) or self._directory.gateway_of(packet.src)
        found = carried(frame[ETHERNET_HEADER:packet.payload_offset + packet.payload_length])
        if serving is None or found is None or not serving.outbound:
            return drop(switch, "unknown_address")
        if switch.role(serving.address).mode is None:
            return drop(switch, "icmp_not_assigned")
        if packet.ttl <= 1:
            return send_icmp_error(arrival, serving, icmp.TTL_EXPIRED)
        entry = echo_entry(arrival, serving, found.key)
        if entry is None:
            return []
        hop = entry.inner_hop if arrival.way is EXTERNAL else entry.next_hop
        key = inverse_key(entry.key_from(arrival.way.other))
        return _delivered(arrival, readdressed_frame(frame, packet, key, hop))


def _pieces_as_they_came(found: _Original, limit: int) -> Outbox:
    """Of a packet to a server that answers clients itself."""
    arrival, straight = found.arrival, straight_to(found.arrival, found.serving, found.entry.server[0])
    if straight is None:
        return drop(arrival.switch, "next_hop_unknown")
    end = arrival.packet.payload_offset + arrival.packet.payload_length
    head = straight.macs + arrival.frame[12:ETHERNET_HEADER]
    return [ToSwitch(arrival.switch.lb.name, PacketOut(head + piece, FROM_CONTROLLER, straight.port, straight.tunnel))
            for piece in cut(arrival.frame[ETHERNET_HEADER:end], limit)]


def is_request(arrival: Arrival) -> bool:
    """Of ICMP: an echo request?"""
    packet = arrival.packet
    return arrival.frame[packet.payload_offset] == _REQUESTS[packet.protocol]


def echo_entry(arrival: Arrival, serving: Serving, key: bytes) -> Entry | None:
    """The entry by which an echo goes through a NAT gateway: an inside host's request, or a reply to it. None: by none,
    which is counted."""
    request = is_request(arrival)
    if request == (arrival.way is EXTERNAL):
        drop(arrival.switch, "icmp_no_echo")
        return None
    entry = _of_request(arrival, serving, key) if request else _of_reply(arrival, serving, key)
    if entry:
        arrival.switch.counters["echoes_translated"] += 1
    return entry


def _of_request(arrival: Arrival, serving: Serving, key: bytes) -> Entry | None:
    router = serving.config.router
    mac = arrival.switch.neighbours.get(router) if router else None
    if mac is None:
        drop(arrival.switch, "router_unresolved")
        return None
    entry = serving.echoes.request(key, serving.address.packed, parse_mac(mac), arrival.packet.eth_src, arrival.now,
                                   serving.settings.udp_idle_timeout)
    if entry is None:
        drop(arrival.switch, "echo_exhausted")
    return entry


def _of_reply(arrival: Arrival, serving: Serving, key: bytes) -> Entry | None:
    entry = serving.echoes.find(EXTERNAL, key)
    if entry is None:
        drop(arrival.switch, "icmp_no_echo")
        return None
    serving.echoes.used(entry, arrival.now)
    return entry


def _error_source(arrival: Arrival, serving: Serving, entry: Entry) -> bytes:
    """Whom a translated error comes from: outside it is known which router there found it; routers inside are not shown
    (RFC 5508 REQ-5); and servers behind full NAT need no route to the outside, so they get it from the internal IP."""
    if arrival.way is not EXTERNAL:
        return serving.address.packed
    return unpack_key(entry.reply)[3] if entry.full else arrival.packet.src


def _delivered(arrival: Arrival, frame: bytes, inner_hop: bool = True) -> Outbox:
    """The translated frame, to the other side. inner_hop: its destination MAC is right, also on the internal
    network."""
    message = PacketOut(frame, FROM_CONTROLLER, deliver_table(arrival.way, inner_hop))
    return [ToSwitch(arrival.switch.lb.name, message)]
