"""The services of a control function: what is in force, and operators' orders that change it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lbctl.changes.needs import Needs
from lbctl.changes.server_change import change_servers
from lbctl.changes.site_change import change_site
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.servers.states import FormerServer, ServerState
from lbctl.site.model import EntryKind, Instead, SchedulerName, Server, Service, ServiceName, ServiceOrder, Site
from lbctl.site.orders import InForce, in_force
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.refused import Refused

_REFUSED = {"scheduler": "Scheduler refused", "entries": "Entries refused", "servers": "Server refused"}
"""Titles, by what was ordered."""


class Services:
    """Its orders raise Refused, with nothing changed; else they return what is to be sent, and open connections stay.
    """

    def __init__(self, ground: Ground, needs: Needs) -> None:
        self._ground, self._needs = ground, needs
        self._tell_ended(ground.in_force)

    def use_file(self, file: Site, now: float) -> Iterator[Outbox]:
        """Another site file; where it says something new, orders end. To be followed to its end; between two steps
        other things may happen."""
        new = in_force(file, self._ground.in_force.orders)
        yield from change_site(self._ground, self._needs, new, now)
        self._tell_ended(new)

    # What the API shows.

    def order(self, address: Address, service: Service) -> ServiceOrder:
        """What is ordered for a service of that external IP."""
        return self._ground.in_force.order(address, service)

    def server_state(self, address: Address, service: Service, server: Server) -> ServerState:
        return self._serving(address).servers.state((service.protocol_number, service.port), server)

    def fails_open(self, address: Address, service: Service) -> str | None:
        """Why that service takes new connections though its health checks say no. None: it doesn't."""
        return self._serving(address).servers.fails_open((service.protocol_number, service.port))

    def former_servers(self, address: Address) -> list[FormerServer]:
        """Those with connections."""
        serving = self._serving(address)
        connections = serving.table.servers() if serving.config.former_servers else {}
        return [FormerServer(server, hop, connections[server.packed]) for server, hop in serving.config.former_servers
                if server.packed in connections]

    def _serving(self, address: Address) -> Serving:
        """Raises KeyError for an address that is no external IP of this site."""
        return self._ground.external_ips.by_address[address.packed]

    # Orders.

    def set_scheduler(self, name: ServiceName, scheduler: SchedulerName) -> Outbox:
        """New connections choose by it; what the file says ends the order."""
        order = replace(self._order(name), scheduler=Instead(scheduler, self._in_file(name).scheduler))
        return self._apply(name, order, "scheduler ordered", scheduler=scheduler)

    def set_entries(self, name: ServiceName, entries: EntryKind) -> Outbox:
        """New connections have entries by connection, or slices; open ones stay as they are, or get entries first."""
        order = replace(self._order(name), entries=Instead(entries, self._in_file(name).entries))
        return self._apply(name, order, "entries ordered", entries=entries)

    def add_server(self, name: ServiceName, server: Server) -> Outbox:
        """It gets connections as soon as the LB has its MAC."""
        servers = self._service(name).servers
        if any(server.endpoint == other.endpoint for other in servers):
            raise Refused(
                409,
                "Server there already",
                f"{name} has the server {server.endpoint} already: change it, or remove it first",
            )
        return self._apply(
            name, self._with_servers(name, (*servers, server)), "server added", server=str(server.endpoint)
        )

    def remove_server(self, name: ServiceName, endpoint: Endpoint) -> Outbox:
        """It gets no new connections; those that it has go on until they end."""
        gone = self._server(name, endpoint)
        rest = tuple(server for server in self._service(name).servers if server != gone)
        if not rest:
            raise Refused(
                409,
                "Last server",
                f"{endpoint} is the last server of {name}: drain it, or take the service out of the site file",
            )
        return self._apply(name, self._with_servers(name, rest), "server removed", server=str(endpoint))

    def change_server(
        self, name: ServiceName, endpoint: Endpoint, fields: Mapping[str, Any], drained: bool | None
    ) -> Outbox:
        """fields: those of Server that change, with values that it may have: weight, max_connections. drained: None,
        as it is."""
        old = self._server(name, endpoint)
        order = self._order(name)
        if fields:
            servers = tuple(
                replace(old, **fields) if server == old else server for server in self._service(name).servers
            )
            order = self._with_servers(name, servers)
        if drained is not None:
            order = replace(order, drained=order.drained | {endpoint} if drained else order.drained - {endpoint})
        told = {**fields, **({} if drained is None else {"drained": drained})}
        return self._apply(name, order, "server changed", server=str(endpoint), **told)

    def _apply(self, name: ServiceName, order: ServiceOrder, event: str, **told: Any) -> Outbox:
        orders = {other: there for other, there in self._ground.in_force.orders.items() if other != name}
        new = in_force(self._ground.in_force.file, {**orders, name: order})
        if broken := next((ended for ended in new.ended if ended.broken), None):
            title = _REFUSED[broken.what]
            raise Refused(422, title, f"{broken.service}: {broken.reason}")
        out = change_servers(self._ground, self._needs.neighbours, new, name.external_ip)
        self._ground.log(event, external_ip=str(name.external_ip), service=f"{name.protocol}/{name.port}", **told)
        self._tell_ended(new)
        return out

    def _order(self, name: ServiceName) -> ServiceOrder:
        return self._ground.in_force.order(name.external_ip, self._service(name))

    def _with_servers(self, name: ServiceName, servers: tuple[Server, ...]) -> ServiceOrder:
        return replace(self._order(name), servers=Instead(servers, self._in_file(name).servers))

    def _service(self, name: ServiceName) -> Service:
        return _find(self._ground.site, name)

    def _in_file(self, name: ServiceName) -> Service:
        return _find(self._ground.in_force.file, name)

    def _server(self, name: ServiceName, endpoint: Endpoint) -> Server:
        servers = self._service(name).servers
        found = next((server for server in servers if server.endpoint == endpoint), None)
        if found is None:
            known = ", ".join(str(server.endpoint) for server in servers)
            raise Refused(404, "Unknown server", f"{name} has no server {endpoint}; it has {known}")
        return found

    def _tell_ended(self, new: InForce) -> None:
        for ended in new.ended:
            self._ground.log(
                "order ended",
                level="warning" if ended.broken else "info",
                service=str(ended.service),
                what=ended.what,
                reason=ended.reason,
            )


def _find(site: Site, name: ServiceName) -> Service:
    """Raises Refused if there is no such service."""
    external_ip = site.external_ip(name.external_ip)
    services = external_ip.services if external_ip else ()
    found = next(
        (service for service in services if (service.protocol, service.port) == (name.protocol, name.port)), None
    )
    if found is None:
        raise Refused(404, "Unknown service", f"the site has no service {name}")
    return found
