"""The rules for a whole site file: what its parts must not contradict in one another."""

from __future__ import annotations

import itertools

from lbctl.site.file.external_ips import ExternalIpRules, LoadBalancers
from lbctl.site.file.keepers import KeeperRules
from lbctl.site.file.loader import Draft, Loader
from lbctl.site.file.register import Register
from lbctl.site.file.servers import ServerRules
from lbctl.site.file.tunnels import TunnelRules
from lbctl.site.forms import PORT_NAME
from lbctl.site.keys import default_of, keys_of
from lbctl.site.model import TUNNEL_OVERHEAD, LoadBalancer, Settings

_PORT_KEYS = [each.name for each in keys_of(LoadBalancer) if each.form == PORT_NAME]


def check_site(site: Draft, loader: Loader) -> None:
    """Notes every problem, and completes the drafts with what depends on other keys."""
    register = Register(loader)
    _check_networks(site, loader)
    balancers = site.parts("load_balancers")
    for balancer in balancers:
        _check_load_balancer(balancer, loader, register)
    settings: Draft | None = site.values.get("settings")
    mtu = settings.number("internal_mtu") if settings else None
    tunnels = TunnelRules(loader, mtu or default_of(Settings, "internal_mtu"), _transports(balancers))
    keepers = KeeperRules(loader, register, site)
    rules = ExternalIpRules(loader, register, _known(site, balancers), ServerRules(loader, register, tunnels), keepers)
    rules.check(site.parts("external_ips"))


def _check_networks(site: Draft, loader: Loader) -> None:
    for outer, inner in itertools.product(
        *(loader.networks.get(key, ()) for key in ("external_network", "internal_network"))
    ):
        if outer.version == inner.version and outer.overlaps(inner):
            loader.problem(site.nodes["internal_network"],
                           f"internal_network {inner} overlaps external_network {outer}: they must be apart")


def _check_load_balancer(balancer: Draft, loader: Loader, register: Register) -> None:
    name, dpid = balancer.word("name"), balancer.number("dpid")
    if name is not None:
        register.once(balancer.nodes["name"], ("name", name), f"the name {name!r} is already used")
    if dpid is not None:
        register.once(balancer.nodes["dpid"], ("dpid", dpid), f"the dpid {dpid:016x} is already used")
    ports: dict[str, str] = {}
    for key in _PORT_KEYS:
        port = balancer.word(key)
        if port is None:
            continue
        if port in ports:
            loader.problem(
                balancer.nodes[key],
                f"{key} is the same as {ports[port]}, {port!r}: a load balancer needs a port for each",
            )
        ports.setdefault(port, key)


def _transports(balancers: list[Draft]) -> dict[str, frozenset[str]]:
    """Of each load balancer that has all that it needs: the tunnels that it has a port for."""
    return {name: frozenset(transport for transport in TUNNEL_OVERHEAD if f"{transport}_port" in balancer.values)
            for balancer in balancers if (name := balancer.word("name")) is not None}


def _known(site: Draft, balancers: list[Draft]) -> LoadBalancers:
    names = [balancer.word("name") for balancer in balancers]
    # Where one is missing or occurs twice, the name that is meant is not known, so "unknown load balancer" would name a
    # problem that is none.
    found = list(dict.fromkeys(name for name in names if name is not None))
    nodes = site.nodes.get("load_balancers")
    complete = nodes is not None and isinstance(nodes.value, list) and len(nodes.value) == len(found)
    return LoadBalancers(found if complete else None,
                         frozenset(name for name, balancer in zip(names, balancers, strict=True)
                                   if name is not None and balancer.values.get("standby")))
