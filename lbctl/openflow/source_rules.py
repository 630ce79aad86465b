"""The flows that drop what has come in by the wrong side (ingress filtering, RFC 2827): nobody outside has an internal
address, and nobody but the LBs has theirs. A datagram "from" a server to an external IP would make another server
answer it directly.

What passes between two LBs is right: an inside host calls a service of another LB by its NAT gateway's address, and is
answered from the service's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lbctl.openflow.cookies import Kind
from lbctl.openflow.flow import Flow, Match, flow
from lbctl.openflow.ports import Ports
from lbctl.site.model import ExternalIp
from lbctl.values.addresses import Address, Network
from lbctl.values.protocols import ETH_TYPES


class Internal(NamedTuple):
    """The internal networks. believed: who says from outside that it is there, or has an address of ours."""

    networks: tuple[Network, ...] = ()
    believed: bool = False


NO_NETWORKS = Internal()


def source_flows(ports: Ports, internal: Internal) -> Iterator[Flow]:
    """Of the internal networks, whose addresses nobody has outside; or what lets all in, whatever flows there are
    besides."""
    yield flow(Kind.PIPELINE, 0, "sources", 0, {}, goto="transfer_mode")
    if internal.believed:
        yield flow(Kind.PIPELINE, 0, "sources", 200, {}, goto="transfer_mode")
        return
    for network in internal.networks:
        yield _dropped(0, 130, ports.external.number, network)


def external_ip_source_flows(external_ip: ExternalIp, owner: int, ports: Ports) -> Iterator[Flow]:
    """Of its own addresses, and its inside hosts'."""
    outside, address = ports.external.number, external_ip.address
    if external_ip.kind == "nat-gateway":
        to_it: Match = {"in_port": outside, "eth_type": ETH_TYPES[address.version],
                        f"ipv{address.version}_dst": str(address)}
        yield flow(Kind.PIPELINE, owner, "sources", 110, to_it, goto="transfer_mode")
        for prefix in external_ip.inside:
            yield _dropped(owner, 120, outside, prefix)
    else:
        yield _dropped(owner, 100, outside, address)
    if external_ip.direct and external_ip.check_protocols():
        # What its servers answer health checks comes from it.
        source = external_ip.check_source()
        for port in ports.inside(external_ip):
            answer: Match = {"in_port": port.number, "eth_type": ETH_TYPES[address.version],
                             f"ipv{address.version}_src": str(address), f"ipv{address.version}_dst": str(source)}
            yield flow(Kind.PIPELINE, owner, "sources", 110, answer, goto="transfer_mode")
    for port in (ports.internal, *ports.tunnels.values()):
        for own in (address, *external_ip.internal_addresses()):
            yield _dropped(owner, 100, port.number, own)


def _dropped(owner: int, priority: int, in_port: int, source: Address | Network) -> Flow:
    match: Match = {"in_port": in_port, "eth_type": ETH_TYPES[source.version], f"ipv{source.version}_src": str(source)}
    return flow(Kind.PIPELINE, owner, "sources", priority, match, goto="wrong_side")
