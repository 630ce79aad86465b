"""One connection, and what the API says that matters for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lbctl.frames import packets
from lbctl.openflow.ports import Port, Ports
from lbctl.site.model import Settings
from lbctl.values.addresses import Endpoint
from lbctl.values.side import EXTERNAL, INTERNAL

SYN, SEGMENT, DATAGRAM = "syn", "segment", "datagram"
"""A TCP connection request; any other TCP packet without RST; a UDP packet."""
UNKNOWN_MAC = "02:00:00:00:00:fe"
"""Sender of the packet where no entry names the real next hop."""
FLAGS = {SYN: packets.SYN, SEGMENT: packets.ACK}


@dataclass(frozen=True, slots=True)
class Situation:
    """What the API says that matters for one connection. `entry` is None if there is none, `move` if none is running.
    slice: the entry of the slice of a sliced service that it is in.

    source, destination: of the packet as its sender makes it. outward: from an inside host of a NAT gateway; else from
    a client. gateway_lb: of a client inside: the load balancer that its gateway is at, as far as is known.
    """

    protocol: str
    source: Endpoint
    destination: Endpoint
    outward: bool
    inside: bool
    gateway_lb: str | None
    external_ip: dict[str, Any]
    load_balancer: dict[str, Any]
    ports: Ports
    mode: str | None
    entry: dict[str, Any] | None
    move: dict[str, Any] | None
    slice: dict[str, Any] | None = None

    @property
    def packets(self) -> tuple[str, ...]:
        """The kinds of packets whose ways differ, the likeliest first."""
        if self.protocol == "udp":
            return (DATAGRAM,)
        return (SEGMENT, SYN) if self.entry else (SYN, SEGMENT)

    @property
    def port(self) -> Port:
        """The port of the load balancer that the packet comes in by."""
        return self.ports.internal if self.inside else self.ports.external

    @property
    def sender(self) -> str:
        """The MAC that the packet comes from: what its entry answers to, if there is one; to a sliced service it comes
        by the router."""
        if self.slice and not self.entry and self.external_ip["router"]:
            return self.external_ip["router"]["mac"] or UNKNOWN_MAC
        return (self.entry and self.entry["inner_hop" if self.outward else "next_hop"]) or UNKNOWN_MAC

    @property
    def service(self) -> dict[str, Any] | None:
        """The service that the packet is for, if there is one."""
        return next((service for service in self.external_ip["services"]
                     if (service["protocol"], service["port"]) == (self.protocol, self.destination.port)), None)

    @property
    def sliced(self) -> bool:
        """Is it a client's outside, of a sliced service? Clients inside have entries of their own."""
        return not self.inside and self.service is not None and self.service["entries"] == "slices"

    @property
    def taking(self) -> list[dict[str, Any]]:
        """The servers of the service that take connections."""
        return [server for server in self.service["servers"] if server["state"] == "up"] if self.service else []


def ports_of(load_balancer: dict[str, Any]) -> Ports | None:
    """None if the switch has not shown both networks' ports."""
    external, internal = (load_balancer["ports"][side] for side in ("external", "internal"))
    if None in (external["number"], internal["number"], external["mac"], internal["mac"]):
        return None
    tunnels = {
        transport: Port(port["number"], internal["mac"])
        for transport, port in load_balancer["ports"]["tunnels"].items()
        if port["number"] is not None
    }
    sizes = Settings(external_mtu=external["mtu"], internal_mtu=internal["mtu"])
    return Ports(Port(external["number"], external["mac"], sizes.limit(EXTERNAL)),
                 Port(internal["number"], internal["mac"], sizes.limit(INTERNAL)), tunnels)
