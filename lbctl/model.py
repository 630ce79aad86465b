"""Value types of a site and of its connections; the words are those of docs/architecture.md.

Everything here is immutable and comparable, knows nothing of OpenFlow, and does no I/O.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

PROTOCOL_NUMBERS = {"tcp": 6}
"""IANA protocol numbers of the protocols that a service may name."""

PROTOCOL_NAMES = {number: name for name, number in PROTOCOL_NUMBERS.items()}

SCHEDULERS = ("round-robin", "weighted-round-robin")
NAT_KINDS = ("destination",)


class TransferMode(enum.Enum):
    """How an LB treats packets of an external IP (seed figure 7, column 71). No mode at all: not ours."""

    NORMAL = "normal"
    TRANSITION = "transition"


class Strategy(enum.Enum):
    """The order of a move's steps; see docs/move.md."""

    BUFFERED = "buffered"
    PRECOPY = "precopy"


class Endpoint(NamedTuple):
    """An address and a transport port."""

    address: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Server:
    """A real server of a service. `weight` counts with the weighted schedulers only."""

    address: IPv4Address
    port: int
    weight: int = 1

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.port)


@dataclass(frozen=True, slots=True)
class Service:
    """Protocol and port on an external IP, with its servers and its scheduler."""

    protocol: str
    port: int
    scheduler: str = "round-robin"
    servers: tuple[Server, ...] = ()

    @property
    def protocol_number(self) -> int:
        return PROTOCOL_NUMBERS[self.protocol]


@dataclass(frozen=True, slots=True)
class ExternalIp:
    """An address that clients use: the unit that moves. `load_balancer` is where it starts."""

    address: IPv4Address
    load_balancer: str
    gateway: IPv4Address
    nat: str = "destination"
    services: tuple[Service, ...] = ()
    former_servers: tuple[IPv4Address, ...] = ()
    """Servers that a newer site file has dropped while they still have connections; never in a file itself."""

    def server_addresses(self) -> tuple[IPv4Address, ...]:
        """The distinct addresses of all its services' servers, and of the former ones, in ascending order."""
        configured = {server.address for service in self.services for server in service.servers}
        return tuple(sorted(configured.union(self.former_servers)))


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """One OVS bridge with an external and an internal port, known by its datapath id."""

    name: str
    dpid: int
    external_port: str
    internal_port: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, rates in packets/s for each LB, bounds for each external IP."""

    idle_timeout: float = 3600.0
    """An entry without a packet for this long is removed."""
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
    error_rate: int = 100
    """Packets without a connection that are answered with an error."""
    hold_rate: int = 50_000
    """Packets that may be held in transition mode."""
    arp_rate: int = 1_000
    arp_interval: float = 10.0
    """The servers' MAC addresses are asked for again this often."""


@dataclass(frozen=True, slots=True)
class Site:
    """A validated site file."""

    load_balancers: tuple[LoadBalancer, ...]
    external_network: IPv4Network
    internal_network: IPv4Network
    external_ips: tuple[ExternalIp, ...]
    settings: Settings = field(default_factory=Settings)

    def load_balancer(self, name: str) -> LoadBalancer | None:
        return next((lb for lb in self.load_balancers if lb.name == name), None)

    def external_ip(self, address: IPv4Address) -> ExternalIp | None:
        return next((ip for ip in self.external_ips if ip.address == address), None)


class Connection(NamedTuple):
    """The addresses of one access-table entry (seed figure 5, columns 901-905)."""

    protocol: int
    client: Endpoint
    external: Endpoint
    server: Endpoint
    next_hop: str
    """The MAC that the client's packets came from; answers go back to it."""
