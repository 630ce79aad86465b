"""The least that Open vSwitch can do for a service: flows by hand for all of its clients, no controller, no slices. Two
servers have a bit of the client's port each; each client is answered to its own MAC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from evaluation.benchmarks.scene import Scene

COOKIE = "0x7"
"""None of lbctl's flows has it."""


@contextmanager
def static_flows(scene: Scene, external_ip: str) -> Iterator[None]:
    """Before all other flows of the only LB, for that external IP with one service and two servers."""
    node = scene.lbs["lb-a"]
    node.ovs.ofctl("add-flows", node.bridge, "-", input="\n".join(_flows(scene, external_ip)) + "\n")
    try:
        yield
    finally:
        node.ovs.ofctl("del-flows", node.bridge, f"cookie={COOKIE}/-1")


def _flows(scene: Scene, external_ip: str) -> Iterator[str]:
    node = scene.lbs["lb-a"]
    (service,) = scene.site.external_ips[0].services
    outside, inside = (int(node.ovs.vsctl("get", "interface", port, "ofport"))
                       for port in (node.lb.external_port, node.lb.internal_port))
    external_mac, internal_mac = (node.space.mac(port) for port in (node.lb.external_port, node.lb.internal_port))
    head = f"cookie={COOKIE},table=0,priority=60000,tcp"
    for number, server in enumerate(service.servers):
        mac = next(space for space in scene.servers if space.name == f"server-{server.address}").mac("eth0")
        yield (f"{head},in_port={outside},nw_dst={external_ip},tp_dst={service.port},tp_src={number << 1}/0x2 actions="
               f"mod_nw_dst:{server.address},mod_tp_dst:{server.port},mod_dl_src:{internal_mac},mod_dl_dst:{mac},"
               f"dec_ttl,output:{inside}")
        for client in scene.clients:
            address = client.ip("-o", "-4", "addr", "show", "dev", "eth0").split("inet ")[1].split("/")[0]
            yield (f"{head},in_port={inside},nw_src={server.address},tp_src={server.port},nw_dst={address} actions="
                   f"mod_nw_src:{external_ip},mod_tp_src:{service.port},mod_dl_src:{external_mac},"
                   f"mod_dl_dst:{client.mac('eth0')},dec_ttl,output:{outside}")
