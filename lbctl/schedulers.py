"""Which server a new connection gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lbctl.model import Server, Service

Allowed = Callable[[Server], bool]


class Scheduler(Protocol):
    def choose(self, allowed: Allowed) -> Server | None:
        """The server for a new connection among those allowed; None if there is none."""


class RoundRobin:
    """The servers in turn."""

    def __init__(self, servers: tuple[Server, ...]) -> None:
        self._servers = servers
        self._next = 0

    def choose(self, allowed: Allowed) -> Server | None:
        count = len(self._servers)
        for step in range(count):
            place = (self._next + step) % count
            if allowed(self._servers[place]):
                self._next = (place + 1) % count
                return self._servers[place]
        return None


class WeightedRoundRobin:
    """Smooth weighted round-robin (nginx's): in any window, each server's share is close to its weight's."""

    def __init__(self, servers: tuple[Server, ...]) -> None:
        self._current = {server: 0 for server in servers}

    def choose(self, allowed: Allowed) -> Server | None:
        candidates = [server for server in self._current if allowed(server)]
        if not candidates:
            return None
        for server in candidates:
            self._current[server] += server.weight
        chosen = max(candidates, key=self._current.__getitem__)
        self._current[chosen] -= sum(server.weight for server in candidates)
        return chosen


_BY_NAME = {"round-robin": RoundRobin, "weighted-round-robin": WeightedRoundRobin}


def scheduler_for(service: Service) -> Scheduler:
    """A fresh scheduler of the service's kind. Raises KeyError for a kind that model.SCHEDULERS does not name."""
    return _BY_NAME[service.scheduler](service.servers)
