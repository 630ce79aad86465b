"""What connections still use of what the site in force does not name any more: it stays as long as they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.servers.slicing import Slicing
from lbctl.site.model import ExternalIp, Hop, Service, Site
from lbctl.values.addresses import Address, address_order


def internal_ips_in_use(serving: Serving) -> set[Address]:
    """The internal IPs that its connections are translated to; of clients inside, with destination NAT, the
    gateway."""
    return set(map(ip_address, serving.table.translated_to))


def servers_in_use(serving: Serving) -> set[Address]:
    """The addresses of the servers that its connections go to."""
    by_slice = {server.address for slicing in serving.slices.values() for server in slicing.servers()}
    return {ip_address(server) for server in serving.table.servers()} | by_slice


def former_servers(serving: Serving, config: ExternalIp,
                   elsewhere: Mapping[Address, Hop] = MappingProxyType({})) -> tuple[tuple[Address, Hop], ...]:
    """The servers that its connections go to and that `config` has not, and how they are reached. elsewhere: as other
    external IPs reach them from now on."""
    if config.kind != "service":
        return ()
    before = serving.config.hops()
    return tuple((server, elsewhere.get(server) or before.get(server, Hop(server))) for server in sorted(
        servers_in_use(serving) - config.hops().keys(), key=address_order))


def with_slices_in_use(serving: Serving, config: ExternalIp) -> ExternalIp:
    """Services that have slices and are to have none, or others, have them still, and so have those that are gone; and
    the router of their clients."""
    wanted = {(service.protocol_number, service.port) for service in config.services}
    gone = (_leaving(replace(serving.services[place], gone=True), slicing)
            for place, slicing in serving.slices.items() if place not in wanted and not slicing.left)
    services = (*(_with_slices(serving, service) for service in config.services), *gone)
    leaving = any(service.leaving for service in services)
    router = serving.config.router if leaving and config.router is None else config.router
    return replace(config, services=services, router=router)


def _with_slices(serving: Serving, service: Service) -> Service:
    slicing = serving.slices.get((service.protocol_number, service.port))
    if slicing is None or slicing.left or service.sliced and service.by_client == slicing.by_client:
        return service
    return _leaving(service, slicing)


def _leaving(service: Service, slicing: Slicing) -> Service:
    return replace(service, entries="slices", affinity="client" if slicing.by_client else "connection", leaving=True)


def keep_what_is_in_use(ground: Ground) -> None:
    """Makes every external IP what the site in force says, with its former servers, internal IPs and slices."""
    for _ in reconfigure(ground):
        pass


def reconfigure(ground: Ground) -> Iterator[None]:
    """The same, one external IP after the other: other things may happen in between."""
    site, configured = ground.site, dict[Address, Hop]()
    for external_ip in site.external_ips:
        configured.update(external_ip.hops())
        yield
    configs = _by_address(site)
    for serving in list(ground.external_ips):
        if ground.site is not site:  # something has been ordered in between
            site, configs = ground.site, _by_address(ground.site)
        config = configs[serving.address]
        former = former_servers(serving, config, configured)
        internal = internal_ips_in_use(serving) - {config.gateway, *config.internal_ips}
        config = with_slices_in_use(serving, config)
        config = replace(config, former_servers=former, former_internal_ips=tuple(sorted(internal, key=address_order)))
        serving.reconfigure(config, site.settings, ground.in_force.drained(config))
        yield
    ground.external_ips.replace(list(ground.external_ips))


def _by_address(site: Site) -> dict[Address, ExternalIp]:
    return {config.address: config for config in site.external_ips}
