"""Servers that were ordered at run time, by the rules of site files."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace

import yaml

from lbctl.site.file.fields import FieldReader
from lbctl.site.file.servers import ServerReader
from lbctl.site.file.tunnels import TunnelReader
from lbctl.site.model import ExternalIp, Server, ServiceName, Site
from lbctl.site.server_documents import document_of


def wrong_servers(site: Site, ordered: Collection[ServiceName]) -> tuple[ServiceName, str] | None:
    """The first of these services of `site` whose servers break a rule, beside the services that come before it and all that are
    not of these; and which rule. None: there is none.

    Takes time in proportion to the site: it has to know every server and every address of the LBs.
    """
    reader = FieldReader("order")
    servers = ServerReader(reader, site.internal_networks, TunnelReader(reader, site.settings.internal_mtu, site.load_balancers))
    by_address = {}
    for external_ip in site.external_ips:
        by_address[external_ip.address] = external_ip
        servers.known(replace(external_ip, services=tuple(
            service for service in external_ip.services if (external_ip.address, service.protocol, service.port) not in ordered)))
    for name in ordered:
        external_ip = by_address[name.external_ip]
        given = next(service.servers for service in external_ip.services if (service.protocol, service.port) == name[1:])
        nodes = [yaml.compose(json.dumps(document_of(server))) for server in given]
        servers.servers(f"at {external_ip.address}" if external_ip.nat == "destination" else None, external_ip.address, nodes)
        servers.check_others()
        if reader.problems:
            return name, "; ".join(dict.fromkeys(problem.message for problem in reader.problems))
        if problem := _without_keeper(site, external_ip, given):
            return name, problem
    return None


def _without_keeper(site: Site, external_ip: ExternalIp, servers: tuple[Server, ...]) -> str | None:
    copies = [copy for copy in external_ip.copies if copy != "controller"]
    kept = {keeper.server for keeper in site.keepers.each}
    missing = [str(server.address) for server in servers if server.address not in kept]
    if not copies or not missing:
        return None
    return (f"the entries of {external_ip.address} have copies ({', '.join(copies)}), which need a keeper for {', '.join(missing)}: add "
            "it to keepers in the site file first")
