"""How many flows the datapath's cache has for a sliced service, by the number of TTLs that clients' packets come with,
and of their addresses. By connection there would be as many as there are connections.
"""

from __future__ import annotations

from evaluation.benchmarks.scene import Scene
from evaluation.measuring.findings import Findings, Result, of_results
from evaluation.measuring.others import watched
from evaluation.measuring.record import figure
from lbctl.site.model import NAT_KINDS, NatKind, Site
from lbctl.values.slices import SLICES
from tests.bed import frames
from tests.bed.direct import let_answer
from tests.bed.faults import wait_reached
from tests.bed.sites import EXTERNAL_NETWORK, REMOTE_NETWORKS, host, simple_site, with_slices
from tests.bed.traffic import RawPort

KINDS: tuple[tuple[int, int], ...] = ((1, 1), (8, 1), (50, 1), (1, 50), (8, 50))
"""Numbers of TTLs and of clients; all behind the router, where there is one packet of each slice for each of them."""
FIRST_TTL = 64


def main() -> Findings:
    """A line for each kind of clients."""
    counted = {kind: [_counted(_site(nat), *kind) for nat in NAT_KINDS if nat != "full"] for kind in KINDS}
    results = []
    for (ttls, clients), ((nat, others), (direct, _)) in counted.items():
        results.append(Result(
            f"{clients} {'client' if clients == 1 else 'clients'}, {ttls} {'TTL' if ttls == 1 else 'TTLs'}: "
            f"{SLICES * ttls * clients} connections", f"{nat}; direct server return {direct}", "",
            f"{nat / SLICES / ttls:.2f} for each slice and TTL", "", 1, others, True,
            {"sliced": figure("flows", [nat]), "direct": figure("flows", [direct])}))
    return of_results(results)


def _site(nat: NatKind) -> Site:
    router = host(EXTERNAL_NETWORK, 254) if nat == "destination" else None
    return with_slices(simple_site(lbs=1, external_ips=1, servers=2, ports={80: 80}), nat=nat, router=router)


def _counted(site: Site, ttls: int, clients: int) -> tuple[int, float]:
    """Cached flows for what these clients send; and what others took of the machine."""
    with Scene(site, clients=1, prepare=let_answer) as scene:
        scene.start_controller()
        wait_reached(scene)
        scene.wait_until(lambda: {entry["state"] for entry in scene.entries("lb-a")} == {"plain"}, 10, "plain slices")
        scene.lbs["lb-a"].ovs.purge()
        node, external_ip = scene.lbs["lb-a"], str(site.external_ips[0].address)
        addresses = [str(host(REMOTE_NETWORKS[4], 1 + number)) for number in range(clients)]

        def sent() -> int:
            with RawPort(scene.router, "eth0") as port:
                eth = port.mac, node.space.mac(node.lb.external_port)
                for ttl in range(FIRST_TTL, FIRST_TTL + ttls):
                    for number in range(SLICES):
                        port.send(*(frames.tcp(eth, (address, 40000 + 2 * number), (external_ip, 80), frames.SYN,
                                               ttl=ttl) for address in addresses))
            lines = node.ovs.appctl("dpctl/dump-flows").splitlines()
            return sum(f"dst={external_ip}," in line.partition("actions:")[0] and "tcp(" in line for line in lines)

        return watched(sent, scene.namespaces)
