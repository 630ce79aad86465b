"""Connections of sliced services, of which nothing is kept: what their entry would be follows from their slice."""

from __future__ import annotations

from ipaddress import ip_address

from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.frames.packets import parse_mac
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.servers.slices import slice_of
from lbctl.switches.switch import Switch
from lbctl.values.keys import pack_key, reply_key, service_of, unpack_key
from lbctl.values.side import EXTERNAL, Side


def find(ground: Ground, switch: Switch, serving: Serving, side: Side, key: bytes) -> Entry | None:
    """The entry whose packets from that side carry this key: its own, or what its slice says. switch: who is to know
    the client's next hop."""
    entry = serving.table.find(side, key)
    if entry or not serving.slices:
        return entry
    keys = _from_client(serving, key) if side is EXTERNAL else _from_server(serving, key)
    return Entry(*keys, _next_hop(ground, switch, serving, keys[0]), 0.0) if keys else None


def _from_client(serving: Serving, key: bytes) -> tuple[bytes, bytes] | None:
    """The keys of the entry."""
    owners = serving.slices.get(service_of(key))
    server = owners[slice_of(unpack_key(key)[2])] if owners else None
    return (key, reply_key(key, server.address.packed, server.port)) if server else None


def _from_server(serving: Serving, reply: bytes) -> tuple[bytes, bytes] | None:
    protocol, address, port, client, client_port = unpack_key(reply)
    for place in serving.slices:
        if place[0] == protocol and any(
            (server.address.packed, server.port) == (address, port) for server in serving.services[place].servers
        ):
            return pack_key(protocol, client, client_port, serving.address.packed, place[1]), reply
    return None


def _next_hop(ground: Ground, switch: Switch, serving: Serving, key: bytes) -> bytes:
    router = serving.config.router
    mac = ground.client_hops.of(ip_address(unpack_key(key)[1])) or (switch.neighbours.get(router) if router else None)
    return parse_mac(mac) if mac else NO_HOP
