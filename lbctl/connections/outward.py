"""What a server opens itself. Its default route is its own external IP's gateway, so its packets come to that one's LB;
what is no answer to a client of its own is the NAT gateway's that has it among its inside hosts, wherever that one is.
"""

from __future__ import annotations

from dataclasses import replace

from lbctl.connections.answers import drop, go_on
from lbctl.connections.arrival import Arrival
from lbctl.connections.new_connections import NewConnections
from lbctl.connections.strays import Strays
from lbctl.connections.transition import Transition
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Directory, Serving
from lbctl.values.protocols import TCP
from lbctl.values.side import INTERNAL
from lbctl.values.transfer import TransferMode


def gateway_for(arrival: Arrival, serving: Serving, directory: Directory) -> Serving | None:
    """The NAT gateway whose packet it is, and not `serving`'s, one of whose servers has sent it; None: it is
    serving's."""
    if arrival.way is not INTERNAL or not serving.config.has_own_servers:
        return None
    gateway = directory.gateway_of(arrival.packet.src)
    key = arrival.key
    if gateway is None or key is None or directory.answers(key) or serving.table.by_reply(key):
        return None
    return gateway


class Outward:
    """What servers send through NAT gateways, as far as it comes to the controller."""

    def __init__(self, ground: Ground, new: NewConnections, strays: Strays, transition: Transition) -> None:
        self._switches = ground.switches
        self._new, self._strays, self._transition = new, strays, transition

    def arrived(self, arrival: Arrival, gateway: Serving, found_here: bool) -> Outbox:
        """found_here: the flows of this switch have looked for its entry. Else it goes straight to the access table at
        the gateway's LB: the other tables would send it here again, since the server is another external IP's."""
        home = self._switches[gateway.assigned]
        ports = home.of_ports
        if not home.ready or ports is None or home.role(gateway.address).mode is not TransferMode.NORMAL:
            return self._transition.hold(arrival, gateway)
        if home is not arrival.switch:
            arrival.switch.counters["passed_on"] += 1
            arrival = replace(arrival, switch=home, ports=ports, in_port=ports.internal.number)
            found_here = False
        key, packet = arrival.key, arrival.packet
        if key is None:
            return drop(arrival.switch, "unknown_protocol")
        known = gateway.table.by_reply(key) is not None
        if packet.protocol == TCP:
            opens = packet.asks_for_connection
        else:
            opens = found_here or not known
        if opens:
            return self._new.arrived(arrival, gateway)
        if found_here or not known:
            return self._strays.arrived(arrival, gateway)
        return [go_on(arrival, gateway)]
