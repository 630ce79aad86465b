"""ICMP through and at an LB (issue 3, point 3): errors, TTL, path MTU, echo, fragments."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from lbctl.model import ExternalIp, Server, Service, Site
from testbed.sites import simple_site, with_nat_gateway

PLAIN, ROUTED, FULL, FULL_ROUTED, GATEWAY = (f"198.51.100.{n}" for n in (1, 2, 3, 4, 200))
INNER_ROUTER = "10.0.0.99"
INSIDE = ("10.0.0.201", "10.0.0.202")


def external_ip(number: int, server: str, *, full: bool, routed: bool) -> ExternalIp:
    """198.51.100.number, with one server for TCP port 80 and UDP port 53."""
    server_at = Server(IPv4Address(server), 8080, next_hop=IPv4Address(INNER_ROUTER) if routed else None)
    services = (Service("tcp", 80, servers=(server_at,)), Service("udp", 53, servers=(replace(server_at, port=5353),)))
    return ExternalIp(
        IPv4Address(f"198.51.100.{number}"), "lb-a", None if full else IPv4Address(f"10.0.0.{number}"), "full" if full else "destination",
        services, internal_ips=(IPv4Address(f"10.0.0.10{number}"),) if full else ())


def site() -> Site:
    """Both kinds of NAT, each with a server on the internal network and one behind a router; and a NAT gateway."""
    plain = simple_site(external_ips=1, settings={"linger": 1, "arp_interval": 1.0, "error_rate": 1000})
    addresses = (external_ip(1, "10.0.0.11", full=False, routed=False), external_ip(2, "10.1.0.21", full=False, routed=True),
                 external_ip(3, "10.0.0.31", full=True, routed=False), external_ip(4, "10.1.0.41", full=True, routed=True))
    return with_nat_gateway(replace(plain, external_ips=addresses))


BED = {"site": site(), "inside": INSIDE}
