"""The site of the tests of ICMP: of both IP versions, with all kinds of external IPs; and what is where in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from lbctl.site.model import ExternalIp, Server, Service, Site
from tests.bed.bed import Bed
from tests.bed.sites import simple_site, together, with_nat_gateway


@dataclass(frozen=True)
class Net:
    """The addresses of one IP version. plain and full: external IPs with destination and full NAT; routed and
    full_routed: the same, their servers behind a router; gateway: the NAT gateway."""

    version: int
    external: str
    internal: str
    behind: str
    remote: str
    """Each the beginning of an address."""

    @property
    def plain(self) -> str:
        return f"{self.external}1"

    @property
    def routed(self) -> str:
        return f"{self.external}2"

    @property
    def full(self) -> str:
        return f"{self.external}3"

    @property
    def full_routed(self) -> str:
        return f"{self.external}4"

    @property
    def gateway(self) -> str:
        return f"{self.external}200"

    @property
    def gateway_inside(self) -> str:
        return f"{self.internal}200"

    @property
    def inside(self) -> tuple[str, str]:
        """The hosts behind the NAT gateway."""
        return f"{self.internal}201", f"{self.internal}202"

    @property
    def client(self) -> str:
        """The remote client, behind two routers' addresses: its own and the LBs'."""
        return f"{self.remote}1"

    @property
    def near_client(self) -> str:
        return f"{self.external}101"

    @property
    def clients_router(self) -> str:
        return f"{self.remote}254"

    @property
    def lbs_router(self) -> str:
        return f"{self.external}254"

    @property
    def inner_router(self) -> str:
        return f"{self.internal}99"

    def server(self, external: str) -> str:
        """Of that external IP."""
        number = external[len(self.external):]
        return f"{self.behind if number in '24' else self.internal}{number}1"

    def internal_ip(self, external: str) -> str:
        """Of an external IP with full NAT."""
        return f"{self.internal}10{external[len(self.external):]}"

    def site(self, **settings: float) -> Site:
        """Everything of this version, on lb-a."""
        site = simple_site(external_ips=1, settings=settings, version=self.version)
        site = replace(
            site, external_ips=tuple(map(self._external_ip, (self.plain, self.routed, self.full, self.full_routed)))
        )
        prefix = ip_network(f"{self.internal}{'192/26' if self.version == 4 else '200/120'}")
        return with_nat_gateway(
            site,
            address=ip_address(self.gateway),
            gateway=ip_address(self.gateway_inside),
            inside=(prefix,),
            router=ip_address(self.lbs_router),
        )

    def _external_ip(self, external: str) -> ExternalIp:
        """With one server for TCP port 80 and UDP port 53."""
        full, routed = external in (self.full, self.full_routed), external in (self.routed, self.full_routed)
        server = Server(
            ip_address(self.server(external)), 8080, next_hop=ip_address(self.inner_router) if routed else None
        )
        services = (Service("tcp", 80, servers=(server,)), Service("udp", 53, servers=(replace(server, port=5353),)))
        if full:
            return ExternalIp(
                ip_address(external),
                "lb-a",
                None,
                "full",
                services,
                internal_ips=(ip_address(self.internal_ip(external)),),
            )
        gateway = ip_address(f"{self.internal}{external[len(self.external):]}")
        return ExternalIp(ip_address(external), "lb-a", gateway, "destination", services)


NETS = {4: Net(4, "198.51.100.", "10.0.0.", "10.1.0.", "203.0.113."),
        6: Net(6, "2001:db8:1::", "2001:db8:2::", "2001:db8:4::", "2001:db8:3::")}
SETTINGS = {
    "linger": 1,
    "arp_interval": 1.0,
    "error_rate": 1000,
    "settle": 0.2,
    "grace": 0.2,
    "misdirected": "error",
}
BED = {
    "site": together(*(net.site(**SETTINGS) for net in NETS.values())),
    "inside": [host for net in NETS.values() for host in net.inside],
}


def all_errors(bed: Bed) -> None:
    """Linux sends so many errors as are asked for; by default it sends one a second to each host. And none of its hosts
    finds a path MTU by itself."""
    for space in (bed.router, bed.remote, *bed.inner_routers.values(), *bed.servers, *bed.clients, *bed.inside):
        space.sysctl(ipv4__icmp_ratelimit=0, ipv6__icmp__ratelimit=0, ipv4__tcp_mtu_probing=0)
