"""What the REST API takes and gives, as pydantic models: they check requests, and OpenAPI is made from them.

Times are text by ISO 8601 in UTC, durations are in seconds, addresses are dotted text, MACs are lower-case with colons.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from lbctl.api.fields import AddressText, Closed
from lbctl.api.service_types import FormerServerView, ServiceView
from lbctl.site.model import Algorithm, Protocol
from lbctl.values.entry_states import EntriesFrom, EntryState, SliceStateName
from lbctl.values.transfer import Strategy

PAGE_LIMIT = 1000
"""The most entries that one page may hold: a page is made in one go, while packets wait."""

LoadBalancerHealth = Literal["well", "silent", "unmanaged", "failed", "unwatched"]
LoadBalancerState = Literal["disconnected", "reading", "unfit", "ready"]
MoveState = Literal["running", "done", "rolled-back", "aborted"]
Mode = Literal["normal", "transition"]


# Requests


class MoveRequest(Closed):
    """Order to move an external IP."""

    to: str = Field(min_length=1, description="name of the load balancer that is to serve the external IP")
    strategy: Strategy = Field(default=Strategy.PRECOPY, description="order of the steps, see docs/move.md")
    entries: EntriesFrom = Field(
        default="table", description="from the controller's access table, or from the copies")


class RebalanceRequest(Closed):
    """Order to assign the external IPs anew."""

    dry_run: bool = Field(default=False, description="only show the plan")
    algorithm: Algorithm | None = Field(default=None, description="another one than the site file says")


class DrainRequest(Closed):
    """Order to empty a load balancer."""

    undo: bool = Field(default=False, description="it may be used again; nothing moves back by itself")


class NoQuery(Closed):
    """No query parameters."""


class MoveQuery(Closed):
    wait: bool = Field(default=False, description="answer only when the move has ended")


class AccessTableQuery(Closed):
    external_ip: AddressText | None = Field(default=None, description="only entries of this external IP")
    client: AddressText | None = Field(default=None, description="only entries of this client address, and of slices")
    client_port: int | None = Field(
        default=None, ge=0, le=65535, description="only entries of this client port, and of slices that it is in")
    server: AddressText | None = Field(default=None, description="only entries of this server (inside host) address")
    state: EntryState | None = Field(default=None, description="only entries in this state")
    protocol: Protocol | None = Field(default=None, description="only entries of this protocol")
    limit: int = Field(default=100, ge=1, le=PAGE_LIMIT, description="most entries of a page")
    after: str | None = Field(default=None, description="`next` of the page before")


ENTRY_FILTERS = {"client", "client_port", "server", "state", "protocol"}
"""The parameters of AccessTableQuery that look at one entry."""


# Load balancers


class PortView(BaseModel):
    name: str
    number: int | None = Field(description="OpenFlow port number; null while the switch has no such port")
    mac: str | None
    up: bool
    mtu: int | None = Field(default=None, description="bytes of an IP packet that its network takes, by the site file")


class PortsView(BaseModel):
    external: PortView
    internal: PortView
    tunnels: dict[str, PortView] = Field(default={}, description="by transport: vxlan, geneve, gre")


class Counters(BaseModel):
    """Since the controller started."""

    packet_ins: int = Field(default=0, description="packets that the switch sent to the controller")
    dropped: dict[str, int] = Field(default={}, description="packets that the controller dropped, by reason")
    other: dict[str, int] = Field(default={}, description="whatever else is counted, by name")


class LoadView(BaseModel):
    """What is carried, smoothed, both directions together."""

    packets_per_second: float
    bytes_per_second: float
    new_connections_per_second: float


class LoadBalancerView(BaseModel):
    name: str
    dpid: str = Field(description="datapath id, 16 hexadecimal digits")
    state: LoadBalancerState
    reason: str | None = Field(description="why it is not ready")
    health: LoadBalancerHealth = Field(description="of its data path, as other load balancers' probes find it, see "
                                                   "docs/failover.md")
    health_reason: str | None
    standby: bool
    ports: PortsView
    internal_networks: list[str] = Field(description="what its internal port is on")
    external_ips: list[str] = Field(description="the external IPs that are assigned to it")
    connections: int | None = Field(description="of its external IPs; null: one of them has a sliced service whose "
                                                "connections no keeper counts")
    drained: bool = Field(description="an operator wants it empty")
    capacity: float = Field(description="a weight, beside other load balancers'")
    load: LoadView = Field(description="of its external IPs")
    foreign_flows: int = Field(default=0, description="flows in its tables that are none of lbctl's; looked at every "
                                                       "30 s")
    counters: Counters


class LoadBalancerList(BaseModel):
    load_balancers: list[LoadBalancerView]


class EntryView(BaseModel):
    """A row of the access table (seed figures 5 and 12)."""

    protocol: Protocol
    client: str = Field(description="in an entry of a slice of a sliced service's clients: `any`, or ADDRESS/MASK")
    client_port: int | None = Field(description="null: the entry of a slice, see `client_ports`")
    client_ports: str | None = Field(
        default=None, description="of a slice: the client's port under a mask, as BITS/MASK, both hexadecimal; or "
                                  "`any`")
    slice: int | None = Field(default=None, description="its number; null: the entry of one connection")
    external_ip: str
    external_port: int
    server: str
    server_port: int
    next_hop: str | None = Field(description="MAC that the client's packets came from; answers go back to it; "
                                             "null: the entry of a slice, whose clients have several")
    inner_hop: str | None = Field(default=None, description="NAT gateway: MAC of the inside host's side, that "
                                                            "answers go to")
    state: EntryState | SliceStateName = Field(
        description="of a slice: plain; how far it has changed hands (narrowed, switched, flipped, settling); or "
                    "mixed: some of its connections have entries of their own")
    old_server: str | None = Field(
        default=None, description="of a slice that changes hands: where its connections go that have no entry, as "
                                  "ADDRESS:PORT")
    internal_ip: str | None = Field(default=None, description="what the server sees in the client's place, with full "
                                                              "NAT (seed figure 12, column 913)")
    internal_port: int | None = Field(default=None, description="its port (column 914)")
    packets: int = Field(default=0, description="both ways, at the last sweep, since the load balancer has the entry; "
                                                "of a slice: what its clients have sent since the controller started, "
                                                "as of the last 10 s")
    bytes: int = Field(default=0, description="the same in bytes, with Ethernet headers")
    delta: int = Field(default=0, description="always 0: the lengths of payloads never change")
    created: str | None = Field(description="null: the entry of a slice")
    last_seen: str | None = Field(description="null: the entry of a slice of whose clients nothing has come yet")


class AccessTablePage(BaseModel):
    entries: list[EntryView]
    next: str | None = Field(description="`after` of the next page; null if this was the last")
    total: int = Field(description="entries of the load balancer, or of the external IP asked for; other filters "
                                   "do not change it")


class TransferModes(BaseModel):
    transfer_modes: dict[str, Mode]


# External IPs


class RouterView(BaseModel):
    address: str
    mac: str | None = Field(description="null while the load balancer has not found it")


class ExternalIpView(BaseModel):
    address: str
    load_balancer: str
    kind: str = Field(default="service", description="service or nat-gateway")
    nat: str
    gateway: str | None
    internal_ips: list[str] = Field(default=[], description="full NAT: what clients are translated to")
    port_range: list[int] = Field(default=[], description="full NAT, NAT gateway: first and last port that is "
                                                          "translated to")
    inside: list[str] = Field(default=[], description="NAT gateway: whose connections are translated")
    router: RouterView | None = Field(default=None, description="NAT gateway, sliced services: the way to the outside")
    mapping: str | None = Field(default=None, description="NAT gateway: see docs/nat.md")
    filtering: str | None = Field(default=None, description="NAT gateway: who may send to a mapped UDP port first")
    services: list[ServiceView]
    former_servers: list[FormerServerView] = Field(
        default=[], description="servers without a service that still have connections, as of the last change of "
                                "servers")
    connections: int | None = Field(description="null: it has a sliced service whose connections no keeper counts")
    half_open: int = Field(description="entries by connection of which nothing but the SYN has been seen of their "
                                       "clients, as far as known")
    new_rate_limit: float | None = Field(
        description="connection requests a second that its load balancer passes on now, if more come than can be "
                    "served; null: as many as the setting new_rate says")
    load: LoadView
    move: str | None = Field(description="id of the move that is running")


class ExternalIpList(BaseModel):
    external_ips: list[ExternalIpView]


# Moves


class StepView(BaseModel):
    name: str
    started: str
    seconds: float | None = Field(description="null while the step is running")


class MoveView(BaseModel):
    """The record of a move."""

    id: str
    external_ip: str
    source: str = Field(serialization_alias="from")
    target: str = Field(serialization_alias="to")
    kind: str = Field(description="move; failover: taken from a load balancer as if it had failed; restoration: "
                                  "entries come back to a load balancer that was restarted together with the "
                                  "controller")
    strategy: str
    state: MoveState
    step: str | None
    reason: str | None = Field(description="why it was rolled back or aborted")
    cause: str | None = Field(description="of a failover: how the load balancer has failed")
    started: str
    ended: str | None
    steps: list[StepView]
    entries_from: dict[str, int] = Field(description="of a failover: how many entries came from which copy")
    entries_copied: int
    entries_total: int
    packets_held: int
    packets_released: int
    packets_lost: int


class MoveList(BaseModel):
    moves: list[MoveView] = Field(description="newest first")


class PlannedMoveView(BaseModel):
    external_ip: str
    source: str = Field(serialization_alias="from")
    target: str = Field(serialization_alias="to")
    entries: int


class PlanView(BaseModel):
    """An assignment: relative loads (load for each unit of capacity) and the moves that lead there."""

    id: str | None = Field(description="of the rebalancing; null for a dry run")
    state: Literal["dry-run", "running", "done", "stopped"]
    reason: str | None = Field(description="why it was stopped")
    algorithm: str
    optimal: bool = Field(description="proved to be the best there is")
    before: dict[str, float]
    after: dict[str, float]
    moves: list[PlannedMoveView]
    started_moves: list[str] = Field(description="ids of those that have begun")


class KeeperView(BaseModel):
    """A keeper that is told of entries."""

    server: str
    url: str
    synced: bool = Field(description="it has a full copy of this controller's")
    lag: float = Field(description="seconds that its copy is behind")
    behind: bool = Field(description="for longer than the setting copy_delay")
    last_failure: str | None
    counters: dict[str, int]


class KeeperList(BaseModel):
    keepers: list[KeeperView]


# The rest


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    version: str
    load_balancers_ready: int
    load_balancers: int
    cut_off_since: str | None = Field(default=None, description="since when the controller has been cut off from most "
                                                                "load balancers at once, which forward on")
    dropped: dict[str, int] = Field(default={}, description="by reason, what was dropped that is no load balancer's")
    internal_errors: int = Field(default=0, description="faults of the controller itself, whose causes were dropped; "
                                                        "its log has them")
    crashes_in_a_row: int = Field(default=0, description="controllers that had ended soon after their starts, without "
                                                         "being told to, before this one")


class FieldError(BaseModel):
    field: str
    message: str


class ProblemDetails(BaseModel):
    """Problem details by RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = Field(default=None, description="each field that is wrong")
