"""Entries in bulk: written into a switch before the controller starts, which then takes them over.

That is honest, because the controller reads them back from the switch as it would after a restart: afterwards they are
entries of both like any other. It takes seconds where 100 000 connection requests would take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks.scene import Scene
from lbctl.entries.access_table import Entry
from lbctl.entries.translation import full_reply
from lbctl.openflow.entry_flows import entry_flows
from lbctl.site.model import ExternalIp, Server
from lbctl.values.addresses import Address
from lbctl.values.keys import pack_key, reply_key
from tests.bed.balancer import BalancerNode

CLIENT_NETWORK = bytes((203, 0, 113))
FIRST_PORT, PORTS = 10_000, 500
"""For each of 254 client addresses: room for 127 000 entries."""
TCP = 6


def entries(count: int, external_ip: ExternalIp, next_hop: str, now: float = 0.0) -> Iterator[Entry]:
    """Distinct entries of clients behind the router with MAC `next_hop`.

    They are spread over the servers of the first service.
    """
    service = external_ip.services[0]
    for number in range(count):
        host, port = divmod(number, PORTS)
        key = pack_key(
            TCP, CLIENT_NETWORK + bytes((host + 1,)), FIRST_PORT + port, external_ip.address.packed, service.port
        )
        server = service.servers[number % len(service.servers)]
        yield Entry(
            key,
            _reply(external_ip, key, server, number // len(service.servers)),
            bytes.fromhex(next_hop.replace(":", "")),
            now,
        )


def _reply(external_ip: ExternalIp, key: bytes, server: Server, number: int) -> bytes:
    """The reply key of a server's entry of that number."""
    if external_ip.nat != "full":
        return reply_key(key, server.address.packed, server.port)
    port, which = divmod(number, len(external_ip.internal_ips))
    place = external_ip.internal_ips[which].packed, external_ip.port_range[0] + port
    return full_reply(key, server.address.packed, server.port, place)


def write_flows(path: Path, count: int, external_ip: ExternalIp, next_hop: str, linger: int) -> None:
    """Both flows of `count` entries, as `ovs-ofctl add-flows` takes them."""
    with path.open("w") as file:
        for entry in entries(count, external_ip, next_hop):
            file.writelines(flow.text() + "\n" for flow in entry_flows(entry, linger))


def add_flows(node: BalancerNode, path: Path) -> None:
    """`ovs-ofctl --bundle add-flows`, as one transaction."""
    node.ovs.ofctl("--bundle", "add-flows", node.bridge, path)


def seed(scene: Scene, count: int) -> Path:
    """Gives the first external IP's LB `count` entries while the controller is away, and lets it take them over.

    Returns the file with their flows. Raises NotInTime.
    """
    external_ip = scene.site.external_ips[0]
    path = scene.directory / f"entries-{count}.txt"
    write_flows(path, count, external_ip, scene.router.mac("eth0"), scene.site.settings.linger)
    scene.start_controller()  # a switch that is given its first controller forgets all flows
    scene.controller.kill()
    add_flows(scene.lbs[external_ip.load_balancer], path)
    scene.start_controller(wait=False)
    scene.wait_ready(60.0)
    scene.wait_until(lambda: connections(scene, external_ip.address) == count, 60.0, f"{count} entries taken over")
    return path


def connections(scene: Scene, address: Address) -> int:
    """How many entries the controller has for an external IP."""
    return int(scene.rest("GET", f"/v1/external-ips/{address}").json["connections"])
