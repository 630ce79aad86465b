"""From one site file to the next, without touching the connections of what stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType
from typing import TYPE_CHECKING

from lbctl.ground.effects import Outbox, Save, to_switch
from lbctl.ground.serving import Serving
from lbctl.openflow.rules import SERVING
from lbctl.site.model import ExternalIp, Hop, Site
from lbctl.site.orders import InForce
from lbctl.switches.switch import Switch
from lbctl.values.addresses import Address, address_order
from lbctl.values.keys import unpack_key
from lbctl.values.refused import Refused

if TYPE_CHECKING:
    from lbctl.control import ControlFunction


def change_site(control: ControlFunction, wanted: InForce, now: float) -> Outbox:
    """Makes it the control function's, and returns the difference. Raises Refused, with nothing changed."""
    site = wanted.site
    _check(control, site)
    staying = {external_ip.address for external_ip in site.external_ips}
    out: Outbox = []
    for serving in [serving for serving in control.directory if serving.address not in staying]:
        out += control.connections.end_all(serving, serving.table.snapshot())
        for switch in control.switches.values():
            switch.roles.pop(serving.address, None)
    control.services.in_force, control.site = wanted, site
    _change_load_balancers(control, site)
    servings, new = [], []
    for external_ip in site.external_ips:
        serving = control.directory.get(external_ip.address)
        if serving is None:
            serving = Serving(external_ip, external_ip.load_balancer, site.settings, control.seed, wanted.drained(external_ip))
            serving.unread = set()
            control.switches[serving.assigned].roles[external_ip.address] = SERVING
            new.append(serving)
        servings.append(serving)
    control.directory.replace(servings)
    keep_what_is_in_use(control)
    control.apply_settings()
    for name, switch in control.switches.items():
        if switch.ready:
            out += control.meters(name)
            out += to_switch(name, switch.sync(control.external_ips()))
            out += control.neighbourhood.probe(switch)
    for serving in new:
        out += control.neighbourhood.announce(serving, serving.assigned, now)
    control.log("site applied", external_ips=len(servings), load_balancers=len(control.switches), messages=len(out))
    return [*out, Save(control.state())]


def keep_what_is_in_use(control: ControlFunction) -> None:
    """Servers and internal IPs that the site file does not name any more stay, as long as connections go to them."""
    site = control.site
    configured = {server: hop for external_ip in site.external_ips for server, hop in external_ip.hops().items()}
    for external_ip in site.external_ips:
        serving = control.serving(external_ip.address)
        former = former_servers(serving, external_ip, configured)
        internal = _internal_ips_in_use(serving) - set(external_ip.internal_ips)
        serving.reconfigure(replace(external_ip, former_servers=former, former_internal_ips=tuple(sorted(internal, key=address_order))),
                            site.settings, control.services.in_force.drained(external_ip))
    control.directory.replace(list(control.directory))


def former_servers(serving: Serving, config: ExternalIp, elsewhere: Mapping[Address, Hop] = MappingProxyType({})) -> tuple[
        tuple[Address, Hop], ...]:
    """The servers that its connections go to and that `config` has not, and how they are reached. elsewhere: as other external IPs
    reach them from now on."""
    if config.kind != "service":
        return ()
    hops = {**serving.config.hops(), **elsewhere}
    return tuple((server, hops.get(server, Hop(server))) for server in sorted(
        _servers_in_use(serving) - config.hops().keys(), key=address_order))


def _check(control: ControlFunction, site: Site) -> None:
    staying = {external_ip.address for external_ip in site.external_ips}
    lbs = {lb.name: lb for lb in site.load_balancers}
    owners = {server: external_ip.address for external_ip in site.external_ips if external_ip.nat == "destination"
              for server in external_ip.server_addresses()}
    for serving in control.directory:
        taken = [str(server) for server in sorted(_servers_in_use(serving), key=address_order)
                 if serving.config.nat == "destination" and owners.get(server, serving.address) != serving.address]
        if taken and serving.address in staying:
            raise Refused(409, "Server in use", f"{', '.join(taken)} still has connections of {serving.address}: take it out "
                          "of the file first, and give it to another external IP when they have ended")
        if serving.address in staying:
            _check_translation(serving, site)
        if serving.move and serving.address not in staying:
            raise Refused(409, "External IP is moving", f"{serving.address} is being moved: wait, or keep it in the file")
        needed = {serving.assigned, *serving.holders, *((serving.move.record.source, serving.move.record.target) if serving.move else ())}
        if serving.address in staying and not needed <= lbs.keys():
            gone = ", ".join(sorted(needed - lbs.keys()))
            raise Refused(409, "Load balancer in use", f"{gone} still has {serving.address}: move it away first")
    for name, switch in control.switches.items():
        if name in lbs and lbs[name].dpid != switch.lb.dpid and switch.state != "disconnected":
            raise Refused(409, "Load balancer connected", f"the dpid of {name} can't change while it is connected")


def _check_translation(serving: Serving, site: Site) -> None:
    """Its connections keep their kind of NAT, and the internal IPs that they have."""
    config = site.external_ip(serving.address)
    if not len(serving.table):
        return
    if (config.kind, config.nat) != (serving.config.kind, serving.config.nat):
        raise Refused(409, "Other NAT", f"{serving.address} has connections, and the kind of NAT of a connection can't change: take it "
                      "out of the file first, and put it back in with the other kind")
    in_use = _internal_ips_in_use(serving)
    if not in_use:
        return
    others = {address: other.address for other in site.external_ips if other is not config for address in other.internal_addresses()}
    others |= {server: ip.address for ip in site.external_ips for server in ip.server_addresses()}
    taken = sorted(in_use & (others.keys() | {config.gateway}), key=address_order)
    if taken:
        raise Refused(409, "Internal IP in use", f"{', '.join(map(str, taken))} still has connections of {serving.address}: take it out "
                      "of the file first, and use it for something else when they have ended")


def _change_load_balancers(control: ControlFunction, site: Site) -> None:
    wanted = {lb.name: lb for lb in site.load_balancers}
    for name in control.switches.keys() - wanted.keys():
        del control.switches[name]
    for name, lb in wanted.items():
        switch = control.switches.setdefault(name, Switch(lb, control.watched_as(lb)))
        if switch.lb != lb:
            switch.rename_ports(lb)
    control.index_switches()


def _internal_ips_in_use(serving: Serving) -> set[Address]:
    """The internal IPs that its connections are translated to."""
    return {ip_address(unpack_key(entry.reply)[3]) for entry in serving.table.entries() if entry.full}


def _servers_in_use(serving: Serving) -> set[Address]:
    """The addresses of the servers that its connections go to."""
    return {ip_address(server) for server in serving.table.servers()}
