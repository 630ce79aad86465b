"""The sites that a bed is built for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network
from typing import Any

from lbctl.site.model import (
    KEEPER_PORT,
    TUNNEL_OVERHEAD,
    ExternalIp,
    Keeper,
    Keepers,
    LoadBalancer,
    Server,
    Service,
    Settings,
    Site,
    Tunnel,
)
from lbctl.values.addresses import Address, Network
from tests.bed.keepers import TOKEN_FILE

EXTERNAL_NETWORK = IPv4Network("198.51.100.0/24")
INTERNAL_NETWORK = IPv4Network("10.0.0.0/24")
EXTERNAL_NETWORKS = {4: EXTERNAL_NETWORK, 6: IPv6Network("2001:db8:1::/64")}
INTERNAL_NETWORKS = {4: INTERNAL_NETWORK, 6: IPv6Network("2001:db8:2::/64")}
REMOTE_NETWORKS: dict[int, Network] = {4: IPv4Network("203.0.113.0/24"), 6: IPv6Network("2001:db8:3::/64")}
"""By IP version; the last ones are behind the router."""
TUNNELED = {4: IPv4Network("10.9.0.0/24"), 6: IPv6Network("2001:db8:9::/64")}
"""Servers behind tunnels."""
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
    version: int = 4,
) -> Site:
    """A site of LBs lb-a, lb-b, ... that takes turns in giving them the external IPs 198.51.100.1, .2, ...

    External IP .i has gateway 10.0.0.i and the servers 10.0.0.i1, .i2, ... `ports`: service port -> server port, by
    default 80 -> 8080. `weights`: of the servers of each service, 1 where it ends. `settings`: fields of
    model.Settings. With `version` 6 the same numbers in 2001:db8:1::/64 and 2001:db8:2::/64.
    """
    if not (1 <= lbs <= 6 and 1 <= external_ips <= 9 and 1 <= servers <= 9):
        raise ValueError("a simple site has 1 to 6 LBs, 1 to 9 external IPs, 1 to 9 servers for each")
    external, internal = EXTERNAL_NETWORKS[version], INTERNAL_NETWORKS[version]
    balancers = tuple(
        LoadBalancer(f"lb-{letter}", int(letter * 2, 16), f"lb{letter}-ext", f"lb{letter}-int")
        for letter in "abcdef"[:lbs]
    )
    addresses = tuple(
        ExternalIp(
            address=host(external, number),
            load_balancer=balancers[(number - 1) % lbs].name,
            gateway=host(internal, number),
            services=tuple(
                Service("tcp", port, scheduler, _servers(internal, number, servers, server_port, weights))
                for port, server_port in (ports or {80: SERVER_PORT}).items()
            ),
        )
        for number in range(1, external_ips + 1)
    )
    return Site(balancers, (external,), (internal,), addresses, Settings(**(settings or {})))


def full_nat_site(external_ips: int = 2, servers: int = 2, *, internal_ips: int = 2, **plain: Any) -> Site:
    """simple_site(**plain) with full NAT: all external IPs have the same servers, 10.0.0.11, ..., which have no way
    to any client.

    External IP .i has the internal IPs 10.0.0.1i1, .1i2, ...
    """
    site = simple_site(external_ips=external_ips, servers=servers, **plain)
    services = site.external_ips[0].services
    internal = site.internal_networks[0]
    return replace(site, external_ips=tuple(
        replace(ip, nat="full", gateway=None, services=services,
                internal_ips=tuple(host(internal, 100 + 10 * number + index) for index in range(1, internal_ips + 1)))
        for number, ip in enumerate(site.external_ips, 1)
    ))


def with_nat_gateway(site: Site, version: int = 4, **changes: Any) -> Site:
    """The site and a NAT gateway more, on the first LB: 198.51.100.200 for 10.0.0.192/26, or 2001:db8:1::200 for
    2001:db8:2::200/120. changes: fields of ExternalIp."""
    external, internal = EXTERNAL_NETWORKS[version], INTERNAL_NETWORKS[version]
    gateway = ExternalIp(
        address=host(external, 200),
        load_balancer=site.load_balancers[0].name,
        gateway=host(internal, 200),
        kind="nat-gateway",
        inside=(ip_network("10.0.0.192/26" if version == 4 else "2001:db8:2::200/120"),),
        router=host(external, 254),
    )
    return replace(site, external_ips=(*site.external_ips, replace(gateway, **changes)))


def behind_tunnels(site: Site, *transports: str, key: int = 7, internal_mtu: int = 1500) -> Site:
    """The site with each server behind a tunnel of its own: server 10.0.0.N is 10.9.0.N, behind 198.18.2.N
    (tests/bed/tunnels.py).

    transports: of the servers of each external IP, in turn. internal_mtu: see model.Settings.
    """

    def moved(server: Server, transport: str) -> Server:
        number = int(str(server.address).rpartition("." if server.address.version == 4 else ":")[2])
        tunnel = Tunnel(transport, IPv4Address(f"198.18.2.{number}"), key, internal_mtu - TUNNEL_OVERHEAD[transport])
        return replace(server, address=host(TUNNELED[server.address.version], number), tunnel=tunnel)

    external_ips = tuple(
        replace(
            ip,
            services=tuple(
                replace(service, servers=tuple(moved(server, transport) for server in service.servers))
                for service in ip.services
            ),
        )
        for ip, transport in zip(site.external_ips, itertools.cycle(transports), strict=False)
    )
    balancers = tuple(replace(lb, tunnel_ports=tuple((transport, f"{lb.internal_port[:3]}-{transport}")
                                                     for transport in TUNNEL_OVERHEAD if transport in transports))
                      for lb in site.load_balancers)
    return replace(
        site,
        external_ips=external_ips,
        load_balancers=balancers,
        settings=replace(site.settings, internal_mtu=internal_mtu),
    )


def with_keepers(site: Site, *copies: str) -> Site:
    """The site with a keeper on each server, and these copies of every external IP. Server 10.0.0.N's is at
    198.18.0.1NN."""
    def keeper(address: Address) -> Keeper:
        number = int(str(address).rpartition("." if address.version == 4 else ":")[2])
        return Keeper(address, f"http://198.18.0.{100 + number}:{KEEPER_PORT}")

    return replace(site, keepers=Keepers(tuple(map(keeper, gateways(site))), TOKEN_FILE),
                   external_ips=tuple(replace(ip, copies=copies) for ip in site.external_ips))


def with_slices(site: Site, **of_external_ips: Any) -> Site:
    """The site with sliced services, and these keys of every external IP (`router`, as a rule)."""
    return replace(site, external_ips=tuple(
        replace(ip, **of_external_ips, services=tuple(replace(service, entries="slices") for service in ip.services))
        for ip in site.external_ips
    ))


def together(ipv4: Site, ipv6: Site) -> Site:
    """A site of both IP versions, with the LBs and settings of the first one."""
    return replace(
        ipv4,
        external_networks=ipv4.external_networks + ipv6.external_networks,
        internal_networks=ipv4.internal_networks + ipv6.internal_networks,
        external_ips=ipv4.external_ips + ipv6.external_ips,
    )


def host(network: Network, number: int) -> Address:
    """The host of that number; in IPv6 its digits are written as they are (::11)."""
    return network[number if network.version == 4 else int(str(number), 16)]


def gateways(site: Site) -> dict[Address, Address | None]:
    """Server address -> gateway, for every server of the site; None: all its external IPs have full NAT."""
    found: dict[Address, Address | None] = {}
    for ip in site.external_ips:
        for address in ip.server_addresses():
            found[address] = ip.gateway or found.get(address)
    return found


def server_ports(site: Site, address: Address) -> list[int]:
    """The TCP ports on which the server at `address` is expected to listen, ascending."""
    services = (service for ip in site.external_ips for service in ip.services if service.protocol == "tcp")
    return sorted({server.port for service in services for server in service.servers if server.address == address})


def _servers(internal: Network, number: int, count: int, port: int, weights: tuple[int, ...]) -> tuple[Server, ...]:
    return tuple(
        Server(host(internal, 10 * number + index + 1), port, weights[index] if index < len(weights) else 1)
        for index in range(count)
    )
