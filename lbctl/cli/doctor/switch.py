"""Checks of this machine's Open vSwitch, and of the bridges in it that are load balancers of the site."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from lbctl.cli.doctor.finding import Finding, fail, ok, warn
from lbctl.cli.doctor.tunnels import check_tunnels
from lbctl.cli.failure import Failure
from lbctl.cli.ovs import Ovs, as_list
from lbctl.site.model import LoadBalancer

OLDEST = (3, 1)
"""The oldest Open vSwitch that lbctl is tested with."""
QUEUE = 512
"""The most packet-ins that Open vSwitch can queue; 100 by default."""
PROTOCOL = "OpenFlow14"

Row = dict[str, Any]


def check_open_vswitch(ovs: Ovs, load_balancers: Sequence[LoadBalancer]) -> Iterator[Finding]:
    """All checks of this machine's Open vSwitch; of the bridges only if it runs."""
    missing = Ovs.missing_tools()
    if missing:
        yield warn(f"{', '.join(missing)} not found: no load balancer can be on this machine.",
                   "apt-get install openvswitch-switch (only where a load balancer is to be)")
        return
    try:
        bridges = ovs.rows("Bridge")
        yield check_version(ovs.appctl("version"))
    except Failure as failure:
        yield fail(str(failure), "systemctl start openvswitch-switch, or: /usr/share/openvswitch/scripts/ovs-ctl start")
        return
    by_dpid = {bridge["datapath_id"]: bridge for bridge in bridges}
    here = [(lb, by_dpid[f"{lb.dpid:016x}"]) for lb in load_balancers if f"{lb.dpid:016x}" in by_dpid]
    if load_balancers and not here:
        yield warn(f"No bridge here is a load balancer of the site (dpids {', '.join(f'{lb.dpid:016x}' for lb in load_balancers)}).",
                   "ovs-vsctl set bridge BRIDGE other-config:datapath-id=DPID, or --ovs-rundir, or ask on another machine")
    if here:
        yield check_queue_overflow(ovs)
        tables = {name: {row["_uuid"]: row for row in ovs.rows(name)} for name in ("Controller", "Port", "Interface")}
        for lb, bridge in here:
            yield from check_bridge(lb, bridge, tables)
            yield from check_tunnels(ovs, lb, bridge, _interfaces(bridge, tables), bridges)


def check_version(text: str) -> Finding:
    """`text`: what `ovs-appctl version` says."""
    match = re.search(r"(\d+)\.(\d+)(\.\d+)?", text)
    if match is None:
        return warn(f"The version of Open vSwitch cannot be told from {text.strip()!r}.", "ovs-appctl version")
    if (int(match[1]), int(match[2])) < OLDEST:
        return warn(f"Open vSwitch {match[0]} is older than {OLDEST[0]}.{OLDEST[1]}, the oldest that lbctl is tested with.",
                    "Debian 12 or 13: apt-get install openvswitch-switch")
    return ok(f"Open vSwitch {match[0]} runs.")


def check_queue_overflow(ovs: Ovs) -> Finding:
    count = int(ovs.appctl("coverage/read-counter", "rconn_overflow"))
    if count:
        return warn(f"Open vSwitch has dropped {count} packets on their way to the controller since it started.",
                    "see the queue sizes below; settings new_rate and hold_rate of the site file (reset: restart ovs-vswitchd)")
    return ok("No packet was dropped on its way to the controller.")


def check_bridge(lb: LoadBalancer, bridge: Row, tables: dict[str, dict[str, Row]]) -> Iterator[Finding]:
    """tables: rows of Controller, Port and Interface by UUID."""
    controllers = [tables["Controller"][uuid] for uuid in as_list(bridge["controller"])]
    yield check_fail_mode(lb, bridge)
    yield check_protocols(lb, bridge)
    yield check_in_band(lb, bridge, controllers)
    yield check_queue_size(lb, bridge, controllers)
    yield from check_connection(lb, bridge, controllers)
    interfaces = _interfaces(bridge, tables)
    for name in (lb.external_port, lb.internal_port):
        yield check_port(lb, bridge, name, interfaces.get(name))
        if name in interfaces and bridge["datapath_type"] == "netdev":
            yield from check_offload(lb, interfaces[name])


def _interfaces(bridge: Row, tables: dict[str, dict[str, Row]]) -> dict[str, Row]:
    """The bridge's interfaces by name."""
    ports = [tables["Port"][uuid] for uuid in as_list(bridge["ports"])]
    return {row["name"]: row for port in ports for row in (tables["Interface"][uuid] for uuid in as_list(port["interfaces"]))}


def check_fail_mode(lb: LoadBalancer, bridge: Row) -> Finding:
    if bridge["fail_mode"] != "secure":
        return fail(f"{lb.name}: bridge {bridge['name']} does not have fail_mode secure: without a controller it "
                    "becomes a plain switch, and connections break.", f"ovs-vsctl set-fail-mode {bridge['name']} secure")
    return ok(f"{lb.name}: fail_mode is secure.")


def check_protocols(lb: LoadBalancer, bridge: Row) -> Finding:
    protocols = as_list(bridge["protocols"])
    if protocols and PROTOCOL not in protocols:
        return fail(f"{lb.name}: bridge {bridge['name']} does not speak {PROTOCOL}.",
                    f"ovs-vsctl add bridge {bridge['name']} protocols {PROTOCOL}")
    return ok(f"{lb.name}: {PROTOCOL} is spoken.")


def check_in_band(lb: LoadBalancer, bridge: Row, controllers: Sequence[Row]) -> Finding:
    out_of_band = controllers and all(row["connection_mode"] == "out-of-band" for row in controllers)
    if bridge["other_config"].get("disable-in-band") != "true" and not out_of_band:
        return warn(f"{lb.name}: bridge {bridge['name']} has hidden rules for in-band control, which come before ours.",
                    f"ovs-vsctl set bridge {bridge['name']} other-config:disable-in-band=true")
    return ok(f"{lb.name}: no in-band control.")


def check_queue_size(lb: LoadBalancer, bridge: Row, controllers: Sequence[Row]) -> Finding:
    of_bridge = int(bridge["other_config"].get("controller-queue-size", 100))
    own = [row["controller_queue_size"] for row in controllers if row.get("controller_queue_size", []) != []]
    size = min([*own, of_bridge] if len(own) < len(controllers) or not own else own)
    if size >= QUEUE:
        return ok(f"{lb.name}: {size} packets can be queued for the controller.")
    mend = f"ovs-vsctl set bridge {bridge['name']} other-config:controller-queue-size={QUEUE}"
    if own:
        mend += f" -- set controller {bridge['name']} controller_queue_size={QUEUE}"
    return warn(f"{lb.name}: bridge {bridge['name']} queues {size} packets for the controller, and drops more without a "
                "word.", mend)


def check_connection(lb: LoadBalancer, bridge: Row, controllers: Sequence[Row]) -> Iterator[Finding]:
    if not controllers:
        yield fail(f"{lb.name}: bridge {bridge['name']} has no controller.",
                   f"ovs-vsctl set-controller {bridge['name']} tcp:CONTROLLER:6653")
    for row in controllers:
        if row["is_connected"]:
            yield ok(f"{lb.name}: connected to {row['target']}.")
        else:
            error = row["status"].get("last_error")
            yield fail(f"{lb.name}: not connected to {row['target']}" + (f" ({error})." if error else "."),
                       f"start the controller there, or: ovs-vsctl set-controller {bridge['name']} tcp:CONTROLLER:6653"
                       " (if it has just connected, ask again in 5 s: Open vSwitch tells with that delay)")


def check_port(lb: LoadBalancer, bridge: Row, name: str, interface: Row | None) -> Finding:
    if interface is None:
        return fail(f"{lb.name}: bridge {bridge['name']} has no port {name}.", f"ovs-vsctl add-port {bridge['name']} {name}")
    if interface["error"]:
        return fail(f"{lb.name}: port {name}: {interface['error']}.", f"ip link show {name}")
    if interface["admin_state"] != "up" or interface["link_state"] != "up":
        return fail(f"{lb.name}: port {name} is down.", f"ip link set {name} up (and so its other end)")
    return ok(f"{lb.name}: port {name} is up.")


def check_offload(lb: LoadBalancer, interface: Row) -> Iterator[Finding]:
    """With the userspace datapath, checksums that a veth's sender leaves to the hardware are never made, and TCP hangs."""
    name, status = interface["name"], interface["status"]
    if not isinstance(status, dict) or status.get("driver_name") != "veth" or shutil.which("ethtool") is None:
        return
    done = subprocess.run(["ethtool", "-k", name], capture_output=True, text=True, timeout=15)
    if done.returncode:
        return  # in another network namespace
    if re.search(r"^tx-checksumming: on", done.stdout, re.MULTILINE):
        yield warn(f"{lb.name}: {name} is a veth that leaves checksums to hardware that it does not have: with the "
                   "userspace datapath TCP hangs where the hosts' ends do so.",
                   f"ethtool -K {name} tx off; the same on the hosts' ends")
    else:
        yield ok(f"{lb.name}: {name} makes its own checksums.")
