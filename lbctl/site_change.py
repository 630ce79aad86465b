"""From one site file to the next, without touching the connections of what stays."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from lbctl.messages import STORE, Outbox, Save
from lbctl.model import Address, Hop, Site, address_order
from lbctl.movement import Refused
from lbctl.pipeline.rules import SERVING
from lbctl.serving import Serving
from lbctl.switch import Switch

if TYPE_CHECKING:
    from lbctl.control import ControlFunction


def change_site(control: ControlFunction, site: Site, now: float) -> Outbox:
    """Makes `site` the control function's, and returns the difference. Raises Refused, with nothing changed."""
    _check(control, site)
    staying = {external_ip.address for external_ip in site.external_ips}
    out: Outbox = []
    for serving in [serving for serving in control.directory if serving.address not in staying]:
        out += control.connections.end_all(serving, serving.table.snapshot())
        for switch in control.switches.values():
            switch.roles.pop(serving.address, None)
    control.site = site
    _change_load_balancers(control, site)
    control.apply_settings()
    servings, new = [], []
    for external_ip in site.external_ips:
        serving = control.directory.get(external_ip.address)
        if serving is None:
            serving = Serving(external_ip, external_ip.load_balancer, site.settings, control.seed)
            serving.unread = set()
            control.switches[serving.assigned].roles[external_ip.address] = SERVING
            new.append(serving)
        servings.append(serving)
    control.directory.replace(servings)
    keep_former_servers(control)
    for name, switch in control.switches.items():
        if switch.ready:
            out += control.meters(name)
            out += [(name, message) for message in switch.sync(control.external_ips())]
            out += control.probe(switch)
    for serving in new:
        out += control.announce(serving, serving.assigned, now)
    control.log("site applied", external_ips=len(servings), load_balancers=len(control.switches), messages=len(out))
    return [*out, (STORE, Save(control.state()))]


def keep_former_servers(control: ControlFunction) -> None:
    """Servers that the site file does not name any more stay reachable as long as connections go to them."""
    site = control.site
    configured = {server for external_ip in site.external_ips for server in external_ip.server_addresses()}
    for external_ip in site.external_ips:
        serving = control.serving(external_ip.address)
        hops = serving.config.hops()
        former = tuple((server, hops.get(server, Hop(server))) for server in sorted(
            _servers_in_use(serving) - configured, key=address_order)) if external_ip.kind == "service" else ()
        serving.reconfigure(replace(external_ip, former_servers=former), site.settings)
    control.directory.replace(list(control.directory))


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
        if serving.move and serving.address not in staying:
            raise Refused(409, "External IP is moving", f"{serving.address} is being moved: wait, or keep it in the file")
        if serving.address in staying and not serving.holders <= lbs.keys():
            gone = ", ".join(sorted(serving.holders - lbs.keys()))
            raise Refused(409, "Load balancer in use", f"{gone} still has {serving.address}: move it away first")
    for name, switch in control.switches.items():
        if name in lbs and lbs[name].dpid != switch.lb.dpid and switch.state != "disconnected":
            raise Refused(409, "Load balancer connected", f"the dpid of {name} can't change while it is connected")


def _change_load_balancers(control: ControlFunction, site: Site) -> None:
    wanted = {lb.name: lb for lb in site.load_balancers}
    for name in control.switches.keys() - wanted.keys():
        del control.switches[name]
    for name, lb in wanted.items():
        switch = control.switches.setdefault(name, Switch(lb))
        if switch.lb != lb:
            switch.rename_ports(lb)
    control.index_switches()


def _servers_in_use(serving: Serving) -> set[Address]:
    """The addresses of the servers that its connections go to."""
    return {ip_address(server) for server in {entry.server[0] for entry in serving.table.entries()}}
