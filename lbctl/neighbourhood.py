"""Who is where on the networks around the LBs: asks for the MACs of servers and routers, and tells who has an external IP."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lbctl import neighbours
from lbctl.announcements import Announcements
from lbctl.answers import FROM_CONTROLLER
from lbctl.messages import Outbox, PacketOut
from lbctl.model import Address, Hop
from lbctl.openflow.inbound import PacketIn
from lbctl.packets import Malformed, parse_mac
from lbctl.serving import Serving
from lbctl.switch import Switch

if TYPE_CHECKING:
    from lbctl.control import ControlFunction

SEARCH_INTERVAL = 0.5
"""Seconds between probes for a server whose MAC is not known. A switch may swallow the first answers: what its datapath
had cached while its tables were empty stays in force for a moment."""


class Neighbourhood:
    """Of all LBs of a control function."""

    def __init__(self, control: ControlFunction) -> None:
        self._control = control
        self._announcements = Announcements()
        self._probe_at = self._search_at = 0.0

    def tick(self, now: float, eager: bool) -> Outbox:
        """What is to be announced again, and asked for. eager: those too whose MACs are known, at every search."""
        control = self._control
        out: Outbox = []
        for address, lb in self._announcements.due(now):
            serving = control.directory.get(address)
            if serving and serving.assigned == lb:
                out += self._announcement(serving, lb)
        if now >= self._probe_at:
            self._probe_at = now + control.site.settings.arp_interval
            for switch in control.switches.values():
                out += self.probe(switch)
        elif now >= self._search_at:
            self._search_at = now + SEARCH_INTERVAL
            for switch in control.switches.values():
                out += self.probe(switch, only_unknown=not eager)
        return out

    def told(self, switch: Switch, packet_in: PacketIn) -> Outbox:
        try:
            address, mac = neighbours.decode(packet_in.frame)
        except Malformed:
            switch.counters["dropped_malformed"] += 1
            return []
        return self._found(switch, ip_address(address), mac.hex(":"), packet_in.in_port)

    def _found(self, switch: Switch, address: Address, mac: str, in_port: int) -> Outbox:
        """Somebody has told its MAC. Each network and tunnel is believed about the routers and next hops there, and nothing else."""
        ports, hop = switch.of_ports, self._control.directory.hops().get(address)
        if in_port == ports.external.number:
            if address not in self._control.directory.routers():
                return []
        elif hop is None or in_port != ports.to(hop.tunnel).number:
            return []
        if switch.neighbours.get(address) != mac:
            self._control.log("neighbour found", lb=switch.lb.name, address=str(address), mac=mac)
        return [(switch.lb.name, message) for message in switch.set_neighbour(address, mac, self._control.external_ips())]

    def probe(self, switch: Switch, only_unknown: bool = False) -> Outbox:
        """Asks for the next hops' and routers' MACs."""
        return self.ask(switch, self._control.directory.hops().values(), self._control.directory.routers(), only_unknown)

    @staticmethod
    def ask(switch: Switch, hops: Iterable[Hop], routers: Iterable[Address] = (), only_unknown: bool = False) -> Outbox:
        """Asks for the MACs of these."""
        ports = switch.of_ports
        if not switch.ready or ports is None:
            return []
        asked = [(ports.to(hop.tunnel), hop.tunnel, hop.address) for hop in hops]
        asked += [(ports.external, None, router) for router in routers]
        return [(switch.lb.name, PacketOut(neighbours.probe(parse_mac(port.mac), address.packed),
                                           FROM_CONTROLLER, port.number, tunnel))
                for port, tunnel, address in asked if not (only_unknown and address in switch.neighbours)]

    def announce_all(self, name: str, now: float) -> Outbox:
        out: Outbox = []
        for serving in self._control.directory:
            if serving.assigned == name and self._control.switches[name].role(serving.address).arp:
                out += self.announce(serving, name, now)
        return out

    def announce(self, serving: Serving, name: str, now: float) -> Outbox:
        """Tells the neighbours of the external IP and of its internal addresses: now, and a few times more."""
        self._announcements.start(serving.address, name, now)
        return self._announcement(serving, name)

    def _announcement(self, serving: Serving, name: str) -> Outbox:
        switch, out = self._control.switches[name], []
        ports = switch.of_ports
        if switch.ready and ports:
            internal = [(*way, address) for way in ports.ways(serving.config.hops().values())
                        for address in serving.config.internal_addresses()]
            for port, tunnel, address in [(ports.external, None, serving.address), *internal]:
                frame = neighbours.announcement(parse_mac(port.mac), address.packed,
                                                address == serving.config.gateway)
                out.append((name, PacketOut(frame, FROM_CONTROLLER, port.number, tunnel)))
        return out
