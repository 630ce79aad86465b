"""What happens at the controller to ICMP that concerns connections, and to packets whose TTL ends at an LB.

An ICMP error is translated inside and out (RFC 5508 section 4): it goes to the end that had sent the packet that it
quotes, as that end knows the packet. docs/icmp.md says the same with examples.
"""

from __future__ import annotations

from dataclasses import replace

from lbctl.connections.answers import drop, send_icmp_error
from lbctl.connections.arrival import Arrival
from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.frames import icmp
from lbctl.frames.icmp_translation import carried, quoted, readdressed_frame, translated_error
from lbctl.frames.packets import may_not_be_fragmented, parse_mac, with_eth_dst
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.serving import Directory, Serving
from lbctl.openflow.entry_flows import deliver_table
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.openflow.responder_rules import ECHO_TYPES
from lbctl.values.keys import inverse_key, unpack_key
from lbctl.values.protocols import ETHERNET_HEADER, ICMP, ICMPV6
from lbctl.values.side import EXTERNAL, INTERNAL, Side

_REQUESTS = {protocol: request for _, protocol, request, _ in ECHO_TYPES.values()}


class IcmpHandler:
    """`directory` belongs to the control function."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

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
        entry = _entry(serving, inverse_key(found.key), way) if serving else None
        if entry is None and way is INTERNAL and (gateway := self._directory.gateway_of(receiver)):
            serving, entry = gateway, _entry(gateway, inverse_key(found.key), way)
        if serving is None or sender != packet.dst:
            return drop(switch, "icmp_quotes_no_connection")
        if switch.role(serving.address).mode is None:
            return drop(switch, "icmp_not_assigned")
        if entry is None:
            return drop(switch, "icmp_quotes_no_connection")
        if entry.next_hop == NO_HOP or serving.outbound and not entry.inner_hop:
            return drop(switch, "next_hop_unknown")
        key = entry.key_from(way.other)
        hop = (entry.inner_hop or packet.eth_dst) if way is EXTERNAL else entry.next_hop
        ends = _error_source(arrival, serving, entry), unpack_key(key)[1]
        out = with_eth_dst(translated_error(arrival.frame, packet, found.transport, key, ends), hop)
        switch.counters["icmp_errors_translated"] += 1
        return _delivered(arrival, out, bool(entry.inner_hop))

    # The TTL.

    def expired(self, arrival: Arrival) -> Outbox:
        """A packet that the switch has translated, and whose TTL ends here: its sender is told, with the packet as it
        was."""
        found = self._as_it_came(arrival)
        if found is None:
            return drop(arrival.switch, "ttl_expired")
        return send_icmp_error(*found, icmp.TTL_EXPIRED)

    def too_big(self, arrival: Arrival) -> Outbox:
        """A client's packet that the switch has translated, and that is larger than the tunnel to its server
        carries."""
        found = self._as_it_came(arrival) if arrival.way is EXTERNAL else None
        tunnel = found[1].tunnel_to(arrival.packet.dst) if found else None
        if found is None or tunnel is None or not may_not_be_fragmented(arrival.frame):
            return drop(arrival.switch, "larger_than_tunnel")
        return send_icmp_error(*found, icmp.too_big(tunnel.mtu))

    def _as_it_came(self, arrival: Arrival) -> tuple[Arrival, Serving] | None:
        """A packet that the switch has translated, as it was before, and whose it is. None: of no entry."""
        packet, key = arrival.packet, arrival.key
        # As it is now, it is what the other side's packets answer.
        found: tuple[Serving, Entry] | None = None
        if key and arrival.way is EXTERNAL:
            found = self._directory.of_reply(inverse_key(key))
        elif key and (serving := self._directory.of_packet(packet.dst, packet.src, EXTERNAL)):
            entry = serving.table.by_key(inverse_key(key))
            found = (serving, entry) if entry else None
        if found is None:
            return None
        serving, entry = found
        original = entry.key_from(arrival.way)
        _, source, _, destination, _ = unpack_key(original)
        frame = readdressed_frame(arrival.frame, packet, original, packet.eth_dst)
        return replace(arrival, frame=frame, packet=packet._replace(src=source, dst=destination)), serving

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
        is_request = frame[packet.payload_offset] == _REQUESTS[packet.protocol]
        if is_request == (arrival.side is EXTERNAL):
            return drop(switch, "icmp_no_echo")
        if packet.ttl <= 1:
            return send_icmp_error(arrival, serving, icmp.TTL_EXPIRED)
        return self._request(arrival, serving, found.key) if is_request else self._reply(arrival, serving, found.key)

    @staticmethod
    def _request(arrival: Arrival, serving: Serving, key: bytes) -> Outbox:
        """An inside host's."""
        switch, packet = arrival.switch, arrival.packet
        router = serving.config.router
        mac = switch.neighbours.get(router) if router else None
        if mac is None:
            return drop(switch, "router_unresolved")
        entry = serving.echoes.request(key, serving.address.packed, parse_mac(mac), packet.eth_src, arrival.now,
                                       serving.settings.udp_idle_timeout)
        if entry is None:
            return drop(switch, "echo_exhausted")
        switch.counters["echoes_translated"] += 1
        return _delivered(arrival, readdressed_frame(arrival.frame, packet, inverse_key(entry.key), entry.next_hop))

    @staticmethod
    def _reply(arrival: Arrival, serving: Serving, key: bytes) -> Outbox:
        """To an inside host."""
        entry = serving.echoes.find(EXTERNAL, key)
        if entry is None:
            return drop(arrival.switch, "icmp_no_echo")
        serving.echoes.used(entry, arrival.now)
        arrival.switch.counters["echoes_translated"] += 1
        frame = readdressed_frame(arrival.frame, arrival.packet, inverse_key(entry.reply), entry.inner_hop)
        return _delivered(arrival, frame)


def _entry(serving: Serving, key: bytes, side: Side) -> Entry | None:
    """The entry whose packets from that side carry `key`."""
    table = serving.echoes if key[0] in (ICMP, ICMPV6) else serving.table
    return table.find(side, key)


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
