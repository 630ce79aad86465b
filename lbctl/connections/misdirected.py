"""Packets that have come to an LB whose external IP another one serves: their sender has not heard of the move."""

from __future__ import annotations

from lbctl.connections.answers import send_again, send_icmp_error, send_through
from lbctl.connections.arrival import Arrival
from lbctl.connections.lately import Lately
from lbctl.frames import discovery, icmp
from lbctl.frames.packets import parse_mac
from lbctl.ground.effects import Outbox, ToSwitch
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.openflow.messages import FROM_CONTROLLER, PacketOut
from lbctl.openflow.ports import Ports
from lbctl.switches.switch import Switch
from lbctl.values.transfer import TransferMode

SPACING, TOLD = 1.0, 1000
"""Each sender is told once in so many seconds; so many senders at most are told in that time."""


class Misdirected:
    """They are passed on (setting `misdirected`), and who has sent them is told where the external IP is now: it alone,
    by a reply, since what everybody was told has not reached it. Else they are answered with an error (seed)."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._told = Lately[tuple[bytes, bytes]](SPACING, TOLD)
        """Senders' MACs, each with the address that it was told of."""

    def arrived(self, arrival: Arrival, serving: Serving) -> Outbox:
        """Of an external IP that the switch had not: it may have it by now."""
        if arrival.switch.role(serving.address).mode is not None:
            return [send_again(arrival, serving)]
        home = self._ground.switches[serving.assigned]
        ports = home.of_ports
        serves = home.ready and ports and home.role(serving.address).mode is TransferMode.NORMAL
        right = self._is_right(arrival, serving)
        if ports is None or not serves or self._ground.settings.misdirected == "error" and not right:
            return send_icmp_error(arrival, serving, icmp.HOST_UNREACHABLE)
        arrival.switch.counters["passed_on"] += 1
        on = send_through(home, ports, arrival.frame, arrival.side, arrival.tunnel(serving))
        if right:
            return [on]
        self._ground.astray.add(serving.address)
        return [on, *self._tell(arrival, serving, home, ports)]

    def _is_right(self, arrival: Arrival, serving: Serving) -> bool:
        """Is its sender's next hop the gateway of another external IP? So it is of a client inside, and of a server
        whose packet is its NAT gateway's."""
        src, dst = arrival.packet.src, arrival.packet.dst
        return (arrival.way is not arrival.side
                or self._ground.external_ips.of_packet(src, dst, arrival.way) is not serving)

    def _tell(self, arrival: Arrival, serving: Serving, home: Switch, ports: Ports) -> Outbox:
        sender, now = arrival.packet.eth_src, arrival.now
        address = serving.error_source(arrival.packet.dst, arrival.side)
        if not self._told.may((sender, address), now):
            return []
        tunnel = arrival.tunnel(serving)
        port = ports.of(arrival.side, tunnel)
        gateway = serving.config.gateway
        is_router = gateway is not None and address == gateway.packed
        frame = discovery.told(parse_mac(port.mac), sender, address, is_router)
        return [ToSwitch(home.lb.name, PacketOut(frame, FROM_CONTROLLER, port.number, tunnel))]
