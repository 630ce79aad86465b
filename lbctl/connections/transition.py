"""Packets of an external IP that this LB cannot translate now: they are held, or go to the LB that can."""

from __future__ import annotations

from lbctl.connections.answers import drop, send_through
from lbctl.connections.arrival import Arrival
from lbctl.entries.held import HeldPacket
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.values.transfer import TransferMode


class Transition:
    """What holds packets, and lets them go."""

    def __init__(self, ground: Ground) -> None:
        self._switches = ground.switches

    def hold(self, arrival: Arrival, serving: Serving) -> Outbox:
        """In transition: wait for the LB that the external IP is assigned to, or go to it if it is normal again."""
        held = HeldPacket(arrival.frame, arrival.side, arrival.tunnel(serving))
        home = self._switches[serving.assigned]
        ports = home.of_ports
        if home.ready and ports and home.role(serving.address).mode is TransferMode.NORMAL:
            return [send_through(home, ports, *held)]
        if serving.move is None:
            return drop(arrival.switch, "no_normal_lb")
        return [] if serving.held.hold(held) else drop(arrival.switch, "held_full")

    def release(self, serving: Serving, name: str) -> Outbox:
        """The held packets, in order, through that LB's tables."""
        home = self._switches[name]
        ports = home.of_ports
        if not home.ready or ports is None:
            return drop(home, "held_given_up", serving.held.discard())
        return [send_through(home, ports, *packet) for packet in serving.held.release()]
