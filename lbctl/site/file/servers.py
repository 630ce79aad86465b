"""The servers of a service: of a site file, or ordered at run time, when the same rules hold."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from lbctl.site.file.fields import FieldReader
from lbctl.site.file.tunnels import SERVER_KEYS, TunnelReader, first_tunnel_key
from lbctl.site.file.yaml_reader import line_of, quoted
from lbctl.site.model import MAX_CONNECTIONS, MAX_WEIGHT, TRANSPORTS, ExternalIp, Hop, Server
from lbctl.values.addresses import Address, Network


class ServerReader:
    """Reads servers, and remembers what other servers must not contradict, and where it is."""

    def __init__(self, reader: FieldReader, internal: Sequence[Network], tunnels: TunnelReader) -> None:
        self._reader, self._internal, self._tunnels = reader, internal, tunnels
        self._others: list[tuple[str, Address, yaml.Node]] = []
        """Whose address must not be an LB's: what it is, and where it is named."""
        self._hops: dict[Address, tuple[Hop, str]] = {}
        self._owners: dict[Address, str] = {}

    def known(self, external_ip: ExternalIp) -> None:
        """An external IP that has been read elsewhere."""
        where = f"at {external_ip.address}"
        for address in external_ip.internal_addresses():
            self._reader.seen["internal address", address] = f"external IP {external_ip.address}"
        for address, hop in external_ip.hops().items():
            self._hops.setdefault(address, (hop, where))
            self._tunnels.known(hop, where)
            if external_ip.nat == "destination":
                self._owners.setdefault(address, where)

    def servers(self, owner: str | None, external: Address | None, nodes: list[yaml.Node]) -> tuple[Server, ...]:
        """Of one service; those that can be read. owner: where the one external IP is that may have them; None: several may."""
        servers = [self._server(owner, external, node) for node in nodes]
        self._check_differ(servers, nodes)
        return tuple(filter(None, servers))

    def other(self, what: str, values: dict[str, yaml.Node], networks: Sequence[Network], network_key: str) -> Address | None:
        """An address that must not be an LB's own; what: its key."""
        address = self._reader.address_in(values.get(what), what, networks, network_key)
        if address is not None:
            self._others.append((what, address, values[what]))
        return address

    def check_others(self) -> None:
        """At the end, when all of the LBs' addresses are known."""
        for what, address, node in self._others:
            own, words = ("external IP", "an external IP") if what == "router" else ("internal address", "a gateway or internal IP")
            where = self._reader.seen.get((own, address))
            if where is not None:
                self._reader.problem(node, f"{what} {address} can't be {words} as well ({where})")

    def _server(self, owner: str | None, external: Address | None, node: yaml.Node) -> Server | None:
        transport = self._transport(node)
        if transport is None:
            return None
        tunneled = transport != TRANSPORTS[0]
        required, optional = SERVER_KEYS if tunneled else ((), ())
        values = self._reader.mapping(node, "server", ("address", "port", *required),
                                      ("weight", "max_connections", "next_hop", "transport", *optional))
        if values is None:
            return None
        # Behind a router or a tunnel it may have any address.
        networks = () if tunneled or "next_hop" in values else self._internal
        address = self._reader.address_in(values.get("address"), "address", networks, "internal_network")
        port = self._reader.whole(values.get("port"), "port", 1, 65535)
        weight = self._reader.whole(values["weight"], "weight", 1, MAX_WEIGHT) if "weight" in values else 1
        limit = None
        if "max_connections" in values:
            limit = self._reader.whole(values["max_connections"], "max_connections", 1, MAX_CONNECTIONS)
        next_hop = self.other("next_hop", values, () if tunneled else self._internal, "internal_network")
        tunnel = self._tunnels.tunnel(transport, address, values) if tunneled else None
        if address is None:
            return None
        self._others.append(("server", address, values["address"]))
        self._reader.same_version(address, external, values["address"], "server")
        self._reader.same_version(next_hop, address, values.get("next_hop"), "next_hop", "server")
        if owner is not None:
            self._check_owner(address, owner, values["address"])
        if port is None or weight is None or tunneled and tunnel is None:
            return None
        server = Server(address, port, weight, next_hop, tunnel, limit)
        self._check_hop(server, node)
        return server

    def _transport(self, node: yaml.Node) -> str | None:
        """What decides which other keys there are; None if it is wrong, or they contradict it."""
        problems = len(self._reader.problems)
        transport = self._reader.deciding(node, "transport", TRANSPORTS)
        if len(self._reader.problems) > problems:
            return None
        if transport == TRANSPORTS[0] and (key := first_tunnel_key(node)):
            self._reader.problem(key, f"server: {quoted(key.value)} is a tunnel's: add transport, {' or '.join(TRANSPORTS[1:])}")
            return None
        return transport

    def _check_hop(self, server: Server, node: yaml.Node) -> None:
        hop, where = self._hops.setdefault(server.address, (server.hop, f"in line {line_of(node)}"))
        if hop != server.hop:
            self._reader.problem(node, f"server {server.address} is reached in another way than {where}: there is one way to "
                                 "an address")
        else:
            self._tunnels.check_hop(server.hop, node)

    def _check_differ(self, servers: list[Server | None], nodes: list[yaml.Node]) -> None:
        lines: dict[object, int] = {}
        for server, node in zip(servers, nodes, strict=True):
            if server is None:
                continue
            if server.endpoint in lines:
                self._reader.problem(node, f"server {server.endpoint} is already in this service (line {lines[server.endpoint]}): "
                                     "remove one, and give the other a weight")
            lines.setdefault(server.endpoint, line_of(node))

    def _check_owner(self, address: Address, owner: str, node: yaml.Node) -> None:
        where = self._owners.setdefault(address, owner)
        if where != owner:
            self._reader.problem(node, f"server {address} already belongs to the external IP {where}; "
                                 "with nat: destination a server belongs to one external IP")
