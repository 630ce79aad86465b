"""Services, how their servers are checked, and what operators order for them beside the site file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar, get_args

from lbctl.site.forms import (
    HOST_NAME,
    PATH,
    PORT,
    Choice,
    Part,
    Parts,
    Payload,
    Positive,
    Seconds,
    Statuses,
    Whole,
)
from lbctl.site.keys import Key
from lbctl.site.model.servers import Server
from lbctl.values.addresses import Address, Endpoint
from lbctl.values.protocols import PROTOCOL_NUMBERS, TCP, UDP

Ordered = TypeVar("Ordered")

Protocol = Literal["tcp", "udp"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SchedulerName = Literal["round-robin", "weighted-round-robin", "least-connections", "source-hash", "maglev"]
SCHEDULERS: tuple[SchedulerName, ...] = get_args(SchedulerName)
"""What chooses the server of a new connection: docs/schedulers.md."""
Affinity = Literal["connection", "client"]
AFFINITIES: tuple[Affinity, ...] = get_args(Affinity)
"""What meets one server: docs/slices.md."""
EntryKind = Literal["connections", "slices"]
ENTRY_KINDS: tuple[EntryKind, ...] = get_args(EntryKind)
"""What an entry of the access table stands for: docs/slices.md."""
CheckType = Literal["tcp", "http", "udp"]
CHECKS: tuple[CheckType, ...] = get_args(CheckType)
"""What a health check of a server does (docs/health-checks.md)."""
CHECK_PORTS = (512, 1023)
"""The ports that health checks come from; an internal IP's port_range keeps out of them. They are one masked match in a
flow."""
WhenDown = Literal["reset", "leave"]
WHEN_DOWN: tuple[WhenDown, ...] = get_args(WhenDown)
"""What becomes of the connections of a server that goes down."""
WhenAllDown = Literal["serve", "refuse"]
WHEN_ALL_DOWN: tuple[WhenAllDown, ...] = get_args(WhenAllDown)
"""What becomes of new connections when all servers are down."""
_TIME = Seconds(0.1, 3600.0)
"""Time is looked at some ten times a second."""
_IN_A_ROW = Whole(1, 1000)
_BYTES = Payload(512)
"""It must fit into one packet on every way to a server (RFC 791, RFC 9293 3.7.1)."""
_HTTP, _UDP = ("type: http",), ("type: udp",)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How a service's servers are checked."""

    type: Annotated[CheckType, Key(
        Choice(CHECKS), "what a check does: open a connection, ask by HTTP, or send a datagram",
        derived="the service's protocol")]
    interval: Annotated[float, Key(_TIME, "how often each server is checked")] = 2.0
    timeout: Annotated[float, Key(
        _TIME, "a check has failed when so much time is over; at most interval",
        derived="1, or interval if that is less")] = 1.0
    rise: Annotated[int, Key(_IN_A_ROW, "checks in a row that must succeed to make a server up")] = 2
    fall: Annotated[int, Key(_IN_A_ROW, "checks in a row that must fail to make a server down")] = 3
    port: Annotated[int | None, Key(PORT, "the port that is asked", absent="the server's")] = None
    path: Annotated[str, Key(PATH, "what is asked for", only_for=_HTTP)] = "/"
    host: Annotated[str | None, Key(
        HOST_NAME, "the Host of the request", absent="the external IP", only_for=_HTTP)] = None
    status: Annotated[tuple[tuple[int, int], ...], Key(
        Statuses(), "the codes that are right", only_for=_HTTP)] = ((200, 399),)
    request: Annotated[bytes, Key(_BYTES, "what is sent", only_for=_UDP)] = b""
    answer: Annotated[bytes | None, Key(
        _BYTES, "what a right answer begins with", absent="any answer is right, and so is none", only_for=_UDP)] = None
    when_down: Annotated[WhenDown, Key(
        Choice(WHEN_DOWN),
        "what becomes of the connections of a server that goes down while others pass their checks")] = "reset"
    when_all_down: Annotated[WhenAllDown, Key(
        Choice(WHEN_ALL_DOWN),
        "what becomes of new connections when all servers are down: they are served as if there were no check, or "
        "refused")] = "serve"

    @property
    def protocol_number(self) -> int:
        return UDP if self.type == "udp" else TCP


@dataclass(frozen=True, slots=True)
class Service:
    """Protocol and port on an external IP, with its servers."""

    protocol: Annotated[Protocol, Key(Choice(PROTOCOLS), "what clients speak")]
    port: Annotated[int, Key(PORT, "where clients find it on the external IP")]
    scheduler: Annotated[SchedulerName, Key(
        Choice(SCHEDULERS),
        "how new connections choose servers, see schedulers.md; connections that are open stay where they are",
        changeable=True)] = "round-robin"
    servers: Annotated[tuple[Server, ...], Key(
        Parts(Part(Server, "server")), "where connections go", required=True)] = ()
    entries: Annotated[EntryKind, Key(
        Choice(ENTRY_KINDS),
        "what an entry of the access table stands for: one connection; or a slice of the clients, which needs no "
        "controller for a new connection, see slices.md")] = field(default=ENTRY_KINDS[0], kw_only=True)
    affinity: Annotated[Affinity, Key(
        Choice(AFFINITIES),
        "with `entries: slices`: whether slices are by the clients' ports, or by their addresses, so that all "
        "connections of a client meet one server")] = field(default=AFFINITIES[0], kw_only=True)
    slow_start: Annotated[float, Key(
        Seconds(0.0, 3600.0),
        "a server that comes, or takes connections again, gets its full share of new ones only after so many seconds, "
        "see schedulers.md")] = field(default=0.0, kw_only=True)
    idle_timeout: Annotated[float | None, Key(
        Positive(), "an entry of this service without a packet for so many seconds is removed",
        absent="the site's `idle_timeout`, or `udp_idle_timeout`")] = field(default=None, kw_only=True)
    health_check: Annotated[HealthCheck | None, Key(
        Part(HealthCheck, "health_check", inherits=(("type", "protocol"),)),
        "how its servers are checked, see health-checks.md", absent="no check")] = None
    leaving: bool = field(default=False, kw_only=True)
    """It has slices still, and a newer site file wants it to have none, or others; never in a file itself."""
    gone: bool = field(default=False, kw_only=True)
    """The same where a newer site file has not got it: nobody takes new connections."""

    @property
    def protocol_number(self) -> int:
        return PROTOCOL_NUMBERS[self.protocol]

    @property
    def sliced(self) -> bool:
        """Do its entries stand for slices of its clients?"""
        return self.entries == "slices"

    @property
    def by_client(self) -> bool:
        """Do all connections of a client's address belong to one slice?"""
        return self.affinity == "client"


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
    """What is ordered, at run time, for one service; None: it is as the site file says. drained: those of its servers
    that an operator wants to get no new connections."""

    scheduler: Instead[SchedulerName] | None = None
    servers: Instead[tuple[Server, ...]] | None = None
    drained: frozenset[Endpoint] = frozenset()
    entries: Instead[EntryKind] | None = None
