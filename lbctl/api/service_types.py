"""Services and servers, as the REST API takes and shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from lbctl.api.fields import AddressText, Closed
from lbctl.site.model import MAX_CONNECTIONS, MAX_WEIGHT, SCHEDULERS, TRANSPORTS

Scheduler = Literal[SCHEDULERS]
ServerState = Literal["up", "down", "drained", "full"]


class ServiceChange(Closed):
    """What of a service may be changed at run time."""

    scheduler: Scheduler = Field(description="how its new connections choose servers, see docs/schedulers.md; connections that "
                                             "are open stay where they are")


class ServerRequest(Closed):
    """A server as the site file has it."""

    address: AddressText
    port: int = Field(ge=1, le=65535)
    weight: int = Field(default=1, ge=1, le=MAX_WEIGHT)
    max_connections: int | None = Field(default=None, ge=1, le=MAX_CONNECTIONS, description="null: no limit")
    next_hop: AddressText | None = Field(default=None, description="the router on the internal network that it is behind")
    transport: Literal[TRANSPORTS] = Field(default=TRANSPORTS[0], description="how it is reached; all but ethernet are tunnels")
    remote: AddressText | None = Field(default=None, description="of a tunnel: its other end")
    key: int = Field(default=0, ge=0, description="of a tunnel: its VNI or key")
    mtu: int | None = Field(default=None, ge=1, le=0xFFFF, description="of a tunnel: bytes that an IP packet inside may have; null: all "
                                                                      "that internal_mtu leaves")

    @model_validator(mode="after")
    def _has_what_a_tunnel_has(self) -> ServerRequest:
        if self.transport != TRANSPORTS[0] and self.remote is None:
            raise ValueError(f"transport {self.transport} needs remote, the tunnel's other end")
        if self.transport == TRANSPORTS[0] and self.model_fields_set & {"remote", "key", "mtu"}:
            raise ValueError(f"remote, key and mtu are a tunnel's: add transport, {' or '.join(TRANSPORTS[1:])}")
        return self


class ServerChange(Closed):
    """What of a server may be changed; what is left out stays."""

    drained: bool = Field(default=False, description="it gets no new connections; those that it has go on until they end")
    weight: int = Field(default=1, ge=1, le=MAX_WEIGHT)
    max_connections: int | None = Field(default=None, ge=1, le=MAX_CONNECTIONS, description="null: no limit")

    @model_validator(mode="after")
    def _changes_something(self) -> ServerChange:
        if not self.model_fields_set:
            raise ValueError("give at least one of drained, weight, max_connections")
        return self


class TunnelView(BaseModel):
    transport: str = Field(description="vxlan, geneve or gre")
    remote: str
    key: int
    mtu: int = Field(description="bytes that an IP packet inside may have")


class ServerView(BaseModel):
    address: str
    port: int
    weight: int
    max_connections: int | None = Field(description="null: no limit")
    state: ServerState = Field(description="up: it takes new connections; full: it has max_connections; see docs/servers.md")
    drained: bool = Field(description="an operator wants it to get no new connections")
    reason: str | None = Field(description="why it is down, which a drained one may be as well")
    since: str | None = Field(description="when it went down")
    connections: int = Field(description="entries of this external IP that go to its address and port")
    mac: str | None = Field(description="its own or its next hop's; null while the load balancer has not found it")
    next_hop: str | None = Field(default=None, description="the router on the internal network that it is behind")
    tunnel: TunnelView | None = Field(default=None, description="the tunnel that it is at the other end of")


class ServiceView(BaseModel):
    protocol: str
    port: int
    scheduler: str = Field(description="the one in force")
    site_file_scheduler: str = Field(description="the same, unless another was ordered at run time")
    servers_ordered: bool = Field(description="the servers, their weights or limits are not the site file's: they were changed at run time")
    servers: list[ServerView]


class ServerList(BaseModel):
    servers: list[ServerView]


class FormerServerView(BaseModel):
    """A server that no service of the external IP has any more."""

    address: str
    connections: int = Field(description="that go there until they end")
    mac: str | None = Field(description="its own or its next hop's; null while the load balancer has not found it")
    next_hop: str | None
    tunnel: TunnelView | None
