"""What the controller itself does with a packet: it answers, drops, or sends it through the tables again."""

from __future__ import annotations

from lbctl.connections.arrival import Arrival
from lbctl.frames import icmp, packets
from lbctl.frames.packets import parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.serving import Serving
from lbctl.openflow.messages import FROM_CONTROLLER, OUTPUT_TABLE, PacketOut
from lbctl.openflow.ports import Ports
from lbctl.site.model import Tunnel
from lbctl.switches.switch import Switch
from lbctl.values.protocols import TCP, UDP
from lbctl.values.side import Side


def drop(switch: Switch, reason: str, packets: int = 1) -> Outbox:
    """Nothing is sent; the reason, one of values/drops.py, is counted."""
    switch.counters[f"dropped_{reason}"] += packets
    return []


def refuse(arrival: Arrival, serving: Serving) -> Outbox:
    """There is no connection for this packet here: a RST, or ICMP unreachable."""
    packet = arrival.packet
    if packet.protocol == TCP:
        return send_back(arrival, packets.tcp_reset(packet, arrival.mac), arrival.tunnel(serving))
    kind = icmp.PORT_UNREACHABLE if packet.protocol == UDP else icmp.PROTOCOL_UNREACHABLE
    return send_icmp_error(arrival, serving, kind)


def send_icmp_error(arrival: Arrival, serving: Serving, kind: icmp.Error) -> Outbox:
    """That error, about the packet, to its sender."""
    source = serving.error_source(arrival.packet.dst, arrival.way)
    return send_back(arrival, icmp.error(arrival.frame, kind, arrival.mac, source), arrival.tunnel(serving))


def send_again(arrival: Arrival, serving: Serving) -> ToSwitch:
    """The packet as it came, through all tables of its switch: they have changed, or are about to."""
    message = PacketOut(arrival.frame, arrival.in_port, OUTPUT_TABLE, arrival.tunnel(serving))
    return ToSwitch(arrival.switch.lb.name, message)


def go_on(arrival: Arrival, serving: Serving) -> ToSwitch:
    """The packet, by the entry that is there now."""
    if arrival.fragment:
        return send_again(arrival, serving)
    return go_through(arrival, arrival.way.access_table)


def go_through(arrival: Arrival, table: str) -> ToSwitch:
    """The packet as it came, through that table."""
    return ToSwitch(arrival.switch.lb.name, PacketOut(arrival.frame, arrival.in_port, table))


def send_through(home: Switch, ports: Ports, frame: bytes, side: Side, tunnel: Tunnel | None) -> ToSwitch:
    """A packet that has come to another LB, through all tables of that one, as if it had come in there by that side (by
    that tunnel). ports: home's."""
    port = ports.of(side, tunnel)
    message = PacketOut(packets.with_eth_dst(frame, parse_mac(port.mac)), port.number, OUTPUT_TABLE, tunnel)
    return ToSwitch(home.lb.name, message)


def send_back(arrival: Arrival, frame: bytes | None, tunnel: Tunnel | None = None) -> Outbox:
    """An error to where the packet came from, by that tunnel. None: it may not be answered."""
    if frame is None:
        return drop(arrival.switch, "no_error_allowed")
    arrival.switch.counters["errors_sent"] += 1
    port = arrival.ports.of(arrival.side, tunnel)
    return [ToSwitch(arrival.switch.lb.name, PacketOut(frame, FROM_CONTROLLER, port.number, tunnel))]
