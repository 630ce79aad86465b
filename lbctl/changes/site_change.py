"""From one site file to the next, without touching the connections of what stays."""

from __future__ import annotations

from collections.abc import Iterator

from lbctl.changes.needs import Needs
from lbctl.ground.effects import Outbox
from lbctl.ground.ground import Ground
from lbctl.ground.in_use import internal_ips_in_use, reconfigure, servers_in_use
from lbctl.ground.serving import Serving
from lbctl.site.model import Site
from lbctl.site.orders import InForce
from lbctl.values.addresses import address_order
from lbctl.values.refused import Refused


def change_site(ground: Ground, needs: Needs, wanted: InForce, now: float) -> Iterator[Outbox]:
    """Makes it the site in force, a few external IPs at a time: other things may happen in between. Tells the
    difference. Raises Refused at first, with nothing changed."""
    _check(ground, wanted.site)
    ground.applying = True
    try:
        yield from _apply(ground, needs, wanted, now)
    finally:
        ground.applying = False


def _apply(ground: Ground, needs: Needs, wanted: InForce, now: float) -> Iterator[Outbox]:
    site = wanted.site
    staying = {external_ip.address for external_ip in site.external_ips}
    out: Outbox = []
    for serving in [serving for serving in ground.external_ips if serving.address not in staying]:
        out += needs.ender.end_all(serving, serving.table.snapshot(), now)
        for switch in ground.switches.values():
            switch.forget(serving.address)
    ground.in_force = wanted
    _change_load_balancers(ground)
    servings, new = [], []
    for external_ip in site.external_ips:
        found = ground.external_ips.get(external_ip.address)
        if found is None:
            found = ground.new_serving(external_ip, external_ip.load_balancer)
            found.unread = set()
            new.append(found)
        servings.append(found)
    if new or len(servings) < len(ground.external_ips.by_address):
        ground.external_ips.replace(servings)
    yield out
    for _ in reconfigure(ground):
        yield []
    for follower in needs.followers:
        follower.site_changed()
    for switch in ground.ready():
        yield from ground.meters(switch.lb.name)
        yield needs.neighbours.probe(switch)
    yield ground.resyncs.begin(ground.ready(), now)
    for serving in new:
        yield needs.neighbours.announce(serving, serving.assigned, now)
    ground.log("site applied", external_ips=len(servings), load_balancers=len(ground.switches))
    yield [ground.save()]


def _check(ground: Ground, site: Site) -> None:
    staying = {external_ip.address for external_ip in site.external_ips}
    lbs = {lb.name: lb for lb in site.load_balancers}
    in_use = {serving: servers_in_use(serving) for serving in ground.external_ips if serving.config.has_own_servers}
    owners = {server: external_ip.address for external_ip in site.external_ips if external_ip.has_own_servers
              for server in external_ip.server_addresses()} if any(in_use.values()) else {}
    for serving in ground.external_ips:
        taken = [str(server) for server in sorted(in_use.get(serving, ()), key=address_order)
                 if owners.get(server, serving.address) != serving.address]
        if taken and serving.address in staying:
            raise Refused(
                409,
                "Server in use",
                f"{', '.join(taken)} still has connections of {serving.address}: take it out "
                "of the file first, and give it to another external IP when they have ended",
            )
        if serving.address in staying:
            _check_translation(serving, site)
        if serving.move and serving.address not in staying:
            raise Refused(
                409, "External IP is moving", f"{serving.address} is being moved: wait, or keep it in the file"
            )
        needed = {
            serving.assigned,
            *serving.holders,
            *((serving.move.source, serving.move.target) if serving.move else ()),
        }
        if serving.address in staying and not needed <= lbs.keys():
            gone = ", ".join(sorted(needed - lbs.keys()))
            raise Refused(409, "Load balancer in use", f"{gone} still has {serving.address}: move it away first")
    for name, switch in ground.switches.items():
        if name in lbs and lbs[name].dpid != switch.lb.dpid and switch.state != "disconnected":
            raise Refused(409, "Load balancer connected", f"the dpid of {name} can't change while it is connected")


def _check_translation(serving: Serving, site: Site) -> None:
    """Its connections keep their kind of NAT, and the internal IPs that they have."""
    if not (len(serving.table) or serving.slices):
        return
    config = site.external_ip(serving.address)
    if config is None:
        return
    if (config.kind, config.nat) != (serving.config.kind, serving.config.nat):
        raise Refused(
            409,
            "Other NAT",
            f"{serving.address} has connections, and the kind of NAT of a connection can't change: take it "
            "out of the file first, and put it back in with the other kind",
        )
    in_use = internal_ips_in_use(serving)
    if not in_use:
        return
    others = {
        address: other.address
        for other in site.external_ips
        if other is not config
        for address in other.internal_addresses()
    }
    others |= {server: ip.address for ip in site.external_ips for server in ip.server_addresses()}
    if config.gateway and config.gateway != serving.config.gateway:
        others[config.gateway] = config.address
    taken = sorted(in_use & others.keys(), key=address_order)
    if taken:
        raise Refused(
            409,
            "Internal IP in use",
            f"{', '.join(map(str, taken))} still has connections of {serving.address}: take it out "
            "of the file first, and use it for something else when they have ended",
        )


def _change_load_balancers(ground: Ground) -> None:
    """Those that stay keep their connections."""
    wanted = {lb.name: lb for lb in ground.site.load_balancers}
    for name in ground.switches.keys() - wanted.keys():
        del ground.switches[name]
    for name, lb in wanted.items():
        switch = ground.switches.setdefault(name, ground.new_switch(lb))
        if switch.lb != lb or switch.limits != ground.limits():
            switch.change_ports(lb, ground.limits())
