"""Value types of a site and of its connections; the words are those of docs/architecture.md.

Everything here is immutable and comparable, knows nothing of OpenFlow, and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from lbctl.values.addresses import Address, Endpoint, Network, address_order
from lbctl.values.protocols import PROTOCOL_NUMBERS, TCP, UDP

Ordered = TypeVar("Ordered")

SCHEDULERS = ("round-robin", "weighted-round-robin", "least-connections", "source-hash", "maglev")
"""What chooses the server of a new connection: docs/schedulers.md."""
MAX_WEIGHT, MAX_CONNECTIONS = 65535, 1_000_000
"""What a server may have of each, at most."""
NAT_KINDS = ("destination", "full")
"""Seed figures 4 and 11."""
KINDS = ("service", "nat-gateway")
"""What an external IP is for: services that clients use; or inside hosts' connections to the outside."""
TRANSPORTS = ("ethernet", "vxlan", "geneve", "gre")
"""How an LB reaches a server: on the internal network, or through a tunnel (seed modification 5)."""
TUNNEL_OVERHEAD = {"vxlan": 50, "geneve": 50, "gre": 42}
"""Bytes that a tunnel over IPv4 adds to the packets inside: IP, UDP or GRE with a key, its own header, and the Ethernet header
inside (RFC 7348, RFC 8926 without options, RFC 2890)."""
COPIES = ("controller", "keeper", "sockets")
"""Where the entries of a dead LB can be had from (docs/failover.md)."""
FAILOVERS = ("when-remote", "copy-first", "transition")
"""When a failover goes through transition mode: if its entries must be fetched first; never (seed modification 2); always."""
KEEPER_PORT = 6654
REBALANCE_MODES = ("manual", "automatic")
CHECKS = ("tcp", "http", "udp")
"""What a health check of a server does (docs/health-checks.md)."""
CHECK_PORTS = (512, 1023)
"""The ports that health checks come from; an internal IP's port_range keeps out of them. They are one masked match in a flow."""
WHEN_DOWN = ("reset", "leave")
"""What becomes of the connections of a server that goes down."""
ALGORITHMS = ("auto", "exact", "heuristic")
"""Of the assignment."""
PACKETS_PER_CONNECTION = 50.0
"""What a new connection costs an LB, in packets (docs/performance.md: some 200 us against 4 us)."""
PORTS = (1024, 65535)
"""The ports of an internal IP (of a NAT gateway) that connections are translated to, unless the site file says otherwise."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel that a server is at the other end of. `key` is its VNI (vxlan, geneve) or key (gre); `mtu`: bytes that an IP
    packet inside may have."""

    transport: str
    remote: Address
    key: int = 0
    mtu: int = 1450


class Hop(NamedTuple):
    """Whose MAC a packet for a server gets: its own or a router's; and through which tunnel (None: the internal network)."""

    address: Address
    tunnel: Tunnel | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A real server of a service. `weight` counts with every scheduler but round-robin."""

    address: Address
    port: int
    weight: int = 1
    next_hop: Address | None = None
    """The router on the internal network that it is behind; None: it is on that network itself."""
    tunnel: Tunnel | None = None
    max_connections: int | None = None
    """It gets no new connection while it has so many of its external IP; None: no limit."""

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.port)

    @property
    def hop(self) -> Hop:
        return Hop(self.next_hop or self.address, self.tunnel)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How a service's servers are checked. Times in seconds; rise and fall: checks in a row that make a server up or down."""

    type: str
    interval: float = 2.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    port: int | None = None
    """None: the server's own."""
    path: str = "/"
    host: str | None = None
    """Of an HTTP request; None: the external IP."""
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    """First and last of the HTTP status codes that are right."""
    request: bytes = b""
    answer: bytes | None = None
    """What a datagram must begin with that answers `request`; None: any answer is right, and so is none."""
    when_down: str = WHEN_DOWN[0]

    @property
    def protocol_number(self) -> int:
        return UDP if self.type == "udp" else TCP


@dataclass(frozen=True, slots=True)
class Service:
    """Protocol and port on an external IP, with its servers, its scheduler, and how the servers are checked (None: not)."""

    protocol: str
    port: int
    scheduler: str = "round-robin"
    servers: tuple[Server, ...] = ()
    health_check: HealthCheck | None = None

    @property
    def protocol_number(self) -> int:
        return PROTOCOL_NUMBERS[self.protocol]


class ServiceName(NamedTuple):
    """Which service of a site."""

    external_ip: Address
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.external_ip} {self.protocol}/{self.port}"


class Instead(NamedTuple, Generic[Ordered]):
    """Something that is ordered at run time; it lasts until the site file says something else than `instead_of`."""

    wanted: Ordered
    instead_of: Ordered


@dataclass(frozen=True, slots=True)
class ServiceOrder:
    """What is ordered, at run time, for one service; None: it is as the site file says. drained: those of its servers that an
    operator wants to get no new connections."""

    scheduler: Instead[str] | None = None
    servers: Instead[tuple[Server, ...]] | None = None
    drained: frozenset[Endpoint] = frozenset()


@dataclass(frozen=True, slots=True)
class ExternalIp:
    """An address that clients use: the unit that moves. `load_balancer` is where it starts.

    gateway: the internal address that its servers (or inside hosts) route through; full NAT needs none. internal_ips and
    port_range (first and last): what full NAT translates clients to; port_range also for a NAT gateway, of its own address.
    inside, router: a NAT gateway's hosts, and its way to the outside.
    """

    address: Address
    load_balancer: str
    gateway: Address | None
    nat: str = "destination"
    services: tuple[Service, ...] = ()
    former_servers: tuple[tuple[Address, Hop], ...] = ()
    """Servers that a newer site file has dropped while they still have connections; never in a file itself."""
    kind: str = "service"
    internal_ips: tuple[Address, ...] = ()
    port_range: tuple[int, int] = PORTS
    inside: tuple[Network, ...] = ()
    router: Address | None = None
    former_internal_ips: tuple[Address, ...] = ()
    """The same as former_servers of internal IPs: they are still answered for, and given to no new connection."""
    copies: tuple[str, ...] = ("controller",)
    """Where its entries can be had from when its LB dies, the preferred place first."""
    only_on: frozenset[str] = frozenset()
    """The LBs that it may be assigned to; empty: all. (An assignment heeds this, a failover where it can, an order does not.)"""
    not_with: frozenset[Address] = frozenset()
    """External IPs that shall be on other LBs."""
    _hops: dict[Address, Hop] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = {**dict(self.former_servers), **{server.address: server.hop for service in self.services for server in service.servers}}
        object.__setattr__(self, "_hops", {address: found[address] for address in sorted(found, key=address_order)})

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
        """Whom the servers see health checks from: an address that they answer to the LB that serves this external IP."""
        return self.internal_ips[0] if self.nat == "full" else self.gateway

    def check_protocols(self) -> list[int]:
        """The protocols (IANA numbers) of its services' health checks, ascending."""
        return sorted({service.health_check.protocol_number for service in self.services if service.health_check})


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """One OVS bridge with an external and an internal port, known by its datapath id."""

    name: str
    dpid: int
    external_port: str
    internal_port: str
    tunnel_ports: tuple[tuple[str, str], ...] = ()
    """(transport, name of the port) of each kind of tunnel that it has, in the order of TRANSPORTS."""
    capacity: float = 1.0
    """How much it can carry, beside the others: a weight."""
    standby: bool = False
    """It gets external IPs by failover or by hand only (seed figure 2)."""

    def ports(self) -> dict[str, str]:
        """What for (external, internal, or a transport) -> name of the port."""
        return {"external": self.external_port, "internal": self.internal_port, **dict(self.tunnel_ports)}


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, rates in packets/s for each LB, bounds for each external IP."""

    idle_timeout: float = 3600.0
    """A TCP entry without a packet for this long is removed."""
    udp_idle_timeout: float = 60.0
    """The same for UDP, whose connections have no other end, and for ICMP echo."""
    time_wait: float = 60.0
    """A translated port rests this long before it is given again (to the same server): as long as Linux keeps TIME_WAIT."""
    linger: int = 2
    """An entry stays this long after FIN both ways, or after a RST. Short, because Open vSwitch visits each flow that waits
    for its end after each round of its revalidators (docs/performance.md)."""
    settle: float = 1.0
    """The target of a move is in transition mode this long before the route changes: what its datapath had cached while the
    external IP was not its own must have gone ("usually within one second": OVS documentation, topics/design)."""
    grace: float = 3.0
    """The old LB keeps a moved external IP's entries this long, for packets still on their way to it."""
    barrier_timeout: float = 5.0
    """A switch that has not confirmed by then fails the step that waits for it."""
    held_packets: int = 10_000
    held_bytes: int = 16 * 1024 * 1024
    new_rate: int = 20_000
    """Connection requests that may reach the controller."""
    error_rate: int = 1_000
    """Packets without a connection that are answered with an error: after a failover without copies each connection needs one."""
    hold_rate: int = 50_000
    """Packets that may be held in transition mode."""
    arp_rate: int = 1_000
    arp_interval: float = 10.0
    """The servers' MAC addresses are asked for again this often."""
    icmp_rate: int = 1_000
    """ICMP errors (of an inside host: echoes) that may reach the controller to be translated."""
    internal_mtu: int = 1500
    """Bytes of an IP packet that what carries the tunnels to servers takes; a tunnel's own MTU is smaller."""
    automatic_failover: bool = True
    """Do the LBs probe each other, and does a failed one lose its external IPs? Else by order only."""
    failover: str = FAILOVERS[0]
    load_period: float = 2.0
    """What external IPs carry is read from the switches this often."""
    probe_interval: float = 0.05
    probe_misses: int = 3
    """An LB's data path is silent when so many probes in a row were not answered."""
    relieve_after: float = 3.0
    """An LB that forwards, but has no connection to the controller, keeps its external IPs this long."""
    hold_down: float = 10.0
    """An LB that has failed takes nothing over this long after its return; twice as long after each further failure."""
    copy_interval: float = 1.0
    """Keepers are told of changed entries this often."""
    copy_delay: float = 5.0
    """A keeper that has not taken a change for this long is behind."""
    copy_timeout: float = 0.5
    """A keeper that has not answered by then at a failover is passed over."""

    def idle_timeout_of(self, protocol: int) -> float:
        """Seconds that an entry of that protocol (IANA number) may be idle."""
        return self.idle_timeout if protocol == TCP else self.udp_idle_timeout


@dataclass(frozen=True, slots=True)
class Keeper:
    """The process that keeps the copy of a server's entries: on that server, or elsewhere (seed modification 8)."""

    server: Address
    url: str


@dataclass(frozen=True, slots=True)
class Keepers:
    """All keepers of a site; the files (relative to the site file) hold the token that they ask for, and the certificates of
    who may sign theirs."""

    each: tuple[Keeper, ...] = ()
    token_file: str | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Rebalance:
    """When and how external IPs are assigned anew; see docs/assignment.md."""

    mode: str = REBALANCE_MODES[0]
    algorithm: str = ALGORITHMS[0]
    threshold: float = 0.2
    """The highest load may exceed the fair one by this share before anything is moved by itself."""
    cooldown: float = 60.0
    """Seconds between two rebalancings by itself."""
    at_once: int = 2
    """Moves that run at the same time."""
    headroom: float = 0.0
    """The load for each unit of capacity that no LB may exceed after the loss of any one; 0: none is asked for."""


@dataclass(frozen=True, slots=True)
class Site:
    """A validated site file."""

    load_balancers: tuple[LoadBalancer, ...]
    external_networks: tuple[Network, ...]
    internal_networks: tuple[Network, ...]
    """At most one of each IP version, IPv4 first."""
    external_ips: tuple[ExternalIp, ...]
    settings: Settings = field(default_factory=Settings)
    keepers: Keepers = field(default_factory=Keepers)
    rebalance: Rebalance = field(default_factory=Rebalance)

    def load_balancer(self, name: str) -> LoadBalancer | None:
        return next((lb for lb in self.load_balancers if lb.name == name), None)

    def external_ip(self, address: Address) -> ExternalIp | None:
        return next((ip for ip in self.external_ips if ip.address == address), None)
