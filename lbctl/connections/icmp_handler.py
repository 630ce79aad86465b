"""What happens at the controller to ICMP that concerns connections, and to packets whose TTL ends at an LB.

An ICMP error is translated inside and out (RFC 5508 section 4): it goes to the end that had sent the packet that it quotes, as that
end knows the packet. docs/icmp.md says the same with examples.
"""

from __future__ import annotations

from lbctl.connections.answers import drop, mac_of, send_error, time_exceeded
from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.frames import icmp
from lbctl.frames.icmp_translation import carried, quoted, readdressed_frame, translated_error
from lbctl.frames.packets import Packet, may_not_be_fragmented, parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.serving import Directory, Serving
from lbctl.openflow.entry_flows import deliver_table
from lbctl.openflow.inbound import PacketIn
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.openflow.rules import ECHO_TYPES
from lbctl.switches.switch import Switch
from lbctl.values.keys import inverse_key, pack_key, unpack_key
from lbctl.values.protocols import ICMP, ICMPV6

_IP = 14
_REQUESTS = {protocol: request for _, protocol, request, _ in ECHO_TYPES.values()}


class IcmpHandler:
    """`directory` belongs to the control function."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def translate(self, switch: Switch, packet: Packet, packet_in: PacketIn, now: float) -> Outbox:
        """An ICMP error, or an echo through a NAT gateway."""
        inward = packet_in.in_port == switch.of_ports.external.number
        if packet.protocol not in (ICMP, ICMPV6):
            return drop(switch, "malformed")
        if icmp.is_error(packet_in.frame, packet):
            return self._error(switch, packet, packet_in.frame, inward)
        return self._echo(switch, packet, packet_in.frame, inward, now)

    # Errors.

    def _error(self, switch: Switch, packet: Packet, frame: bytes, inward: bool) -> Outbox:
        found = quoted(frame, packet)
        if found is None:
            return drop(switch, "icmp_quotes_no_connection")
        _, sender, _, receiver, _ = unpack_key(found.key)
        serving = self._directory.of_packet(receiver, sender, inward)
        if serving is None or sender != packet.dst:
            return drop(switch, "icmp_quotes_no_connection")
        if switch.role(serving.address).mode is None:
            return drop(switch, "icmp_not_assigned")
        entry = self._entry(serving, inverse_key(found.key), inward)
        if entry is None:
            return drop(switch, "icmp_quotes_no_connection")
        if entry.next_hop == NO_HOP or serving.outbound and not entry.inner_hop:
            return drop(switch, "next_hop_unknown")
        source, key = self._error_source(serving, entry, packet, inward), entry.reply if inward else entry.key
        destination = unpack_key(key)[1]
        hop = (entry.inner_hop or packet.eth_dst) if inward else entry.next_hop
        out = translated_error(frame, packet, found.transport, key, source, destination, hop)
        switch.counters["icmp_errors_translated"] += 1
        return [ToSwitch(switch.lb.name, PacketOut(out, FROM_CONTROLLER, deliver_table(inward, bool(entry.inner_hop))))]

    @staticmethod
    def _entry(serving: Serving, key: bytes, inward: bool) -> Entry | None:
        """The entry whose packets from that side carry `key`."""
        table = serving.echoes if key[0] in (ICMP, ICMPV6) else serving.table
        return table.by_key(key) if inward else table.by_reply(key)

    @staticmethod
    def _error_source(serving: Serving, entry: Entry, packet: Packet, inward: bool) -> bytes:
        """Whom a translated error comes from: outside it is known which router there found it; routers inside are not shown
        (RFC 5508 REQ-5); and servers behind full NAT need no route to the outside, so they get it from the internal IP."""
        if not inward:
            return serving.address.packed
        return unpack_key(entry.reply)[3] if entry.full else packet.src

    # The TTL.

    def expired(self, switch: Switch, packet: Packet, packet_in: PacketIn, now: float) -> Outbox:
        """A packet that the switch has translated, and whose TTL ends here: its sender is told, with the packet as it was."""
        inward = packet_in.in_port == switch.of_ports.external.number
        found = self._translated(packet, packet_in.frame, inward)
        if found is None:
            return drop(switch, "ttl_expired")
        serving, original, frame = found
        return time_exceeded(switch, serving, original, frame, inward)

    def too_big(self, switch: Switch, packet: Packet, packet_in: PacketIn, now: float) -> Outbox:
        """A client's packet that the switch has translated, and that is larger than the tunnel to its server carries."""
        found = self._translated(packet, packet_in.frame, True)
        tunnel = found[0].tunnel_to(packet.dst) if found else None
        if found is None or tunnel is None or not may_not_be_fragmented(packet_in.frame):
            return drop(switch, "larger_than_tunnel")
        serving, original, frame = found
        error = icmp.error(frame, icmp.too_big(tunnel.mtu), mac_of(switch, True), original.dst)
        return send_error(switch, error, True, None)

    def _translated(self, packet: Packet, frame: bytes, inward: bool) -> tuple[Serving, Packet, bytes] | None:
        """Whose translated packet that is, and the packet and its frame as they came in."""
        if packet.src_port is None:
            return None
        key = pack_key(packet.protocol, packet.dst, packet.dst_port, packet.src, packet.src_port)
        serving = self._directory.of_packet(packet.dst, packet.src, not inward)
        entry = self._entry(serving, key, not inward) if serving else None
        if serving is None or entry is None:
            return None
        original = entry.key if inward else entry.reply
        _, source, _, destination, _ = unpack_key(original)
        return serving, packet._replace(src=source, dst=destination), readdressed_frame(frame, packet, original, packet.eth_dst)

    # Echo through a NAT gateway.

    def _echo(self, switch: Switch, packet: Packet, frame: bytes, inward: bool, now: float) -> Outbox:
        serving = self._directory.of_packet(packet.src, packet.dst, inward)
        found = carried(frame[_IP:packet.payload_offset + packet.payload_length])
        if serving is None or found is None or not serving.outbound:
            return drop(switch, "unknown_address")
        if switch.role(serving.address).mode is None:
            return drop(switch, "icmp_not_assigned")
        is_request = frame[packet.payload_offset] == _REQUESTS[packet.protocol]
        if is_request == inward:
            return drop(switch, "icmp_no_echo")
        if packet.ttl <= 1:
            return time_exceeded(switch, serving, packet, frame, inward)
        if inward:
            entry = serving.echoes.by_key(found.key)
            if entry is None:
                return drop(switch, "icmp_no_echo")
            serving.echoes.used(entry, now)
            out = readdressed_frame(frame, packet, inverse_key(entry.reply), entry.inner_hop)
        else:
            router = switch.neighbours.get(serving.config.router)
            if router is None:
                return drop(switch, "router_unresolved")
            entry = serving.echoes.request(found.key, serving.address.packed, parse_mac(router),
                                           packet.eth_src, now, serving.settings.udp_idle_timeout)
            if entry is None:
                return drop(switch, "echo_exhausted")
            out = readdressed_frame(frame, packet, inverse_key(entry.key), entry.next_hop)
        switch.counters["echoes_translated"] += 1
        return [ToSwitch(switch.lb.name, PacketOut(out, FROM_CONTROLLER, deliver_table(inward, True)))]
