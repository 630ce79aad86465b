"""One external IP of each kind, for tests of the pipeline: by both NATs, outbound, IPv4 and IPv6, on the network and by
tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from lbctl.entries.access_table import Entry
from lbctl.entries.translation import full_reply, outbound_keys
from lbctl.openflow.flow import Flow
from lbctl.openflow.ports import Port, Ports
from lbctl.openflow.slice_rules import Sliced, SliceState, slice_flows
from lbctl.site.model import ExternalIp, Server, Service, Tunnel
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import pack_key, reply_key
from lbctl.values.protocols import TCP

PORTS = Ports(Port(1, "02:00:00:00:aa:01"), Port(2, "02:00:00:00:aa:02"), {"vxlan": Port(3, "02:00:00:00:aa:02")})
EXTERNAL_MAC, INTERNAL_MAC = (bytes.fromhex(port.mac.replace(":", "")) for port in (PORTS.external, PORTS.internal))
ROUTER_MAC, INSIDE_MAC = bytes.fromhex("02000000c0fe"), bytes.fromhex("02000000005a")
TUNNEL = Tunnel("vxlan", ip_address("198.18.2.9"), 77, 1450)
ADDRESSES = {
    # client, inner router, server, server behind the inner router, inside host, router outside
    4: [
        ip_address(text)
        for text in ("203.0.113.9", "10.0.0.254", "10.0.0.11", "172.16.0.12", "10.0.0.200", "198.51.100.254")
    ],
    6: [
        ip_address(text)
        for text in ("2001:db8:c::9", "fd00::fe", "fd00::11", "fd01::12", "fd00:5::200", "2001:db8::fe")
    ],
}
NEIGHBOURS = {
    ADDRESSES[version][place]: f"02:00:00:00:0{version}:0{place}" for version in (4, 6) for place in (1, 2, 5)
}
NEIGHBOURS[ip_address("172.30.0.9")] = "02:00:00:00:04:09"
_TEXTS = {
    4: ("198.51.100.{}", "10.0.0.{}", "10.0.0.10{}", "10.0.0.192/26"),
    6: ("2001:db8::{}", "fd00::{}", "fd00::10{}", "fd00:5::/64"),
}


def _services(version: int, *servers: Server) -> tuple[Service, ...]:
    direct = Server(ADDRESSES[version][2], 8080)
    return (
        Service(
            "tcp", 80, servers=servers or (direct, Server(ADDRESSES[version][3], 8080, next_hop=ADDRESSES[version][1]))
        ),
        Service("udp", 53, servers=servers or (direct,)),
    )


def external_ip(kind: str, version: int) -> ExternalIp:
    """kind: destination, full, nat-gateway, tunnel (destination NAT) or tunnel-full."""
    number = {"destination": 1, "full": 2, "nat-gateway": 3, "tunnel": 4, "tunnel-full": 5}[kind]
    external, gateway, internal, inside = _TEXTS[version]
    address, own_gateway = ip_address(external.format(number)), ip_address(gateway.format(number))
    internal_ips = tuple(ip_address(internal.format(f"{number}{n}" if version == 6 else n + number)) for n in (0, 1))
    behind = Server(ip_address("172.30.0.9"), 8080, tunnel=TUNNEL)
    match kind:
        case "destination":
            return ExternalIp(address, "lb-a", own_gateway, services=_services(version))
        case "full":
            return ExternalIp(address, "lb-a", None, "full", _services(version), internal_ips=internal_ips)
        case "nat-gateway":
            return ExternalIp(
                address,
                "lb-a",
                own_gateway,
                kind="nat-gateway",
                inside=(ip_network(inside),),
                router=ADDRESSES[version][5],
            )
        case "tunnel":
            return ExternalIp(address, "lb-a", own_gateway, services=_services(version, behind))
    return ExternalIp(address, "lb-a", None, "full", _services(version, behind), internal_ips=internal_ips[:1])


EXTERNAL_IPS = {
    (kind, version): external_ip(kind, version) for version in (4, 6) for kind in ("destination", "full", "nat-gateway")
}
EXTERNAL_IPS |= {(kind, 4): external_ip(kind, 4) for kind in ("tunnel", "tunnel-full")}


def _sliced_ip(version: int) -> ExternalIp:
    """With servers on the network, behind a router and by tunnel, all sliced."""
    direct, _ = servers = _services(version)[0].servers
    external, gateway, _, _ = _TEXTS[version]
    if version == 4:
        servers += (Server(ip_address("172.30.0.9"), 80, tunnel=TUNNEL),)
    services = (
        Service("tcp", 80, servers=servers, entries="slices"),
        Service("udp", 53, servers=servers, entries="slices"),
        Service("tcp", 81, servers=(Server(direct.address, 8181),)),
    )
    return ExternalIp(
        ip_address(external.format(6)),
        "lb-a",
        ip_address(gateway.format(6)),
        services=services,
        router=ADDRESSES[version][5],
    )


SLICED = {version: _sliced_ip(version) for version in (4, 6)}
"""External IPs with two sliced services and one that is not."""


def slices(version: int) -> Iterator[Flow]:
    """The first slices of each service of SLICED, one for each server and one that is nobody's."""
    config = SLICED[version]
    for service in config.services:
        if service.sliced:
            yield from slice_flows(sliced(version, service, *(server.endpoint for server in service.servers), None))


def sliced(version: int, service: Service, *owners: Endpoint | None, **state: bool) -> Sliced:
    """owners: of the first slices; state: of all of them, see SliceState."""
    return Sliced(SLICED[version].address, service,
                  tuple(SliceState(owner, owner, **state) for owner in owners),
                  frozenset(server.endpoint for server in service.servers))


def entry(kind: str, version: int, protocol: int = TCP) -> Entry:
    """Its open connection: of the client from port 40001; of a NAT gateway's inside host from port 5353 to port 443 of
    the client. Translated ports are 1024."""
    config, client, service_port = (
        EXTERNAL_IPS[kind, version],
        ADDRESSES[version][0].packed,
        80 if protocol == TCP else 53,
    )
    if kind == "nat-gateway":
        packet = pack_key(protocol, ADDRESSES[version][4].packed, 5353, client, 443)
        mac = bytes.fromhex(NEIGHBOURS[config.router].replace(":", ""))
        return Entry(*outbound_keys(packet, (config.address.packed, 1024)), mac, 0.0, inner_hop=INSIDE_MAC)
    server = config.services[0].servers[0]
    key = pack_key(protocol, client, 40001, config.address.packed, service_port)
    if config.nat == "full":
        reply = full_reply(key, server.address.packed, server.port, (config.internal_ips[0].packed, 1024))
    else:
        reply = reply_key(key, server.address.packed, server.port)
    return Entry(key, reply, ROUTER_MAC, 0.0)
