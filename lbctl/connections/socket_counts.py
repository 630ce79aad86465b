"""How many connections the servers of sliced services have: as their sockets tell, where they have keepers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial

from lbctl.ground.effects import CountSockets, Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.ground.tokens import CountsAnswer
from lbctl.servers.slicing import Slicing
from lbctl.values.addresses import Address
from lbctl.values.protocols import TCP
from lbctl.values.slices import Count

INTERVAL, FORGOTTEN = 5.0, 15.0
"""Seconds from one count to the next, and until one is too old to be shown; at each tick one server is asked."""


class SocketCounts:
    """Of all sliced services."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._turns: deque[tuple[Serving, Address]] = deque()
        self._begin_at = 0.0

    def tick(self, now: float) -> Outbox:
        """Asks the server whose turn it is."""
        if not self._turns and now >= self._begin_at:
            self._begin_at = now + INTERVAL
            for serving in self._ground.external_ips:
                self._turns.extend((serving, server) for server in self._begin(serving, now))
        if not self._turns:
            return []
        serving, server = self._turns.popleft()
        keeper = self._ground.keeper_of(server)
        if keeper is None:
            return []
        token = self._ground.tokens.new(CountsAnswer(partial(self._counted, serving, server)))
        return [CountSockets(keeper, serving.config, server, token)]

    @staticmethod
    def _begin(serving: Serving, now: float) -> list[Address]:
        """Forgets what is old; the servers to ask."""
        for slicing in _of_tcp(serving):
            slicing.connections = {server: count for server, count in slicing.connections.items()
                                   if now < count.at + FORGOTTEN}
        return sorted({server.address for slicing in _of_tcp(serving) for server in slicing.servers()}, key=str)

    @staticmethod
    def _counted(serving: Serving, address: Address, counts: Mapping[int, int] | None, now: float) -> None:
        for slicing in _of_tcp(serving):
            for server in slicing.servers():
                if counts is not None and server.address == address and server.port in counts:
                    slicing.connections[server] = Count(counts[server.port], now)


def _of_tcp(serving: Serving) -> Iterator[Slicing]:
    return (slicing for (protocol, _), slicing in serving.slices.items() if protocol == TCP)
