"""New connections/s for a minute through nftables' DNAT, whose table of connections fills, and through an LB with
slices, which has none.

A router with nftables stands in the LB's place, between the same clients and servers, in turn with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmarks.new_connections import BY_SLICE, CLIENTS, CONNECTIONS, site_of
from evaluation.benchmarks.scene import Scene, wrk
from evaluation.measuring.findings import Findings, Result, median, of_results, per_second
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from tests.bed.namespaces import Namespace
from tests.bed.sites import EXTERNAL_NETWORK, INTERNAL_NETWORK, SERVER_PORT, host

SECONDS, WINDOWS = 5.0, 12
"""Of one window; of a minute."""
ROUTER = 61
"""Its number on each network."""
RULES = """
table ip balancer {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {external_ip} tcp dport 80 dnat to numgen inc mod {count} map {{ {servers} }} : {port}
    }}
}}
"""


@dataclass(frozen=True)
class Minute:
    """New connections/s in each window; entries of the kernel's table at the end (None: there is none), and how many it
    may have."""

    rates: Sequence[float]
    errors: int
    entries: int | None = None
    most: int | None = None


def main() -> Findings:
    """A line for the beginning of the minute, and one for its end."""
    (nftables, first_others), (sliced, others) = _nftables(), _sliced()
    filled = f"{nftables.entries} of {nftables.most} entries" if nftables.entries is not None else ""
    lines = (("the first", slice(0, 3), ""), ("the last", slice(-3, None), f", {filled} in its table"))
    results = []
    for name, windows, more in lines:
        ours, theirs = median(sliced.rates[windows]), median(nftables.rates[windows])
        results.append(Result(
            f"new connections, {name} 15 s of a minute, sliced",
            per_second(ours) + (f", {sliced.errors} errors" if sliced.errors else ""),
            f"nftables {per_second(theirs)}{more}", f"{ours / theirs:.2f}", "", 3, max(first_others, others), True,
            {"sliced": figure("1/s", sliced.rates[windows]), "nftables": figure("1/s", nftables.rates[windows])},
        ))
    return of_results(results)


def _sliced() -> tuple[Minute, float]:
    with Scene(site_of(BY_SLICE), clients=CLIENTS) as scene:
        scene.start_nginx()
        scene.start_controller()
        return watched(lambda: _minute(scene, str(scene.site.external_ips[0].address)), scene.namespaces)


def _nftables() -> tuple[Minute, float]:
    with Scene(site_of(BY_SLICE), clients=CLIENTS) as scene:
        scene.start_nginx()
        router = _router(scene)
        return watched(lambda: _minute(scene, str(host(EXTERNAL_NETWORK, ROUTER)), router),
                       [*scene.namespaces, router.path])


def _router(scene: Scene) -> Namespace:
    external_ip, gateway = host(EXTERNAL_NETWORK, ROUTER), host(INTERNAL_NETWORK, ROUTER)
    router = scene.hosts.add("nftables", "external", [f"{external_ip}/{EXTERNAL_NETWORK.prefixlen}"])
    scene.hosts.plug(router, "eth1", "internal")
    router.ip("addr", "add", f"{gateway}/{INTERNAL_NETWORK.prefixlen}", "dev", "eth1")
    router.sysctl(ipv4__ip_forward=1)
    servers = [str(server.address) for server in scene.site.external_ips[0].services[0].servers]
    router.run("nft", RULES.format(
        external_ip=external_ip, count=len(servers), port=SERVER_PORT,
        servers=", ".join(f"{number} : {server}" for number, server in enumerate(servers))))
    for space in scene.servers:
        space.ip("route", "replace", "default", "via", gateway)
    return router


def _minute(scene: Scene, address: str, router: Namespace | None = None) -> Minute:
    loads = [wrk(scene.clients, f"http://{address}/", SECONDS, connections=CONNECTIONS, close=True)
             for _ in range(WINDOWS)]
    rates, errors = [load.per_second for load in loads], sum(load.errors for load in loads)
    if router is None:
        return Minute(rates, errors)
    return Minute(rates, errors, *(_kernel(router, f"nf_conntrack_{what}") for what in ("count", "max")))


def _kernel(space: Namespace, name: str) -> int:
    return space.call(lambda: int(Path(f"/proc/sys/net/netfilter/{name}").read_text()))
