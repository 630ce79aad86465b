"""What a lab consists of: a site and the machines around it, as values; and its site file.

All addresses are documentation or private ranges, and exist in network namespaces only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from lbctl.site.file.text import site_text
from lbctl.site.model import (
    KEEPER_PORT,
    CopyName,
    ExternalIp,
    Keeper,
    Keepers,
    LoadBalancer,
    Server,
    Service,
    Settings,
    Site,
)
from lbctl.values.addresses import Address
from topologies.rundir import KEEPER_TOKEN

EXTERNAL_NETWORK = IPv4Network("198.51.100.0/24")
INTERNAL_NETWORK = IPv4Network("10.0.0.0/24")
REMOTE_NETWORK = IPv4Network("203.0.113.0/24")
MANAGEMENT_NETWORK = IPv4Network("198.18.0.0/24")

CONTROLLER = IPv4Address("198.18.0.1")
"""Where the control function is, unless it runs on a server."""
LOOPBACK = IPv4Address("127.0.0.1")
OPENFLOW_PORT = 6653
REST_PORT = 8080
NAME_SERVER = IPv4Address("198.51.100.53")
ROUTER_EXTERNAL = IPv4Address("198.51.100.254")
ROUTER_REMOTE = IPv4Address("203.0.113.254")
SITE_NAME = "www.lab.example"


@dataclass(frozen=True)
class Machine:
    """A client or a server: its name at the prompt and its address."""

    name: str
    address: IPv4Address


@dataclass(frozen=True)
class Plan:
    """A lab: the site, and the machines that use it. `name`: of its file; `seed_names`: what the seed's figure calls
    them.

    control_server: the server that the control function runs on, which is then on the internal network only (seed,
    modification 7). None: it runs outside, and reaches the LBs over a management network.
    """

    name: str
    title: str
    site: Site
    servers: tuple[Machine, ...]
    clients: tuple[Machine, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed_names: Mapping[str, str] = field(default_factory=dict)
    control_server: Machine | None = None

    @property
    def controller(self) -> IPv4Address:
        """Where LBs reach the control function."""
        return self.control_server.address if self.control_server else CONTROLLER

    @property
    def rest_address(self) -> IPv4Address:
        """Where the control function's REST API listens: whoever is on the internal network may ask it if it is
        there."""
        return self.control_server.address if self.control_server else LOOPBACK

    def control_address(self, number: int) -> IPv4Address:
        """The address from which the LB of that number (from 0) talks to the control function."""
        return (INTERNAL_NETWORK[201] if self.control_server else CONTROLLER + 10) + number

    @property
    def remote_clients(self) -> tuple[Machine, ...]:
        """The clients behind the router."""
        return tuple(client for client in self.clients if client.address in REMOTE_NETWORK)

    def gateway_of(self, server: Machine) -> Address | None:
        """The default route of a server: the gateway of the external IP that it belongs to; with full NAT it needs
        none."""
        for external_ip in self.site.external_ips:
            if server.address in external_ip.server_addresses():
                return external_ip.gateway
        raise ValueError(f"server {server.name} ({server.address}) belongs to no external IP of the lab's site")

    def with_service(self, port: int) -> Plan:
        """The same lab with a TCP service on `port` more on every external IP, on the same servers."""
        external_ips = tuple(_with_service(external_ip, port) for external_ip in self.site.external_ips)
        return replace(self, site=replace(self.site, external_ips=external_ips))

    def sliced(self) -> Plan:
        """The same lab with sliced services (docs/slices.md)."""
        external_ips = tuple(
            replace(external_ip, router=ROUTER_EXTERNAL,
                    services=tuple(replace(service, entries="slices") for service in external_ip.services))
            for external_ip in self.site.external_ips
        )
        return replace(self, site=replace(self.site, external_ips=external_ips))


def load_balancer(letter: str) -> LoadBalancer:
    """`a` makes lb-a with dpid 00000000000000aa and ports lba-ext and lba-int."""
    return LoadBalancer(f"lb-{letter}", int(letter * 2, 16), f"lb{letter}-ext", f"lb{letter}-int")


def web_site(assignment: Iterable[tuple[str, str, str, Iterable[Machine]]], letters: str) -> Site:
    """A site of the LBs in `letters` with HTTP on each external IP: (address, LB, gateway, servers)."""
    return Site(
        load_balancers=tuple(load_balancer(letter) for letter in letters),
        external_networks=(EXTERNAL_NETWORK,),
        internal_networks=(INTERNAL_NETWORK,),
        external_ips=tuple(
            ExternalIp(
                address=IPv4Address(address),
                load_balancer=lb_name,
                gateway=IPv4Address(gateway),
                services=(Service("tcp", 80, servers=tuple(Server(m.address, 80) for m in machines)),),
            )
            for address, lb_name, gateway, machines in assignment
        ),
    )


def with_full_nat(site: Site, machines: Iterable[Machine]) -> Site:
    """The site with full NAT, where every external IP is served by all these machines; .1 has the internal IP .101, and
    so on."""
    service = Service("tcp", 80, servers=tuple(Server(machine.address, 80) for machine in machines))
    return replace(
        site,
        external_ips=tuple(
            replace(
                external_ip,
                nat="full",
                gateway=None,
                services=(service,),
                internal_ips=(INTERNAL_NETWORK[100 + number],),
            )
            for number, external_ip in enumerate(site.external_ips, 1)
        ),
    )


def with_keepers(site: Site, machines: Iterable[Machine], copies: Iterable[Sequence[CopyName]]) -> Site:
    """The site with a keeper on each of these servers, and these copies of each external IP."""
    keepers = tuple(Keeper(machine.address, f"http://{machine.address}:{KEEPER_PORT}") for machine in machines)
    external_ips = tuple(
        replace(external_ip, copies=tuple(each)) for external_ip, each in zip(site.external_ips, copies, strict=True)
    )
    return replace(site, keepers=Keepers(keepers, KEEPER_TOKEN), external_ips=external_ips)


def machine(name: str, address: str) -> Machine:
    return Machine(name, IPv4Address(address))


def site_yaml(plan: Plan) -> str:
    """The lab's site file."""
    known = {setting.name for setting in fields(Settings)}
    if unknown := set(plan.settings) - known:
        raise ValueError(f"no such settings: {', '.join(sorted(unknown))}")
    return site_text(replace(plan.site, settings=replace(plan.site.settings, **plan.settings)))


def interface(address: IPv4Address) -> IPv4Interface:
    """The address with the prefix length of its network."""
    for network in (EXTERNAL_NETWORK, INTERNAL_NETWORK, REMOTE_NETWORK, MANAGEMENT_NETWORK):
        if address in network:
            return IPv4Interface((address, network.prefixlen))
    raise ValueError(f"{address} is in none of the lab's networks")


def _with_service(external_ip: ExternalIp, port: int) -> ExternalIp:
    servers = tuple(Server(address, port) for address in external_ip.server_addresses())
    return replace(external_ip, services=(*external_ip.services, Service("tcp", port, servers=servers)))
