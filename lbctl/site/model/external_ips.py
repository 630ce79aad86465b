"""External IPs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from lbctl.site.forms import (
    Choice,
    HostAddress,
    LoadBalancerName,
    Part,
    Parts,
    PortRange,
    Prefix,
    Several,
    Unordered,
)
from lbctl.site.keys import Key
from lbctl.site.model.servers import Hop
from lbctl.site.model.services import Service
from lbctl.values.addresses import Address, Network, address_order

IpKind = Literal["service", "nat-gateway"]
KINDS: tuple[IpKind, ...] = get_args(IpKind)
"""What an external IP is for: services that clients use; or inside hosts' connections to the outside."""
NatKind = Literal["destination", "full", "none"]
NAT_KINDS: tuple[NatKind, ...] = get_args(NatKind)
"""Seed figures 4 and 11; and direct server return, where nothing is translated (docs/slices.md)."""
NatBehaviour = Literal["address-and-port-dependent", "address-dependent", "endpoint-independent"]
"""Of a NAT gateway, in the words of RFC 4787."""
MAPPINGS: tuple[NatBehaviour, ...] = ("address-and-port-dependent", "endpoint-independent")
FILTERINGS: tuple[NatBehaviour, ...] = get_args(NatBehaviour)
CopyName = Literal["controller", "keeper", "sockets"]
COPIES: tuple[CopyName, ...] = get_args(CopyName)
"""Where the entries of a dead LB can be had from (docs/failover.md)."""
PORTS = (1024, 65535)
"""The ports of an internal IP (of a NAT gateway) that connections are translated to, unless the site file says
otherwise."""
_DESTINATION, _FULL, _DIRECT = "nat: destination", "nat: full", "nat: none"
_GATEWAY = "kind: nat-gateway"


@dataclass(frozen=True, slots=True)
class ExternalIp:
    """An address that clients use: the unit that moves."""

    address: Annotated[Address, Key(HostAddress("external_network"), "the address itself")]
    load_balancer: Annotated[str, Key(
        LoadBalancerName(), "where it starts; afterwards `lbctl move` and failures change it")]
    kind: Annotated[IpKind, Key(
        Choice(KINDS),
        "what it is for: services that clients use, or inside hosts' "
        "connections to the outside, see nat.md")] = field(default="service", kw_only=True)
    gateway: Annotated[Address | None, Key(
        HostAddress("internal_network"),
        "the address that its servers (or inside hosts) route through; it moves with it. With nat: none: the one that "
        "health checks come from",
        required_for=(_DESTINATION, _DIRECT, _GATEWAY), only_for=(_DESTINATION, _FULL, _DIRECT, _GATEWAY))] = None
    nat: Annotated[NatKind, Key(
        Choice(NAT_KINDS), "what of a packet is translated, see nat.md; none: direct server return, see slices.md",
        only_for=(_DESTINATION, _FULL, _DIRECT))] = "destination"
    services: Annotated[tuple[Service, ...], Key(
        Parts(Part(Service, "service")), "what clients find on it", required_for=(_DESTINATION, _FULL, _DIRECT))] = ()
    former_servers: tuple[tuple[Address, Hop], ...] = ()
    """Servers that a newer site file has dropped while they still have connections; never in a file itself."""
    internal_ips: Annotated[tuple[Address, ...], Key(
        Several(HostAddress("internal_network"), item="internal IP"),
        "what clients are translated to; they move with it", required_for=(_FULL,))] = field(default=(), kw_only=True)
    port_range: Annotated[tuple[int, int], Key(
        PortRange(), "the ports that connections are translated to: of each internal IP, or of the NAT gateway itself",
        only_for=(_FULL, _GATEWAY))] = field(default=PORTS, kw_only=True)
    inside: Annotated[tuple[Network, ...], Key(
        Several(Prefix()), "the hosts whose connections are translated",
        required_for=(_GATEWAY,))] = field(default=(), kw_only=True)
    router: Annotated[Address | None, Key(
        HostAddress("external_network"),
        "a NAT gateway's way to the outside; sliced services' way to clients that are not on the external network, see "
        "slices.md", required_for=(_GATEWAY,), only_for=(_DESTINATION, _GATEWAY))] = field(default=None, kw_only=True)
    mapping: Annotated[NatBehaviour, Key(
        Choice(MAPPINGS),
        "whether an inside host's port is another one towards each outside address and port, or the same towards all, "
        "see nat.md", only_for=(_GATEWAY,))] = field(default=MAPPINGS[0], kw_only=True)
    filtering: Annotated[NatBehaviour, Key(
        Choice(FILTERINGS),
        "who may send a datagram to a mapped UDP port: whom the inside host has sent one to (that port; any port of "
        "that address), or everybody; needs mapping: endpoint-independent",
        only_for=(_GATEWAY,))] = field(default=FILTERINGS[0], kw_only=True)
    former_internal_ips: tuple[Address, ...] = field(default=(), kw_only=True)
    """The same as former_servers of internal IPs: they are still answered for, and given to no new connection."""
    copies: Annotated[tuple[CopyName, ...], Key(
        Several(Choice(COPIES)),
        "where its entries can be had from when its load balancer dies, the preferred place first",
        derived="controller, and what keepers make possible, see failover.md")] = field(
            default=("controller",), kw_only=True)
    only_on: Annotated[frozenset[str], Key(
        Unordered(LoadBalancerName()),
        "the load balancers that an assignment may give it to; a failover heeds it where it can",
        absent="all")] = field(default=frozenset(), kw_only=True)
    not_with: Annotated[frozenset[Address], Key(
        Unordered(HostAddress()), "external IPs that shall be on other load balancers",
        absent="none")] = field(default=frozenset(), kw_only=True)
    _hops: dict[Address, Hop] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = dict(self.former_servers)
        found.update((server.address, server.hop) for service in self.services for server in service.servers)
        object.__setattr__(self, "_hops", {address: found[address] for address in sorted(found, key=address_order)})

    @property
    def direct(self) -> bool:
        """Direct server return: servers get packets as they come, and answer clients themselves."""
        return self.nat == "none"

    @property
    def has_own_servers(self) -> bool:
        """Can't its servers be another external IP's as well? (Full NAT tells them apart by internal IPs.)"""
        return self.kind == "service" and self.nat != "full"

    def hops(self) -> dict[Address, Hop]:
        """How each of its services' servers is reached, and of the former ones; in ascending order of addresses."""
        return self._hops

    def server_addresses(self) -> tuple[Address, ...]:
        """In ascending order."""
        return tuple(self.hops())

    def every_internal_ip(self) -> tuple[Address, ...]:
        """Whatever servers may answer to: its internal IPs and the former ones."""
        return self.internal_ips + self.former_internal_ips

    def internal_addresses(self) -> tuple[Address, ...]:
        """What is answered for on the internal network, as long as an LB serves this external IP."""
        return (*((self.gateway,) if self.gateway else ()), *self.every_internal_ip())

    def check_source(self) -> Address:
        """Whom the servers see health checks from: an address that they answer to the LB that serves this external IP.
        (The file of one with services has either.)"""
        source = self.internal_ips[0] if self.nat == "full" else self.gateway
        assert source is not None, f"{self.address} has neither an internal IP nor a gateway"
        return source

    def check_protocols(self) -> list[int]:
        """The protocols (IANA numbers) of its services' health checks, ascending."""
        return sorted({service.health_check.protocol_number for service in self.services if service.health_check})
