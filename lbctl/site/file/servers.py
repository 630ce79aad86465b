"""The rules for the servers of services: of a site file, or ordered at run time, when the same hold."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import yaml

from lbctl.site.file.loader import Draft, Loader
from lbctl.site.file.register import Register
from lbctl.site.file.tunnels import TunnelRules
from lbctl.site.file.yaml_reader import line_of
from lbctl.site.model import TRANSPORTS, ExternalIp, Hop
from lbctl.values.addresses import Address, Endpoint


class Owner(NamedTuple):
    """The one external IP that may have a server, without full NAT. which: tells it from others; where: it is, in
    words."""

    which: Hashable
    where: str


class ServerRules:
    """Remembers what other servers must not contradict, and where it is."""

    def __init__(self, loader: Loader, register: Register, tunnels: TunnelRules) -> None:
        self._loader, self._register, self._tunnels = loader, register, tunnels
        self._others: list[tuple[str, Address, yaml.Node]] = []
        """Whose address must not be an LB's: what it is, and where it is named."""
        self._hops: dict[Address, tuple[Hop, str]] = {}
        self._owners: dict[Address, Owner] = {}

    def known(self, external_ip: ExternalIp) -> None:
        """An external IP that has been read elsewhere."""
        where = f"at {external_ip.address}"
        for address in external_ip.internal_addresses():
            self._register.known(("internal address", address), f"external IP {external_ip.address}")
        for address, hop in external_ip.hops().items():
            self._hops.setdefault(address, (hop, where))
            self._tunnels.known(hop, where)
            if external_ip.has_own_servers:
                self._owners.setdefault(address, Owner(external_ip.address, where))

    def check(self, servers: list[Draft], external: Address | None, owner: Owner | None) -> None:
        """Of one service. external: its external IP; owner: None if several external IPs may have them."""
        lines: dict[Endpoint, int] = {}
        for server in servers:
            self._server(server, external, owner)
            address, port = server.address("address"), server.number("port")
            if address is None or port is None:
                continue
            endpoint, line = Endpoint(address, port), line_of(server.node)
            if endpoint in lines:
                self._loader.problem(
                    server.node,
                    f"server {endpoint} is already in this service (line {lines[endpoint]}): remove one, and "
                    "give the other a weight",
                )
            lines.setdefault(endpoint, line)

    def not_an_lbs(self, what: str, draft: Draft) -> None:
        """That address must not be an LB's own; what: its key."""
        address = draft.address(what)
        if address is not None:
            self._others.append((what, address, draft.nodes[what]))

    def check_others(self) -> None:
        """At the end, when all of the LBs' addresses are known."""
        for what, address, node in self._others:
            own, words = (
                ("external IP", "an external IP")
                if what == "router"
                else ("internal address", "a gateway or internal IP")
            )
            where = self._register.where((own, address))
            if where is not None:
                self._loader.problem(node, f"{what} {address} can't be {words} as well ({where})")

    def _server(self, server: Draft, external: Address | None, owner: Owner | None) -> None:
        address, next_hop = server.address("address"), server.address("next_hop")
        tunneled = server.word("transport") != TRANSPORTS[0]
        if next_hop is not None and not tunneled:
            self._loader.check_within(next_hop, server.nodes["next_hop"], "next_hop", "internal_network")
        self.not_an_lbs("next_hop", server)
        hop = self._tunnels.hop(server)
        if address is None:
            return
        node = server.nodes["address"]
        if not tunneled and "next_hop" not in server.nodes:  # behind a router or a tunnel it may have any address
            self._loader.check_within(address, node, "address", "internal_network")
        self._others.append(("server", address, node))
        self._loader.same_version(address, external, node, "server")
        self._loader.same_version(next_hop, address, server.nodes.get("next_hop", node), "next_hop", "server")
        if owner is not None:
            self._check_owner(address, owner, node)
        if hop is not None:
            self._check_hop(address, hop, server.node)

    def _check_hop(self, server: Address, hop: Hop, node: yaml.Node) -> None:
        known, where = self._hops.setdefault(server, (hop, f"in line {line_of(node)}"))
        if known != hop:
            self._loader.problem(
                node, f"server {server} is reached in another way than {where}: there is one way to an address"
            )
        else:
            self._tunnels.check(hop, node)

    def _check_owner(self, address: Address, owner: Owner, node: yaml.Node) -> None:
        first = self._owners.setdefault(address, owner)
        if first.which != owner.which:
            self._loader.problem(node, f"server {address} already belongs to the external IP {first.where}; "
                                 "without nat: full a server belongs to one external IP")
