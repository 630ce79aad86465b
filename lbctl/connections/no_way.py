"""Packets from inside that are nobody's: of a host that is no server and has no NAT gateway, to the outside. Its
default route is a gateway of the LBs, so it is told that there is no way there."""

from __future__ import annotations

from lbctl.connections.answers import send_back
from lbctl.connections.arrival import Arrival
from lbctl.frames import icmp
from lbctl.ground.effects import Outbox
from lbctl.ground.serving import Directory


class NoWay:
    """What tells it."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def arrived(self, arrival: Arrival) -> Outbox:
        """ICMP host unreachable, from a gateway or internal IP of this LB."""
        arrival.switch.counters["no_way_outside"] += 1
        source = self._own_address(arrival)
        frame = icmp.error(arrival.frame, icmp.HOST_UNREACHABLE, arrival.mac, source) if source else None
        return send_back(arrival, frame)

    def _own_address(self, arrival: Arrival) -> bytes | None:
        """One of the packet's IP version that the LB answers for."""
        size = len(arrival.packet.src)
        return next((address.packed for serving in self._directory if arrival.switch.role(serving.address).arp
                     for address in serving.config.internal_addresses() if len(address.packed) == size), None)
