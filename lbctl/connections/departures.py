"""UDP flows whose server has gone.

A flow has no end of its own, so it would stay with its server as long as datagrams come from either side. Those of a
server that has left its service, that has been drained for a while, or that answers no ARP while others do, are ended:
the client's next datagram opens one to another server.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from lbctl.connections.endings import Endings
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.site.model import Server, Service
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import Place, server_key, server_key_of
from lbctl.values.protocols import UDP

INTERVAL = 1.0
"""Seconds from one look to the next; services that have changed are looked at at once."""
LOOKED_AT_ONCE = 500
"""External IPs: of a larger site, others are looked at with the next tick."""


class Departures:
    """Of all external IPs."""

    def __init__(self, ground: Ground, endings: Endings) -> None:
        self._ground, self._endings = ground, endings
        self._seen: dict[int, Mapping[Place, Service]] = {}
        """By owner: the services at the last look."""
        self._drained: dict[int, dict[tuple[Place, Endpoint], float]] = {}
        """By owner: since when which server has been seen drained."""
        self._look_at = 0.0
        self._round: Iterator[Serving] = iter(())
        """The external IPs that are still to be looked at."""
        self._due = False
        """Are they looked at whatever their services are?"""

    def tick(self, now: float) -> Outbox:
        """Ends such flows."""
        out: Outbox = []
        some = list(itertools.islice(self._round, LOOKED_AT_ONCE)) or self._next_round(now)
        for serving in some:
            changed = self._seen.get(serving.owner) is not serving.services
            if self._due or changed:
                self._seen[serving.owner] = serving.services
                out += self._look(serving, changed, now)
        return out

    def _next_round(self, now: float) -> list[Serving]:
        """The first ones of it."""
        self._due = now >= self._look_at
        if self._due:
            self._look_at = now + INTERVAL
            known = self._ground.external_ips.by_owner
            for owner in self._seen.keys() - known.keys():
                self._seen.pop(owner)
                self._drained.pop(owner, None)
        self._round = iter(list(self._ground.external_ips))
        return list(itertools.islice(self._round, LOOKED_AT_ONCE))

    def _look(self, serving: Serving, changed: bool, now: float) -> Outbox:
        """changed: have the services become others?"""
        if not any(protocol == UDP for protocol, _ in serving.services):
            self._drained.pop(serving.owner, None)
            return []
        before, drained = self._drained.get(serving.owner, {}), dict[tuple[Place, Endpoint], float]()
        self._drained[serving.owner] = drained
        served, staying, leaving = set[bytes](), set[bytes](), set[bytes]()
        for place, service in serving.services.items():
            if place[0] != UDP:
                continue
            port, silent = place[1].to_bytes(2), self._silent(serving, place, service)
            served.add(port)
            for server in service.servers:
                which = place, server.endpoint
                if serving.servers.is_drained(place, server):
                    drained[which] = before.get(which, now)
                late = which in drained and now >= drained[which] + serving.settings.udp_drain_timeout
                to = server_key(UDP, server.address.packed, server.port) + port
                (leaving if late or server in silent else staying).add(to)
        stay, leave = {to[:-2] for to in staying}, {to[:-2] for to in leaving}
        suspects = {key for key in serving.table.connections_to
                    if key[0] == UDP and (changed or key in leave or key not in stay)}
        # Of a service that is gone as a whole, flows stay: there is no other server for them.
        doomed = [entry for entry in serving.table.snapshot()
                  if (to := server_key_of(entry.reply)) in suspects and (port := entry.key[-2:]) in served
                  and to + port not in staying] if suspects else []
        self._ground.counters["udp_flows_moved"] += len(doomed)
        return self._endings.end_all(serving, doomed, now)

    def _silent(self, serving: Serving, place: Place, service: Service) -> list[Server]:
        """The servers that answer no ARP, if others do that take connections: else it may be the LB that hears nobody.
        """
        switch = self._ground.switches[serving.assigned]
        if not switch.hearing.silent:
            return []
        silent = [server for server in service.servers if server.hop.address in switch.hearing.silent]
        others = any(switch.hears(server.hop.address) and not serving.servers.closed(place, server.endpoint)
                     for server in service.servers)
        return silent if others else []
