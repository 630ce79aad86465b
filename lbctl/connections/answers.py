"""What the controller itself sends by a switch, in answer to a packet; and what it drops."""

from __future__ import annotations

from lbctl.frames import icmp
from lbctl.frames.packets import Packet, parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.serving import Serving
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.site.model import Tunnel
from lbctl.switches.switch import Switch


def drop(switch: Switch, reason: str) -> Outbox:
    """Nothing is sent; the reason is counted."""
    switch.counters[f"dropped_{reason}"] += 1
    return []


def mac_of(switch: Switch, inward: bool) -> bytes:
    """Of the port that packets of that direction come in by."""
    port = switch.of_ports.external if inward else switch.of_ports.internal
    return parse_mac(port.mac)


def send_error(switch: Switch, frame: bytes | None, inward: bool, tunnel: Tunnel | None) -> Outbox:
    """An error to the side that a packet of that direction came from, by that tunnel. None: it may not be answered."""
    if frame is None:
        return drop(switch, "no_error_allowed")
    switch.counters["errors_sent"] += 1
    port = switch.of_ports.external if inward else switch.of_ports.to(tunnel)
    return [ToSwitch(switch.lb.name, PacketOut(frame, FROM_CONTROLLER, port.number, tunnel))]


def time_exceeded(switch: Switch, serving: Serving, packet: Packet, frame: bytes, inward: bool) -> Outbox:
    """The TTL of a packet that is to be translated ends here. frame: as it came."""
    source = serving.error_source(packet.dst, inward)
    return send_error(switch, icmp.error(frame, icmp.TTL_EXPIRED, mac_of(switch, inward), source), inward,
                      serving.tunnel_to(packet.src))
