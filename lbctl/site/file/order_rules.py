"""What was ordered at run time, by the rules of site files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace

import yaml

from lbctl.site.documents import document_of
from lbctl.site.file.loader import Draft, Loader
from lbctl.site.file.register import Register
from lbctl.site.file.servers import Owner, ServerRules
from lbctl.site.file.slices import unfit_entries, unfit_scheduler, unfit_servers, without_router
from lbctl.site.file.tunnels import TunnelRules
from lbctl.site.forms import Part
from lbctl.site.model import ExternalIp, Server, Service, ServiceName, Site

_SERVER = Part(Server, "server")


def wrong_servers(site: Site, ordered: Collection[ServiceName]) -> tuple[ServiceName, str] | None:
    """The first of these services of `site` whose servers break a rule, beside the services that come before it and all
    that are not of these; and which rule. None: there is none.

    Takes time in proportion to the site: it has to know every server and every address of the LBs.
    """
    loader = Loader("order")
    loader.networks["internal_network"] = site.internal_networks
    transports = {lb.name: frozenset(transport for transport, _ in lb.tunnel_ports) for lb in site.load_balancers}
    rules = ServerRules(loader, Register(loader), TunnelRules(loader, site.settings.internal_mtu, transports))
    by_address = {}
    for external_ip in site.external_ips:
        by_address[external_ip.address] = external_ip
        rules.known(
            replace(
                external_ip,
                services=tuple(
                    service
                    for service in external_ip.services
                    if (external_ip.address, service.protocol, service.port) not in ordered
                ),
            )
        )
    later = dict.fromkeys(ordered)
    for name in ordered:
        external_ip = by_address[name.external_ip]
        service = _find(external_ip, name)
        given = service.servers
        owner = Owner(external_ip.address, f"at {external_ip.address}") if external_ip.has_own_servers else None
        rules.check(_drafts(given, loader), external_ip.address, owner)
        rules.check_others()
        if loader.problems:
            return name, "; ".join(dict.fromkeys(problem.message for problem in loader.problems))
        del later[name]
        before = [one for one in external_ip.services
                  if ServiceName(external_ip.address, one.protocol, one.port) not in later]
        if problem := _without_keeper(site, external_ip, given) or unfit_servers(external_ip, service, before):
            return name, problem
    return None


def wrong_scheduler(site: Site, ordered: Iterable[ServiceName]) -> tuple[ServiceName, str] | None:
    """The first of these services whose scheduler breaks a rule, and which. None: there is none."""
    by_address = {external_ip.address: external_ip for external_ip in site.external_ips}
    for name in ordered:
        service = _find(by_address[name.external_ip], name)
        if service.sliced and (problem := unfit_scheduler(service.scheduler)):
            return name, problem
    return None


def wrong_entries(site: Site, ordered: Iterable[ServiceName]) -> tuple[ServiceName, str] | None:
    """The first of these services whose kind of entries breaks a rule, and which. None: there is none."""
    by_address = {external_ip.address: external_ip for external_ip in site.external_ips}
    for name in ordered:
        external_ip = by_address[name.external_ip]
        problem = unfit_entries(external_ip, _find(external_ip, name)) or without_router(external_ip, site.external_ips)
        if problem:
            return name, problem
    return None


def _find(external_ip: ExternalIp, name: ServiceName) -> Service:
    return next(service for service in external_ip.services if (service.protocol, service.port) == name[1:])


def _drafts(servers: Iterable[Server], loader: Loader) -> list[Draft]:
    """As if a file had them."""
    nodes = [yaml.compose(json.dumps(document_of(server))) for server in servers]
    drafts = [loader.part(_SERVER, node) for node in nodes if node is not None]
    return [draft for draft in drafts if draft is not None]


def _without_keeper(site: Site, external_ip: ExternalIp, servers: tuple[Server, ...]) -> str | None:
    copies = [copy for copy in external_ip.copies if copy != "controller"]
    kept = {keeper.server for keeper in site.keepers.each}
    missing = [str(server.address) for server in servers if server.address not in kept]
    if not copies or not missing:
        return None
    return (
        f"the entries of {external_ip.address} have copies ({', '.join(copies)}), which need a keeper for "
        f"{', '.join(missing)}: add "
        "it to keepers in the site file first"
    )
