"""A site as the text of a site file: what lbctl.config reads, without what is a default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import yaml

from lbctl.site.file.health_checks import check_text
from lbctl.site.file.tunnels import PORT_KEYS
from lbctl.site.model import PORTS, ExternalIp, LoadBalancer, Service, Site
from lbctl.site.server_documents import document_of
from lbctl.values.addresses import Network, address_order


def site_text(site: Site) -> str:
    """The site file that says what `site` says."""
    document: dict[str, Any] = {
        "load_balancers": [_load_balancer(lb) for lb in site.load_balancers],
        "external_network": _networks(site.external_networks),
        "internal_network": _networks(site.internal_networks),
        "external_ips": [_external_ip(external_ip, bool(site.keepers.each)) for external_ip in site.external_ips],
    }
    for name, values in (("settings", site.settings), ("rebalance", site.rebalance)):
        if changed := {each.name: value for each in fields(values) if (value := getattr(values, each.name)) != each.default}:
            document[name] = changed
    keepers = site.keepers
    if keepers.each:
        document["keepers"] = [{"server": str(keeper.server), "url": keeper.url} for keeper in keepers.each]
    document |= {key: name for key, name in (("keeper_token_file", keepers.token_file), ("keeper_ca_file", keepers.ca_file)) if name}
    return yaml.safe_dump(document, sort_keys=False)


def _networks(networks: Sequence[Network]) -> str | list[str]:
    return str(networks[0]) if len(networks) == 1 else [str(network) for network in networks]


def _load_balancer(lb: LoadBalancer) -> dict[str, Any]:
    return {"name": lb.name, "dpid": f"{lb.dpid:016x}", "external_port": lb.external_port, "internal_port": lb.internal_port,
            **{PORT_KEYS[transport]: port for transport, port in lb.tunnel_ports},
            **({"capacity": lb.capacity} if lb.capacity != 1.0 else {}), **({"standby": True} if lb.standby else {})}


def _external_ip(ip: ExternalIp, kept: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"address": str(ip.address), "load_balancer": ip.load_balancer}
    if ip.kind == "nat-gateway":
        found |= {"kind": ip.kind, "inside": [str(prefix) for prefix in ip.inside], "router": str(ip.router)}
    else:
        found["nat"] = ip.nat
    if ip.gateway:
        found["gateway"] = str(ip.gateway)
    if ip.internal_ips:
        found["internal_ips"] = [str(address) for address in ip.internal_ips]
    if ip.port_range != PORTS:
        found["port_range"] = list(ip.port_range)
    if kept or ip.copies != ("controller",):
        found["copies"] = list(ip.copies)
    if ip.only_on:
        found["only_on"] = sorted(ip.only_on)
    if ip.not_with:
        found["not_with"] = [str(other) for other in sorted(ip.not_with, key=address_order)]
    if ip.services:
        found["services"] = [_service(service) for service in ip.services]
    return found


def _service(service: Service) -> dict[str, Any]:
    return {"protocol": service.protocol, "port": service.port, "scheduler": service.scheduler,
            "servers": [document_of(server) for server in service.servers],
            **({"health_check": check_text(service.health_check)} if service.health_check else {})}
