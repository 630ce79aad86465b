"""The sites that a bed is built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from lbctl.model import Address, ExternalIp, LoadBalancer, Server, Service, Settings, Site

EXTERNAL_NETWORK = IPv4Network("198.51.100.0/24")
INTERNAL_NETWORK = IPv4Network("10.0.0.0/24")
SERVER_PORT = 8080


def simple_site(
    lbs: int = 2,
    external_ips: int = 2,
    servers: int = 2,
    *,
    ports: Mapping[int, int] | None = None,
    scheduler: str = "round-robin",
    weights: tuple[int, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> Site:
    """A site of LBs lb-a, lb-b, ... that takes turns in giving them the external IPs 198.51.100.1, .2, ...

    External IP .i has gateway 10.0.0.i and the servers 10.0.0.i1, .i2, ... `ports`: service port -> server port, by default
    80 -> 8080. `weights`: of the servers of each service, 1 where it ends. `settings`: fields of model.Settings.
    """
    if not (1 <= lbs <= 6 and 1 <= external_ips <= 9 and 1 <= servers <= 9):
        raise ValueError("a simple site has 1 to 6 LBs, 1 to 9 external IPs, 1 to 9 servers for each")
    balancers = tuple(
        LoadBalancer(f"lb-{letter}", int(letter * 2, 16), f"lb{letter}-ext", f"lb{letter}-int")
        for letter in "abcdef"[:lbs]
    )
    addresses = tuple(
        ExternalIp(
            address=EXTERNAL_NETWORK[number],
            load_balancer=balancers[(number - 1) % lbs].name,
            gateway=INTERNAL_NETWORK[number],
            services=tuple(
                Service("tcp", port, scheduler, _servers(number, servers, server_port, weights))
                for port, server_port in (ports or {80: SERVER_PORT}).items()
            ),
        )
        for number in range(1, external_ips + 1)
    )
    return Site(balancers, (EXTERNAL_NETWORK,), (INTERNAL_NETWORK,), addresses, Settings(**(settings or {})))


def with_nat_gateway(site: Site, **changes: Any) -> Site:
    """The site and a NAT gateway more: 198.51.100.200 for 10.0.0.192/26, on the first LB. changes: fields of ExternalIp."""
    gateway = ExternalIp(
        address=EXTERNAL_NETWORK[200],
        load_balancer=site.load_balancers[0].name,
        gateway=INTERNAL_NETWORK[200],
        kind="nat-gateway",
        inside=(IPv4Network("10.0.0.192/26"),),
        router=EXTERNAL_NETWORK[254],
    )
    return replace(site, external_ips=(*site.external_ips, replace(gateway, **changes)))


def gateways(site: Site) -> dict[Address, Address | None]:
    """Server address -> gateway, for every server of the site."""
    return {address: ip.gateway for ip in site.external_ips for address in ip.server_addresses()}


def server_ports(site: Site, address: Address) -> list[int]:
    """The ports on which the server at `address` is expected to listen, ascending."""
    services = (service for ip in site.external_ips for service in ip.services)
    return sorted({server.port for service in services for server in service.servers if server.address == address})


def _servers(number: int, count: int, port: int, weights: tuple[int, ...]) -> tuple[Server, ...]:
    return tuple(
        Server(INTERNAL_NETWORK[10 * number + index + 1], port, weights[index] if index < len(weights) else 1)
        for index in range(count)
    )
