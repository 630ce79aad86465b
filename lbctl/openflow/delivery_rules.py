"""The flows that send packets to servers, and those that measure what may be too large for the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lbctl.openflow.cookies import Kind
from lbctl.openflow.flow import CONTROLLER, DEC_TTL, FORGET_IN_PORT, CheckLarger, Flow, Match, Output, SetField, flow
from lbctl.openflow.meters import METER_FRAGMENT
from lbctl.openflow.ports import Ports
from lbctl.site.model import ExternalIp, Hop
from lbctl.values.addresses import Address
from lbctl.values.protocols import ETH_TYPES, ETHERNET_HEADER


def measure(limit: int) -> CheckLarger:
    """limit: bytes of an IP packet."""
    return CheckLarger(ETHERNET_HEADER + limit, "reg2")


def too_big_flows(table: str) -> Iterator[Flow]:
    """What has been measured, and is too large."""
    for eth_type in ETH_TYPES.values():
        yield flow(Kind.TOO_BIG, 0, table, 110, {"reg2": 1, "eth_type": eth_type}, CONTROLLER, meter=METER_FRAGMENT)


def delivery_flows(
    hops: Mapping[Address, Hop], neighbours: Mapping[Address, str], ports: Ports, direct: Mapping[Address, Address]
) -> Iterator[Flow]:
    """How to reach each server whose next hop's MAC is known. hops: by server; neighbours: the MAC of a next hop.
    direct: the external IPs of servers that get packets as they came: so far a packet has its server's address, which
    Open vSwitch never writes where it is another one in the end."""
    for server, (next_hop, tunnel) in hops.items():
        if next_hop not in neighbours:
            continue
        to_server: Match = {"eth_type": ETH_TYPES[server.version], f"ipv{server.version}_dst": str(server)}
        to_mac = SetField("eth_dst", neighbours[next_hop])
        address = direct.get(server)
        as_it_came = (SetField(f"ipv{address.version}_dst", str(address)),) if address else ()
        to_hop = (*as_it_came, SetField("eth_src", ports.internal.mac), to_mac, DEC_TTL)
        if tunnel is None and ports.internal.limit is not None:
            yield flow(Kind.DELIVER, 0, "deliver_server", 100, to_server, to_mac, measure(ports.internal.limit),
                       goto="send_inside")
            if as_it_came:
                yield flow(Kind.DELIVER, 0, "send_inside", 105, to_server, *as_it_came,
                           SetField("eth_src", ports.internal.mac), DEC_TTL, FORGET_IN_PORT,
                           Output(ports.internal.number))
        elif tunnel is None:
            yield flow(Kind.DELIVER, 0, "deliver_server", 100, to_server, *to_hop, FORGET_IN_PORT,
                       Output(ports.internal.number))
        if tunnel is None:
            if next_hop != server:  # behind a router it may have any address, and be a client
                yield flow(Kind.DELIVER, 0, "deliver_client", 110, to_server, goto="deliver_inside")
            continue
        yield flow(Kind.DELIVER, 0, "deliver_server", 100, to_server, measure(tunnel.mtu), goto="deliver_tunnel")
        to_end = (SetField("tun_ipv4_dst", str(tunnel.remote)), SetField("tunnel_id", tunnel.key))
        yield flow(Kind.DELIVER, 0, "deliver_tunnel", 100, to_server, *to_hop, *to_end, Output(ports.to(tunnel).number))


def direct_servers(external_ips: Iterable[ExternalIp]) -> dict[Address, Address]:
    """The servers that answer clients themselves -> their external IP."""
    return {server: external_ip.address for external_ip in external_ips if external_ip.direct
            for server in external_ip.hops()}
