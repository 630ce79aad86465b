"""Reports of the multicast groups that the LBs listen to (lbctl/frames/mld.py), for switches that snoop."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from lbctl.frames.discovery import link_local
from lbctl.frames.mld import report
from lbctl.frames.packets import parse_mac
from lbctl.ground.effects import ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.openflow.ports import Ports
from lbctl.switches.switch import Switch

INTERVAL = 60.0
"""Seconds. A switch forgets a listener after 260 s (RFC 3810 9.4); its queries need not be heard."""


def reports(switch: Switch, serving: Serving) -> list[ToSwitch]:
    """That LB listens for who asks for that external IP, and its internal addresses."""
    ports = switch.of_ports
    if not isinstance(serving.address, IPv6Address) or not switch.ready or ports is None:
        return []
    return [ToSwitch(switch.lb.name, message) for message in _messages(serving, ports)]


def _messages(serving: Serving, ports: Ports) -> Iterator[PacketOut]:
    inside = [address.packed for address in serving.config.internal_addresses()]
    ways = [(port, tunnel, inside) for port, tunnel in ports.ways(serving.config.hops().values())]
    for port, tunnel, addresses in [(ports.external, None, [serving.address.packed]), *ways]:
        mac = parse_mac(port.mac)
        yield PacketOut(report(mac, [*addresses, link_local(mac)]), FROM_CONTROLLER, port.number, tunnel)


def all_reports(ground: Ground) -> Iterator[list[ToSwitch]]:
    """Of every external IP, by the LB that answers for it."""
    for serving in list(ground.external_ips):
        switch = ground.switches.get(serving.assigned)
        yield reports(switch, serving) if switch and switch.role(serving.address).arp else []
