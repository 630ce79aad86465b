"""Which server a new connection gets: docs/schedulers.md.

`choose` runs once for each new connection, while packets wait. It is given the client as a key has it (packed address
and port), and asks `allowed` of a server only when it would be chosen, or to know whom it must do without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from lbctl.servers.maglev import lookup_table, place_of, rendezvous
from lbctl.servers.turns import Turns
from lbctl.site.model import Server, Service
from lbctl.values.keys import server_key

Allowed = Callable[[Server], bool]


class Scheduler(Protocol):
    def choose(self, client: bytes, allowed: Allowed) -> Server | None:
        """The server for a new connection of that client (packed address and port) among those allowed; None if there
        is none."""


class RoundRobin:
    """The servers in turn."""

    def __init__(self, servers: tuple[Server, ...]) -> None:
        self._servers = servers
        self._next = 0

    def choose(self, client: bytes, allowed: Allowed) -> Server | None:
        count = len(self._servers)
        for step in range(count):
            place = (self._next + step) % count
            if allowed(self._servers[place]):
                self._next = (place + 1) % count
                return self._servers[place]
        return None


class WeightedRoundRobin:
    """Smooth weighted round-robin, see Turns."""

    def __init__(self, servers: tuple[Server, ...]) -> None:
        self._numbers = range(len(servers))
        self._servers = servers
        self._turns = Turns([server.weight for server in servers])

    def choose(self, client: bytes, allowed: Allowed) -> Server | None:
        candidates = [number for number in self._numbers if allowed(self._servers[number])]
        return self._servers[self._turns.next(candidates)] if candidates else None


class LeastConnections:
    """The server with the fewest connections for its weight; among several, by weighted round-robin, so that
    connections which end before the next one opens do not all go to the first server.

    keys: what counts a server's connections. connections: AccessTable.connections_to, which goes on counting.
    """

    def __init__(self, servers: tuple[Server, ...], keys: list[bytes], connections: Mapping[bytes, int]) -> None:
        self._rows = [
            (number, server, key, server.weight) for number, (server, key) in enumerate(zip(servers, keys, strict=True))
        ]
        self._servers = servers
        self._connections = connections
        self._turns = Turns([server.weight for server in servers])

    def choose(self, client: bytes, allowed: Allowed) -> Server | None:
        count = self._connections.get
        lowest = float("inf")
        least: list[int] = []
        for number, server, key, weight in self._rows:
            load = count(key, 0) / weight
            if load <= lowest and allowed(server):
                if load < lowest:
                    lowest, least = load, []
                least.append(number)
        return self._servers[self._turns.next(least)] if least else None


class Hashed:
    """The server that a hash of the client says, by Maglev's table: the same one every time, also after a restart.
    Clients of a server that is not allowed are spread over the others by weight, each with a second choice of its
    own; nobody else notices.

    with_port: does the client's port count? Without it all connections of an address go to one server.
    """

    def __init__(self, servers: tuple[Server, ...], with_port: bool) -> None:
        self._with_port = with_port
        self._rows = [(server, name, server.weight) for name, server in sorted(_names(servers).items())]
        self._table = lookup_table([name for _, name, _ in self._rows], [weight for _, _, weight in self._rows])

    def choose(self, client: bytes, allowed: Allowed) -> Server | None:
        if not self._rows:
            return None
        if not self._with_port:
            client = client[:-2]
        server = self._rows[self._table[place_of(client)]][0]
        return server if allowed(server) else self._second_choice(client, allowed)

    def _second_choice(self, client: bytes, allowed: Allowed) -> Server | None:
        scores = {rendezvous(client, name, weight): server for server, name, weight in self._rows if allowed(server)}
        return scores[max(scores)] if scores else None


def _names(servers: tuple[Server, ...]) -> dict[bytes, Server]:
    """Names that hashes are made of: the address, and a number for those that share one. The port is not in it, so
    that services with the same servers on different ports (http and https) send a client to the same one."""
    names: dict[bytes, Server] = {}
    for server in sorted(servers, key=lambda server: (server.address.packed, server.port)):
        number = 0
        while (name := server.address.packed + number.to_bytes(2)) in names:
            number += 1
        names[name] = server
    return names


def scheduler_for(service: Service, connections: Mapping[bytes, int]) -> Scheduler:
    """A fresh scheduler of the service's kind, for its servers that have a weight.

    connections: those of each server now, as AccessTable.connections_to.

    Raises ValueError for a kind that model.SCHEDULERS does not name.
    """
    servers = tuple(server for server in service.servers if server.weight)
    match service.scheduler:
        case "round-robin":
            return RoundRobin(servers)
        case "weighted-round-robin":
            return WeightedRoundRobin(servers)
        case "least-connections":
            keys = [server_key(service.protocol_number, server.address.packed, server.port) for server in servers]
            return LeastConnections(servers, keys, connections)
        case "source-hash":
            return Hashed(servers, with_port=False)
        case "maglev":
            return Hashed(servers, with_port=True)
        case unknown:
            raise ValueError(f"unknown scheduler {unknown}")
