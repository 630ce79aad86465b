"""Other servers for one external IP: what change_site does, at a cost that does not grow with all that the others
have in the switches."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from lbctl.changes.needs import Neighbours
from lbctl.ground.effects import Outbox, to_switch
from lbctl.ground.ground import Ground
from lbctl.ground.in_use import former_servers, with_slices_in_use
from lbctl.ground.serving import Serving
from lbctl.site.model import ExternalIp, Hop, Server, Tunnel
from lbctl.site.orders import InForce
from lbctl.values.addresses import Address
from lbctl.values.refused import Refused


def change_servers(ground: Ground, neighbours: Neighbours, wanted: InForce, address: Address) -> Outbox:
    """Makes `wanted`, which differs in that external IP's services only, what is in force; returns the difference.
    Raises Refused, with nothing changed."""
    serving, after = ground.external_ips.get(address), wanted.site.external_ip(address)
    assert serving is not None and after is not None, "an order is about a service that there is"
    new = after.hops().keys() - serving.config.hops().keys()
    _check(ground, serving, after, new)
    ground.in_force = wanted
    out: Outbox = []
    for other in ground.external_ips:
        if other is not serving and any(server in new for server, _ in other.config.former_servers):
            out += _become(ground, neighbours, other, other.config)
    return [*out, *_become(ground, neighbours, serving, after), ground.save()]


def _become(ground: Ground, neighbours: Neighbours, serving: Serving, wanted: ExternalIp) -> Outbox:
    """Of its former servers, whatever `wanted` says, those stay that have connections, and so do its slices."""
    before, after = serving.config, with_slices_in_use(serving, replace(wanted, former_servers=()))
    after = replace(
        after, former_servers=former_servers(serving, after), former_internal_ips=before.former_internal_ips
    )
    serving.reconfigure(after, ground.settings, ground.in_force.drained(after))
    if before.hops() == after.hops() and _kinds_of_entries(before) == _kinds_of_entries(after):
        return []
    ground.external_ips.replace(list(ground.external_ips))
    added = set(after.hops().values()) - set(before.hops().values())
    others = _sharing(ground, serving, {item for item in before.hops().items() if item not in after.hops().items()})
    out: Outbox = []
    for name, switch in ground.switches.items():
        out += to_switch(name, switch.change(before, after, others))
        out += neighbours.ask(switch, {hop.address for hop in added})
    return out


def _kinds_of_entries(external_ip: ExternalIp) -> dict[tuple[str, int], str]:
    return {(service.protocol, service.port): service.entries for service in external_ip.services}


def _check(ground: Ground, serving: Serving, after: ExternalIp, new: Collection[Address]) -> None:
    """new: the servers that it has not had."""
    for other in ground.external_ips:
        if other is serving:
            continue
        taken = [server for server in new if server in other.config.former_internal_ips]
        if after.has_own_servers and other.config.has_own_servers:
            taken += [server for server in new if server.packed in other.table.servers()]
        if taken:
            raise Refused(
                409,
                "Server in use",
                f"{', '.join(map(str, taken))} still has connections of {other.address}: wait until they have ended",
            )


def _sharing(ground: Ground, serving: Serving, gone: Collection[tuple[Address, Hop]]) -> list[ExternalIp]:
    """The other external IPs that use some of it: a server, its next hop, or its tunnel."""
    servers, hops = {server for server, _ in gone}, {hop.address for _, hop in gone}
    tunnels = {_end(hop.tunnel) for _, hop in gone if hop.tunnel}

    def uses(server: Server) -> bool:
        return (
            server.address in servers
            or server.hop.address in hops
            or server.tunnel is not None
            and _end(server.tunnel) in tunnels
        )

    return [other.config for other in ground.external_ips if other is not serving and gone and (
        any(uses(server) for service in other.config.services for server in service.servers)
        or any(server in servers or hop.address in hops or hop.tunnel and _end(hop.tunnel) in tunnels
               for server, hop in other.config.former_servers))]


def _end(tunnel: Tunnel) -> tuple[str, Address, int]:
    """Whom a tunnel leads to, whatever its MTU is."""
    return tunnel.transport, tunnel.remote, tunnel.key
