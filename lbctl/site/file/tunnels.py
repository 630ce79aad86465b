"""The rules for servers behind tunnels (seed modification 5)."""

from __future__ import annotations

import typing
from collections.abc import Mapping

import yaml

from lbctl.site.file.loader import Draft
from lbctl.site.file.yaml_reader import Reader, line_of
from lbctl.site.keys import default_of
from lbctl.site.model import TRANSPORTS, TUNNEL_OVERHEAD, Hop, Transport, Tunnel
from lbctl.values.addresses import Address

SMALLEST_MTU = {4: 576, 6: 1280}
"""Bytes that each link must take, by IP version of what it carries (RFC 791: what each host takes; RFC 8200)."""


class TunnelRules:
    """internal_mtu: bytes that what carries the tunnels takes. transports: of each load balancer that is known, by its
    name."""

    def __init__(self, reader: Reader, internal_mtu: int, transports: Mapping[str, frozenset[str]]) -> None:
        self._reader = reader
        self._internal_mtu = internal_mtu
        self._transports = transports
        self._tunnels: dict[Address, tuple[Tunnel | None, str]] = {}

    def known(self, hop: Hop, where: str) -> None:
        """A next hop that something else has already."""
        self._tunnels.setdefault(hop.address, (hop.tunnel, where))

    def hop(self, server: Draft) -> Hop | None:
        """How a server is reached; None if that is not known because of a problem. Says the mtu of a tunnel, if the
        file does not."""
        transport, address = server.word("transport"), server.address("address")
        tunnel = None if transport == TRANSPORTS[0] else self._tunnel(typing.cast(Transport, transport), server)
        if address is None or server.unread("next_hop") or transport != TRANSPORTS[0] and tunnel is None:
            return None
        return Hop(server.address("next_hop") or address, tunnel)

    def check(self, hop: Hop, node: yaml.Node) -> None:
        """A next hop is behind one tunnel, or behind none."""
        tunnel, where = self._tunnels.setdefault(hop.address, (hop.tunnel, f"in line {line_of(node)}"))
        if tunnel != hop.tunnel:
            self._reader.problem(
                node, f"{hop.address} is reached by another tunnel than {where}: there is one way to an address"
            )

    def _tunnel(self, transport: Transport, server: Draft) -> Tunnel | None:
        remote, key, at = (
            server.address("remote"),
            server.values.get("key", default_of(Tunnel, "key")),
            server.nodes.get("transport", server.node),
        )
        if remote is not None and remote.version != 4:
            self._reader.problem(
                server.nodes["remote"],
                f"remote {remote} is IPv6: a tunnel is carried by IPv4 (what is inside may be IPv6)",
            )
            remote = None
        mtu = self._mtu(transport, server, at)
        for name, transports in self._transports.items():
            if transport not in transports:
                self._reader.problem(
                    at,
                    f"transport {transport} needs a tunnel port at each load balancer, and {name} has no "
                    f"{transport}_port",
                )
        return None if remote is None or server.unread("key") or mtu is None else Tunnel(transport, remote, key, mtu)

    def _mtu(self, transport: Transport, server: Draft, at: yaml.Node) -> int | None:
        overhead, address = TUNNEL_OVERHEAD[transport], server.address("address")
        most, least = self._internal_mtu - overhead, SMALLEST_MTU[address.version if address else 4]
        why = f"internal_mtu {self._internal_mtu} less the {overhead} bytes that {transport} adds"
        if server.unread("mtu"):
            return None
        node, mtu = server.nodes.get("mtu", at), server.values.setdefault("mtu", most)
        if mtu > most:
            self._reader.problem(node, f"mtu {mtu} is more than the tunnel can carry: at most {most}, which is {why}")
        elif mtu < least:
            what = f"mtu {mtu}" if "mtu" in server.nodes else f"the tunnel's mtu {mtu} ({why})"
            self._reader.problem(
                node,
                f"{what} is too small: packets to {address or 'a server'} may have {least} bytes, which no network "
                "may refuse",
            )
        else:
            return int(mtu)
        return None
