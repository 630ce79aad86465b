"""Learns where clients of sliced services are answered to. Entries of single connections know it; a slice's does not.

A client on the external network is answered to the MAC that it sends from, any other by its external IP's router, as a
host there would do it. Where the site file names no router, every client is answered to the MAC that it sends from.
"""

from __future__ import annotations

from ipaddress import ip_address

from lbctl.connections.lately import Lately
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving

SPACING, FOLLOWED = 1.0, 500
"""Seconds in which a client is followed once, since a forged packet may claim another MAC for it; and so many clients
are in that time."""


class ClientHopsMet:
    """Of all sliced services."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._met = Lately[tuple[bytes, bytes]](SPACING, FOLLOWED)

    def met(self, serving: Serving, client: bytes, mac: bytes, now: float) -> Outbox:
        """A packet of that client (packed) has come from that MAC (packed), which its LB had no flow for."""
        by_router = serving.config.router is not None and self._ground.behind_router(client)
        who = (b"", mac) if by_router else (client, b"")
        if not self._met.may(who, now):
            return []
        hops, text = self._ground.client_hops, mac.hex(":")
        return self._ground.change_alike(*(hops.met_router(text) if by_router else hops.met(ip_address(client), text)))
