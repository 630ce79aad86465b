"""How many connections the servers of sliced services have: as their sockets tell, where they have keepers."""

from __future__ import annotations

import itertools
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
LOOKED_AT_ONCE = 1000
"""External IPs."""


class SocketCounts:
    """Of all sliced services."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._turns: Iterator[tuple[Serving, Address] | None] = iter(())
        """The servers that are to be asked; None: an external IP without any."""
        self._begin_at = 0.0

    def tick(self, now: float) -> Outbox:
        """Asks the server whose turn it is."""
        found = self._next()
        if found is None and now >= self._begin_at:
            self._begin_at, self._turns = now + INTERVAL, self._round(now)
            found = self._next()
        if found is None:
            return []
        serving, server = found
        keeper = self._ground.keeper_of(server)
        if keeper is None:
            return []
        token = self._ground.tokens.new(CountsAnswer(partial(self._counted, serving, server)))
        return [CountSockets(keeper, serving.config, server, token)]

    def _next(self) -> tuple[Serving, Address] | None:
        """The next one that is to be asked, if it comes soon."""
        return next(filter(None, itertools.islice(self._turns, LOOKED_AT_ONCE)), None)

    def _round(self, now: float) -> Iterator[tuple[Serving, Address] | None]:
        for serving in list(self._ground.external_ips):
            if not serving.slices:
                yield None
                continue
            for server in self._begin(serving, now):
                yield serving, server

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
