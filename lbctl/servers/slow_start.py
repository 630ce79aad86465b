"""Slow start: a server that has come gets its full share of new connections only after a while (docs/schedulers.md).

Whatever the scheduler, a server that is warming up is passed over for a part of the clients, and while it has as many
connections as is its part of what the others have. The part grows evenly from LEAST to all.
"""

from __future__ import annotations

from collections.abc import Mapping

from lbctl.servers.maglev import SIZE, place_of
from lbctl.site.model import Server, Service
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import Place, server_key

LEAST = 0.1
"""Of its share: what it gets at first, as with Envoy (min_weight_percent); a server that gets nothing stays cold."""


class SlowStart:
    """Of the servers of one external IP. connections: AccessTable.connections_to, which goes on counting."""

    def __init__(self, connections: Mapping[bytes, int]) -> None:
        self._connections = connections
        self.warming: dict[tuple[Place, Endpoint], float | None] = {}
        """When the first connection could have gone there since; None: none could so far."""

    def begin(self, place: Place, service: Service, endpoint: Endpoint) -> None:
        """It has come, or takes connections again. Its time counts from the next connection of the service."""
        if service.slow_start:
            self.warming[place, endpoint] = None

    def end(self, place: Place, endpoint: Endpoint) -> None:
        """It takes none any more, or is gone."""
        self.warming.pop((place, endpoint), None)

    def passes_over(self, place: Place, service: Service, server: Server, client: bytes, now: float) -> bool:
        """Shall another server get a connection of that client (packed address and port)?"""
        which = place, server.endpoint
        if which not in self.warming:
            return False
        since = self.warming[which]
        if since is None:
            since = self.warming[which] = now
        if now >= since + service.slow_start:
            del self.warming[which]
            return False
        part = max((now - since) / service.slow_start, LEAST)
        # Always the same clients, and more of them as time goes by.
        who = client[:-2] if service.scheduler == "source-hash" else client
        if place_of(who) >= part * SIZE:
            return True
        others = (self._load(place, other) for other in service.servers
                  if other.weight and (place, other.endpoint) not in self.warming)
        return self._load(place, server) >= part * max(others, default=float("inf")) + 1 / server.weight

    def _load(self, place: Place, server: Server) -> float:
        """Connections for its weight."""
        return self._connections.get(server_key(place[0], server.address.packed, server.port), 0) / server.weight
