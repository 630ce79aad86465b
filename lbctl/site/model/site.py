"""A site as a whole: its load balancers, its keepers, and what the file holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from lbctl.site.forms import (
    FILE,
    NAME,
    PORT_NAME,
    Choice,
    Dpid,
    HostAddress,
    Inline,
    Networks,
    Part,
    Parts,
    Positive,
    Spread,
    Truth,
    Url,
)
from lbctl.site.keys import Key
from lbctl.site.model.external_ips import ExternalIp
from lbctl.site.model.servers import TUNNEL_OVERHEAD
from lbctl.site.model.settings import Rebalance, Settings
from lbctl.values.addresses import Address, Network

KEEPER_PORT = 6654
NatLogOf = Literal["nat-gateways", "all"]
NAT_LOG_OF: tuple[NatLogOf, ...] = get_args(NatLogOf)


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """One OVS bridge with an external and an internal port, known by its datapath id."""

    name: Annotated[str, Key(NAME, "how it is called")]
    dpid: Annotated[int, Key(Dpid(), "its datapath id, as `ovs-vsctl get bridge BRIDGE datapath_id` says")]
    external_port: Annotated[str, Key(PORT_NAME, "the bridge's port to the clients")]
    internal_port: Annotated[str, Key(PORT_NAME, "the bridge's port to the servers")]
    tunnel_ports: Annotated[tuple[tuple[str, str], ...], Key(
        Spread(tuple((f"{transport}_port", transport) for transport in TUNNEL_OVERHEAD), PORT_NAME),
        "the bridge's port to servers behind tunnels of that kind, see tunnels.md")] = ()
    """(transport, name of the port) of each kind of tunnel that it has, in the order of TRANSPORTS."""
    capacity: Annotated[float, Key(Positive(), "how much it can carry, beside the others: a weight")] = 1.0
    standby: Annotated[bool, Key(Truth(), "it gets external IPs by failover or by hand only")] = False
    """Seed figure 2."""
    management_address: Annotated[Address | None, Key(
        HostAddress(), "where its switch connects to the controller from; from elsewhere nobody is taken for it, see "
                       "security.md")] = None

    def ports(self) -> dict[str, str]:
        """What for (external, internal, or a transport) -> name of the port."""
        return {"external": self.external_port, "internal": self.internal_port, **dict(self.tunnel_ports)}


@dataclass(frozen=True, slots=True)
class Keeper:
    """The process that keeps the copy of a server's entries: on that server, or elsewhere (seed modification 8)."""

    server: Annotated[Address, Key(HostAddress(), "the server whose connections it knows")]
    url: Annotated[str, Key(Url(), "where it is", derived=f"http://SERVER:{KEEPER_PORT}")]


@dataclass(frozen=True, slots=True)
class Keepers:
    """All keepers of a site. The files' names are relative to the site file."""

    each: Annotated[tuple[Keeper, ...], Key(
        Parts(Part(Keeper, "keeper")), "processes that keep copies of servers' entries, see keeper.md",
        name="keepers")] = ()
    token_file: Annotated[str | None, Key(
        FILE, "the file with the token that the keepers ask for, relative to the site file",
        name="keeper_token_file")] = None
    ca_file: Annotated[str | None, Key(
        FILE, "the certificates of who may sign theirs, relative to the site file", name="keeper_ca_file")] = None


@dataclass(frozen=True, slots=True)
class Site:
    """A validated site file."""

    load_balancers: Annotated[tuple[LoadBalancer, ...], Key(Parts(Part(LoadBalancer, "load balancer")), "the bridges")]
    external_networks: Annotated[tuple[Network, ...], Key(
        Networks(), "what clients and their routers are on", name="external_network")]
    internal_networks: Annotated[tuple[Network, ...], Key(
        Networks(), "what the servers are on", name="internal_network")]
    """At most one of each IP version, IPv4 first."""
    external_ips: Annotated[tuple[ExternalIp, ...], Key(
        Parts(Part(ExternalIp, "external IP")), "the addresses that clients use")]
    settings: Annotated[Settings, Key(
        Part(Settings, "settings"),
        "times in seconds, rates for each load balancer, bounds")] = field(default_factory=Settings)
    keepers: Annotated[Keepers, Key(Inline(Keepers), "the keepers")] = field(default_factory=Keepers)
    nat_log: Annotated[str | None, Key(
        FILE, "the file that records of NAT are appended to, relative to the site file; see nat.md")] = None
    nat_log_of: Annotated[NatLogOf, Key(
        Choice(NAT_LOG_OF), "what is recorded: connections through NAT gateways, or those of full NAT as well"
    )] = NAT_LOG_OF[0]
    rebalance: Annotated[Rebalance, Key(
        Part(Rebalance, "rebalance"),
        "when external IPs are assigned anew, see assignment.md")] = field(default_factory=Rebalance)

    def load_balancer(self, name: str) -> LoadBalancer | None:
        return next((lb for lb in self.load_balancers if lb.name == name), None)

    def external_ip(self, address: Address) -> ExternalIp | None:
        return next((ip for ip in self.external_ips if ip.address == address), None)
