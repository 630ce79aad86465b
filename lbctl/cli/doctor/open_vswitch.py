"""The Open vSwitches of this machine: do they run, and which load balancers of the site are in them?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lbctl.cli.doctor.bridges import Networks, check_bridges
from lbctl.cli.doctor.finding import Finding, fail, ok, warn
from lbctl.cli.failure import Failure
from lbctl.cli.ovs import Ovs
from lbctl.site.model import LoadBalancer

OLDEST = (3, 1)
"""The oldest Open vSwitch that lbctl is tested with."""


def check_open_vswitches(
    installations: Sequence[Ovs], load_balancers: Sequence[LoadBalancer], networks: Networks
) -> Iterator[Finding]:
    """All checks of each Open vSwitch; of its bridges only if it runs."""
    missing = Ovs.missing_tools()
    if missing:
        yield warn(f"{', '.join(missing)} not found: no load balancer can be on this machine.",
                   "apt-get install openvswitch-switch (only where a load balancer is to be)")
        return
    answering: list[Ovs] = []
    found: list[LoadBalancer] = []
    for ovs in installations:
        try:
            here = load_balancers_in(ovs, load_balancers)
            answering.append(ovs)
            found += here
            yield check_version(ovs.appctl("version"), here)
            if here:
                yield check_queue_overflow(ovs, here)
                yield from check_bridges(ovs, here, networks)
        except Failure as failure:
            yield fail(
                str(failure), "systemctl start openvswitch-switch, or: /usr/share/openvswitch/scripts/ovs-ctl start"
            )
    if answering and load_balancers and not found:
        dpids = ", ".join(f"{lb.dpid:016x}" for lb in load_balancers)
        yield warn(
            f"No bridge here is a load balancer of the site (dpids {dpids}).",
            "ovs-vsctl set bridge BRIDGE other-config:datapath-id=DPID, or --ovs-rundir, or ask on another machine",
        )


def load_balancers_in(ovs: Ovs, load_balancers: Sequence[LoadBalancer]) -> list[LoadBalancer]:
    """Those that are a bridge of this Open vSwitch. Raises Failure."""
    dpids = {row["datapath_id"] for row in ovs.rows("Bridge")}
    return [lb for lb in load_balancers if f"{lb.dpid:016x}" in dpids]


def check_version(text: str, here: Sequence[LoadBalancer] = ()) -> Finding:
    """`text`: what `ovs-appctl version` says."""
    match = re.search(r"(\d+)\.(\d+)(\.\d+)?", text)
    if match is None:
        return warn(f"The version of Open vSwitch cannot be told from {text.strip()!r}.", "ovs-appctl version")
    if (int(match[1]), int(match[2])) < OLDEST:
        return warn(
            f"Open vSwitch {match[0]} is older than {OLDEST[0]}.{OLDEST[1]}, the oldest that lbctl is tested with.",
            "Debian 12 or 13: apt-get install openvswitch-switch",
        )
    return ok(f"Open vSwitch {match[0]}{_of(here)} runs.")


def check_queue_overflow(ovs: Ovs, here: Sequence[LoadBalancer]) -> Finding:
    count = int(ovs.appctl("coverage/read-counter", "rconn_overflow"))
    if count:
        return warn(
            f"Open vSwitch{_of(here)} has dropped {count} packets on their way to the controller since it started.",
            "see the queue sizes below; settings new_rate and hold_rate of the site file (reset: restart ovs-vswitchd)",
        )
    return ok(f"Open vSwitch{_of(here)} has dropped no packet on its way to the controller.")


def _of(load_balancers: Sequence[LoadBalancer]) -> str:
    return f" of {', '.join(lb.name for lb in load_balancers)}" if load_balancers else ""
