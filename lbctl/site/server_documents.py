"""A server as a mapping with the keys of the site file: what the state file holds, and what the rules of site files are asked about."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from lbctl.site.model import Server, Tunnel
from lbctl.values.addresses import Endpoint


def document_of(server: Server) -> dict[str, Any]:
    """JSON values; nothing is left to defaults but what a server does not have."""
    document: dict[str, Any] = {"address": str(server.address), "port": server.port, "weight": server.weight}
    if server.max_connections is not None:
        document["max_connections"] = server.max_connections
    if server.next_hop:
        document["next_hop"] = str(server.next_hop)
    if tunnel := server.tunnel:
        document |= {"transport": tunnel.transport, "remote": str(tunnel.remote), "key": tunnel.key, "mtu": tunnel.mtu}
    return document


def server_of(document: Mapping[str, Any]) -> Server:
    """The inverse of document_of. Raises KeyError, TypeError or ValueError for what no server has; whether it fits the site is not
    asked here."""
    tunnel = None
    if "transport" in document:
        tunnel = Tunnel(str(document["transport"]), ip_address(document["remote"]), int(document["key"]), int(document["mtu"]))
    limit, hop = document.get("max_connections"), document.get("next_hop")
    return Server(ip_address(document["address"]), int(document["port"]), int(document["weight"]), hop and ip_address(hop), tunnel,
                  None if limit is None else int(limit))


def endpoint_of(text: str) -> Endpoint:
    """From ADDRESS:PORT, with IPv6 [ADDRESS]:PORT, as Endpoint is printed. Raises ValueError."""
    address, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and 0 < int(port) <= 0xFFFF):
        raise ValueError(f"{text!r} is no server: give ADDRESS:PORT, such as 10.0.0.11:80 or [fd00::11]:80")
    bracketed = address.startswith("[") and address.endswith("]")
    found = ip_address(address[1:-1] if bracketed else address)
    if bracketed != (found.version == 6):
        raise ValueError(f"{text!r} is no server: an IPv6 address is written in brackets, such as [fd00::11]:80, and no other")
    return Endpoint(found, int(port))
