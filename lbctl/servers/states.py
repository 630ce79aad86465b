"""Which servers of an external IP take new connections: not one that is down, drained, or full (docs/servers.md).

One of weight 0 is drained, as with IPVS and HAProxy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lbctl.entries.access_table import AccessTable
from lbctl.servers.slow_start import SlowStart
from lbctl.site.model import Hop, Server, Service
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.keys import Place, server_key


class Down(NamedTuple):
    """Why a server is down, and since when (seconds since the epoch)."""

    reason: str
    since: float


class ServerState(NamedTuple):
    """state: drained, down, full or up, the first of them that is true. connections: entries of the external IP that
    go there.

    reason, since: why it is down (a drained server may be down as well), and since when; None: it isn't. takes: does it
    get new connections? One that is down may, if all are.
    """

    state: str
    connections: int
    reason: str | None = None
    since: float | None = None
    takes: bool = False


class FormerServer(NamedTuple):
    """A server that no service of its external IP has any more, and how many connections it has still."""

    address: Address
    hop: Hop
    connections: int


class _Bar(NamedTuple):
    """What may keep connections away from a server. limit: connections that it may have, None: any number."""

    closed: bool
    key: bytes
    limit: int | None


class ServerStates:
    """Of the servers of one external IP. What it is told of servers that the services do not name is forgotten."""

    def __init__(self, table: AccessTable) -> None:
        self._connections = table.connections_to
        self._services: Mapping[Place, Service] = {}
        self.down: dict[tuple[Place, Endpoint], Down] = {}
        self.drained: frozenset[tuple[Place, Endpoint]] = frozenset()
        self._bars: dict[Place, dict[Endpoint, _Bar]] = {}
        """Only of services where one server is down, drained, or limited: `takes` is asked for each new connection."""
        self.slow_start = SlowStart(self._connections)
        self._unheeded: dict[Place, str] = {}
        """Services whose health check no server has ever passed, and what it has found."""

    def takes(self, place: Place, server: Server) -> bool:
        """May a new connection of that service go to that server?"""
        bars = self._bars.get(place)
        if bars is None:
            return True
        bar = bars.get(server.endpoint)
        return bar is None or not bar.closed and (bar.limit is None or self._connections.get(bar.key, 0) < bar.limit)

    def obstacle(self, place: Place) -> str:
        """Of a service none of whose servers takes connections: full, down or drained, the first that one of them is.
        """
        if any(not bar.closed for bar in self._bars[place].values()):
            return "full"
        servers = [server for server in self._servers(place) if not self.is_drained(place, server)]
        return "down" if any((place, server.endpoint) in self.down for server in servers) else "drained"

    def closed(self, place: Place, endpoint: Endpoint) -> bool:
        """Does that server get no new connection of that service, however few it has?"""
        bar = self._bars.get(place, {}).get(endpoint)
        return bar.closed if bar else all(server.endpoint != endpoint for server in self._servers(place))

    def resets(self, place: Place) -> bool:
        """Are the connections of that service's servers that go down reset?"""
        check = self._services[place].health_check
        return check is not None and check.when_down == "reset"

    def fails_open(self, place: Place) -> str | None:
        """Why that service takes new connections though its health checks say no. None: it doesn't."""
        if place in self._unheeded:
            return f"no server has passed its health check since that is configured so: {self._unheeded[place]}"
        return "all servers are down" if self._all_down(place) else None

    def configure(self, services: Mapping[Place, Service], drained: Iterable[tuple[Place, Endpoint]] = ()) -> None:
        """Other services, with other servers or limits, and those that are drained from now on."""
        before, taking = self._services, self._not_drained()
        self._services = services
        known = {(place, server.endpoint) for place, service in services.items() for server in service.servers}
        self.down = {server: down for server, down in self.down.items() if server in known}
        self.drained = frozenset(drained) & known
        taking_now = self._not_drained()
        for place, endpoint in list(self.slow_start.warming):
            if (place, endpoint) not in taking_now:
                self.slow_start.end(place, endpoint)
        for place, endpoint in taking_now - taking:
            if place in before and (place, endpoint) not in self.down:
                self.slow_start.begin(place, services[place], endpoint)
        self._unheeded = {place: found for place, found in self._unheeded.items() if place in services}
        self._bars = {}
        for place in services:
            self._bar(place)

    def set_down(self, place: Place, endpoint: Endpoint, reason: str, now: float) -> None:
        """No new connections until it is up. One that is down already gets the new reason, and stays down since then.
        """
        before = self.down.get((place, endpoint))
        self.slow_start.end(place, endpoint)
        if any(server.endpoint == endpoint for server in self._servers(place)):
            self.down[place, endpoint] = Down(reason, before.since if before else now)
            self._bar(place)

    def set_up(self, place: Place, endpoint: Endpoint) -> None:
        if self.down.pop((place, endpoint), None):
            self._bar(place)
            if any(endpoint == server.endpoint and not self.is_drained(place, server)
                   for server in self._servers(place)):
                self.slow_start.begin(place, self._services[place], endpoint)

    def set_unheeded(self, place: Place, found: str) -> None:
        """No server passes that service's check, nor has any ever: the check may be wrong, and takes no server out."""
        self._unheeded[place] = found

    def set_heeded(self, place: Place) -> bool:
        """That is over. Was it so?"""
        return self._unheeded.pop(place, None) is not None

    def state(self, place: Place, server: Server) -> ServerState:
        """What there is to be shown of a server of that service."""
        connections = self._connections.get(server_key(place[0], server.address.packed, server.port), 0)
        down = self.down.get((place, server.endpoint))
        takes = self.takes(place, server)
        if self.is_drained(place, server):
            state = "drained"
        elif down:
            state = "down"
        else:
            state = "up" if takes else "full"
        return ServerState(state, connections, down and down.reason, down and down.since, takes)

    def _not_drained(self) -> set[tuple[Place, Endpoint]]:
        return {(place, server.endpoint) for place, service in self._services.items() for server in service.servers
                if not self.is_drained(place, server)}

    def is_drained(self, place: Place, server: Server) -> bool:
        """By an operator's order, or its weight."""
        return server.weight == 0 or (place, server.endpoint) in self.drained

    def _servers(self, place: Place) -> tuple[Server, ...]:
        service = self._services.get(place)
        return service.servers if service else ()

    def _all_down(self, place: Place) -> bool:
        """Are all servers down that are not drained, and are they to be used all the same? What all fail at once may be
        the check's own fault, or a load that ends; and they may answer clients."""
        service = self._services.get(place)
        check = service.health_check if service else None
        if service is None or check is None or check.when_all_down != "serve":
            return False
        wanted = [server for server in service.servers if not self.is_drained(place, server)]
        return bool(wanted) and all((place, server.endpoint) in self.down for server in wanted)

    def _bar(self, place: Place) -> None:
        """What is in the way of each server of that service, after a change."""
        bars, heeded = {}, not self._all_down(place)
        for server in self._servers(place):
            closed = heeded and (place, server.endpoint) in self.down or self.is_drained(place, server)
            if closed or server.max_connections is not None:
                key = server_key(place[0], server.address.packed, server.port)
                bars[server.endpoint] = _Bar(closed, key, server.max_connections)
        if bars:
            self._bars[place] = bars
        else:
            self._bars.pop(place, None)
