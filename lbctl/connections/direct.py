"""Direct server return (`nat: none`): what the controller sends to a server past the tables, as it came.

Pieces of packets can't go through table deliver_server, where Open vSwitch would write addresses to and fro, and take
what a later fragment carries for a TCP or UDP header.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from lbctl.connections.arrival import Arrival
from lbctl.frames.packets import parse_mac
from lbctl.ground.serving import Serving
from lbctl.site.model import Tunnel


class Straight(NamedTuple):
    """To a server. macs: destination and source, packed; port: OpenFlow number."""

    macs: bytes
    port: int
    tunnel: Tunnel | None


def straight_to(arrival: Arrival, serving: Serving, server: bytes) -> Straight | None:
    """server: packed. None: its next hop has not told its MAC."""
    hop = serving.config.hops().get(ip_address(server))
    mac = arrival.switch.neighbours.get(hop.address) if hop else None
    if hop is None or mac is None:
        return None
    own = parse_mac(arrival.ports.internal.mac)
    return Straight(parse_mac(mac) + own, arrival.ports.to(hop.tunnel).number, hop.tunnel)
