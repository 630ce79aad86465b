"""Services and servers, as the REST API takes and shows them. What a server has in the site file is not repeated here:
the fields follow from the keys that lbctl.site.model declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field, model_validator

from lbctl.api.fields import Closed, description_of, request_model, shown_keys, view_model
from lbctl.site.documents import server_of
from lbctl.site.keys import keys_of
from lbctl.site.model import TUNNEL_OVERHEAD, Affinity, EntryKind, SchedulerName, Server, Service, Tunnel

ServerStateName = Literal["up", "down", "drained", "full"]

_SERVER_KEYS = keys_of(Server)
_OWN_KEYS = [each for each in _SERVER_KEYS if len(each.path) == 1]
"""Those that are not a tunnel's."""
_CHANGEABLE = [each for each in _SERVER_KEYS if each.key.changeable]
_TUNNEL_KEYS = keys_of(Tunnel)
_ONLY_TUNNELS = [each.name for each in _TUNNEL_KEYS if each.key.variants]

if TYPE_CHECKING:  # the fields are known at run time only
    _ServerRequest = Closed
    _ServerChange = Closed
    _ServerView = BaseModel
    _TunnelView = BaseModel
else:
    _ServerRequest = request_model("ServerKeys", _SERVER_KEYS)
    _ServerChange = request_model("ChangeableKeys", _CHANGEABLE)
    _ServerView = view_model("ShownKeys", _OWN_KEYS)
    _TunnelView = view_model("TunnelKeys", _TUNNEL_KEYS)


class ServiceChange(Closed):
    """What of a service may be changed at run time; what is left out stays."""

    scheduler: SchedulerName | None = Field(default=None, description=description_of(Service, "scheduler"))
    entries: EntryKind | None = Field(default=None, description=description_of(Service, "entries"))

    @model_validator(mode="after")
    def _changes_something(self) -> ServiceChange:
        if self.scheduler is None and self.entries is None:
            raise ValueError("give scheduler, or entries, or both")
        return self


class ServerRequest(_ServerRequest):
    """A server as the site file has it."""

    @model_validator(mode="after")
    def _has_what_a_tunnel_has(self) -> ServerRequest:
        given = self.model_dump(exclude_unset=True)
        transport = given.get("transport")
        if transport in TUNNEL_OVERHEAD and given.get("remote") is None:
            raise ValueError(f"transport {transport} needs remote, the tunnel's other end")
        if transport not in TUNNEL_OVERHEAD and not given.keys().isdisjoint(_ONLY_TUNNELS):
            *others, last = _ONLY_TUNNELS
            raise ValueError(
                f"{', '.join(others)} and {last} are a tunnel's: add transport, {' or '.join(TUNNEL_OVERHEAD)}"
            )
        return self

    def server(self, internal_mtu: int) -> Server:
        """internal_mtu: the site's, which says what a tunnel leaves if nothing else does."""
        document = self.model_dump(mode="json", exclude_none=True)
        overhead = TUNNEL_OVERHEAD.get(document["transport"])
        if overhead is not None:
            document.setdefault("mtu", internal_mtu - overhead)
        return server_of(document)


class ServerChange(_ServerChange):
    """What of a server may be changed; what is left out stays."""

    drained: bool = Field(
        default=False, description="it gets no new connections; those that it has go on until they end"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> ServerChange:
        if not self.model_fields_set:
            raise ValueError(f"give at least one of drained, {', '.join(each.name for each in _CHANGEABLE)}")
        return self


class TunnelView(_TunnelView):
    @classmethod
    def of(cls, tunnel: Tunnel) -> TunnelView:
        return cls(**shown_keys(tunnel, _TUNNEL_KEYS))


class ServerView(_ServerView):
    """What it has in the site file (or was ordered instead), and what it does."""

    state: ServerStateName = Field(
        description="up: it takes new connections; full: it has max_connections; see docs/servers.md"
    )
    drained: bool = Field(description="an operator wants it to get no new connections")
    reason: str | None = Field(description="why it is down, which a drained one may be as well")
    since: str | None = Field(description="when it went down")
    connections: int | None = Field(
        description="entries of this external IP that go to its address and port; where it has slices, what "
        "its sockets told its keeper in the last seconds; null: nobody tells"
    )
    slices: int | None = Field(default=None, description="sliced service: how many slices of its clients it has")
    share: float | None = Field(
        default=None, description="sliced service: the part of all slices that these are, 0 to 1"
    )
    ideal_share: float | None = Field(
        default=None, description="sliced service: the part that it would have exactly, by weight, of the servers that "
        "take connections"
    )
    mac: str | None = Field(description="its own or its next hop's; null while that does not answer the load balancer")
    tunnel: TunnelView | None = Field(default=None, description="the tunnel that it is at the other end of")


class SliceChangeView(BaseModel):
    """Slices of a sliced service that change hands together, see docs/slices.md."""

    slices: int
    step: Literal["narrowed", "switched", "flipped", "settling"]
    since: str | None = Field(description="when that began; null: before the controller started")
    why: str = Field(description="in words")
    old_servers: list[str] = Field(description="whose they have been, as ADDRESS:PORT")


class ServiceView(BaseModel):
    protocol: str
    port: int
    scheduler: str = Field(description="the one in force")
    site_file_scheduler: str = Field(description="the same, unless another was ordered at run time")
    entries: EntryKind = Field(description=description_of(Service, "entries"))
    site_file_entries: EntryKind = Field(description="the same, unless others were ordered at run time")
    affinity: Affinity = Field(description=description_of(Service, "affinity"))
    servers_ordered: bool = Field(
        description="the servers, their weights or limits are not the site file's: they were changed at run time"
    )
    fails_open: str | None = Field(
        description="why it takes new connections though its health checks say no, see docs/health-checks.md; null: it "
        "doesn't"
    )
    slice_changes: list[SliceChangeView] = Field(default=[], description="sliced: what changes hands now")
    servers: list[ServerView]


class ServerList(BaseModel):
    servers: list[ServerView]


class FormerServerView(BaseModel):
    """A server that no service of the external IP has any more."""

    address: str
    connections: int = Field(description="that go there until they end")
    mac: str | None = Field(description="its own or its next hop's; null while that does not answer the load balancer")
    next_hop: str | None
    tunnel: TunnelView | None


def declared_of(server: Server) -> dict[str, object]:
    """What a ServerView shows of the keys that a server has in the site file."""
    tunnel = TunnelView.of(server.tunnel) if server.tunnel else None
    return {**shown_keys(server, _OWN_KEYS), "tunnel": tunnel}
