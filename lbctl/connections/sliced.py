"""Connections of sliced services, of which nothing is kept: what their entry would be follows from their slice."""

from __future__ import annotations

from ipaddress import ip_address

from lbctl.entries.access_table import NO_HOP, Entry
from lbctl.frames.packets import parse_mac
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Endpoint
from lbctl.values.keys import Place, pack_key, reply_key, service_of, unpack_key
from lbctl.values.side import EXTERNAL, Side
from lbctl.values.slices import slice_of


def find(ground: Ground, switch: Switch, serving: Serving, side: Side, key: bytes) -> Entry | None:
    """The entry whose packets from that side carry this key: its own, or what its slice says. switch: who is to know
    the client's next hop."""
    entry = serving.table.find(side, key)
    if entry or not serving.slices:
        return entry
    keys = _from_client(serving, key) if side is EXTERNAL else _from_server(serving, key)
    return Entry(*keys, next_hop_of(ground, serving, keys[0], switch), 0.0) if keys else None


def _from_client(serving: Serving, key: bytes) -> tuple[bytes, bytes] | None:
    """The keys of the entry."""
    slicing = serving.slices.get(service_of(key))
    server = slicing.default(slice_of(key, slicing.by_client)) if slicing else None
    return (key, reply_key(key, server.address.packed, server.port)) if server else None


def _from_server(serving: Serving, reply: bytes) -> tuple[bytes, bytes] | None:
    protocol, address, port, client, client_port = unpack_key(reply)
    server = Endpoint(ip_address(address), port)
    for place in serving.slices:
        if place[0] == protocol and server in serving.answering(place):
            return pack_key(protocol, client, client_port, serving.address.packed, place[1]), reply
    return None


def slice_of_entry(serving: Serving, place: Place, entry: Entry) -> int | None:
    """The slice of that service that a connection is in; None: it is another service's, or its client is inside."""
    if service_of(entry.key) != place or entry.full or place not in serving.slices:
        return None
    return slice_of(entry.key, serving.slices[place].by_client)


def next_hop_of(ground: Ground, serving: Serving, key: bytes, switch: Switch | None = None) -> bytes:
    """The MAC that the client of that key is answered to; NO_HOP: it is not known. switch: who is to know its router's;
    None: that of its LB."""
    router, switch = serving.config.router, switch or ground.switches[serving.assigned]
    mac = ground.client_hops.of(ip_address(unpack_key(key)[1])) or (switch.neighbours.get(router) if router else None)
    return parse_mac(mac) if mac else NO_HOP
