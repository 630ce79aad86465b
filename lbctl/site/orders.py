"""What operators order for services at run time: another scheduler, other entries, other servers, servers that are
drained (docs/servers.md).

An order lasts, also over restarts, until the site file says something else about the same thing than it said when the
order was given. So there are three: the site file, the orders, and the site in force, which follows from both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from lbctl.site.file.order_rules import wrong_entries, wrong_scheduler, wrong_servers
from lbctl.site.model import ExternalIp, Instead, Service, ServiceName, ServiceOrder, Site
from lbctl.values.addresses import Address, Endpoint

Ordered = TypeVar("Ordered")
OrderBook = Mapping[ServiceName, ServiceOrder]
AS_IN_FILE = ServiceOrder()


class Ended(NamedTuple):
    """An order that does not count any more. broken: it breaks a rule beside the rest of the site; else the file says
    otherwise."""

    service: ServiceName
    what: str
    reason: str
    broken: bool = False


class InForce(NamedTuple):
    """A site file, the orders that count beside it, and what they make together. ended: the orders that counted
    before."""

    file: Site
    orders: OrderBook
    site: Site
    ended: tuple[Ended, ...] = ()

    def order(self, address: Address, service: Service) -> ServiceOrder:
        return self.orders.get(ServiceName(address, service.protocol, service.port), AS_IN_FILE)

    def drained(self, external_ip: ExternalIp) -> list[tuple[tuple[int, int], Endpoint]]:
        """The drained servers of an external IP, each with the protocol number and port of its service."""
        return [((service.protocol_number, service.port), endpoint) for service in external_ip.services
                for endpoint in self.order(external_ip.address, service).drained]


def in_force(file: Site, orders: OrderBook) -> InForce:
    """Never fails: an order that does not fit ends, and is in `ended`. Of several that contradict one another the first
    stays."""
    ended: list[Ended] = []
    if orders:
        orders = _not_overruled(file, orders, ended)
    while wrong := _broken(site := _with(file, orders), orders):
        ended.append(wrong)
        orders = {**orders, wrong.service: _without(wrong.what, orders[wrong.service])}
    kept = _of_servers_in_force(site, orders, ended)
    return InForce(file, {name: order for name, order in kept.items() if order != AS_IN_FILE}, site, tuple(ended))


def _not_overruled(file: Site, orders: OrderBook, ended: list[Ended]) -> dict[ServiceName, ServiceOrder]:
    """Those that the site file has nothing new to say about; one that has come to say the same is not needed any
    more."""
    services = _services(file, orders)
    kept: dict[ServiceName, ServiceOrder] = {}
    for name, order in orders.items():
        service = services.get(name)
        if service is None:
            ended.append(Ended(name, "service", "the site file has no such service any more"))
            continue
        servers = order.servers
        for what, one, said in (("scheduler", order.scheduler, service.scheduler),
                                ("entries", order.entries, service.entries)):
            if one and one.instead_of != said:
                ended.append(Ended(name, what, f"the site file says {said} instead of {one.instead_of}"))
        if servers and set(servers.instead_of) != set(service.servers):
            ended.append(
                Ended(name, "servers", "the site file says something else about the servers than when it was given")
            )
        kept[name] = ServiceOrder(
            _lasting(order.scheduler, service.scheduler),
            servers if servers and set(servers.instead_of) == set(service.servers) != set(servers.wanted) else None,
            order.drained,
            _lasting(order.entries, service.entries),
        )
    return kept


def _lasting(order: Instead[Ordered] | None, said: Ordered) -> Instead[Ordered] | None:
    """said: by the site file."""
    return order if order and order.instead_of == said != order.wanted else None


def _broken(site: Site, orders: OrderBook) -> Ended | None:
    entries = wrong_entries(site, [name for name, order in orders.items() if order.entries])
    if entries:
        return Ended(entries[0], "entries", entries[1], broken=True)
    scheduler = wrong_scheduler(site, [name for name, order in orders.items() if order.scheduler])
    if scheduler:
        return Ended(scheduler[0], "scheduler", scheduler[1], broken=True)
    ordered = [name for name, order in orders.items() if order.servers]
    servers = wrong_servers(site, ordered) if ordered else None
    return Ended(servers[0], "servers", servers[1], broken=True) if servers else None


def _without(what: str, order: ServiceOrder) -> ServiceOrder:
    if what == "servers":
        return replace(order, servers=None)
    return replace(order, scheduler=None) if what == "scheduler" else replace(order, entries=None)


def _of_servers_in_force(site: Site, orders: OrderBook, ended: list[Ended]) -> dict[ServiceName, ServiceOrder]:
    """A server is drained as long as its service has it."""
    services = _services(site, orders)
    kept = {}
    for name, order in orders.items():
        gone = order.drained - {server.endpoint for server in services[name].servers}
        ended += [
            Ended(name, f"drained server {endpoint}", "the service has no such server any more") for endpoint in gone
        ]
        kept[name] = replace(order, drained=order.drained - gone)
    return kept


def _services(site: Site, orders: OrderBook) -> dict[ServiceName, Service]:
    """The services that orders are about."""
    wanted = {name.external_ip for name in orders}
    return {
        name: service
        for external_ip in site.external_ips
        if external_ip.address in wanted
        for service in external_ip.services
        if (name := ServiceName(external_ip.address, service.protocol, service.port)) in orders
    }


def _with(file: Site, orders: OrderBook) -> Site:
    changed = {name.external_ip for name, order in orders.items() if order.scheduler or order.servers or order.entries}
    if not changed:
        return file
    return replace(file, external_ips=tuple(
        replace(external_ip, services=tuple(_ordered(orders, external_ip, service) for service in external_ip.services))
        if external_ip.address in changed else external_ip for external_ip in file.external_ips))


def _ordered(orders: OrderBook, external_ip: ExternalIp, service: Service) -> Service:
    order = orders.get(ServiceName(external_ip.address, service.protocol, service.port), AS_IN_FILE)
    return replace(service, scheduler=order.scheduler.wanted if order.scheduler else service.scheduler,
                   servers=order.servers.wanted if order.servers else service.servers,
                   entries=order.entries.wanted if order.entries else service.entries)
