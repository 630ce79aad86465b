"""How large the packets are that a load balancer's ports take, and are given (docs/icmp.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lbctl.cli.doctor.finding import Finding, ok, warn
from lbctl.cli.namespace import NetworkNamespace

MERGING = {"generic-receive-offload": "gro", "large-receive-offload": "lro", "rx-gro-hw": "rx-gro-hw"}
"""Features that put several packets together, and ethtool's short names for them."""


def check_mtu(lb: str, side: str, interface: dict[str, Any], mtu: int) -> Iterator[Finding]:
    """interface: its row in Open vSwitch's database. mtu: what the site file says of the network of that side, external
    or internal."""
    name, found = interface["name"], interface.get("mtu")
    if not isinstance(found, int):
        return
    if found == mtu:
        yield ok(f"{lb}: {name} takes packets of {mtu} bytes, as the site file says.")
        return
    yield warn(
        f"{lb}: the MTU of {name} is {found}, and the site file's {side}_mtu is {mtu}: packets that are too large for "
        "the next link vanish without a word.",
        f"settings: {{{side}_mtu: {found}}} in the site file, if its network takes as much; else "
        f"ip link set {name} mtu {mtu}",
    )


def check_merging(lb: str, interface: dict[str, Any], namespace: NetworkNamespace) -> Iterator[Finding]:
    """With the userspace datapath, packets that the kernel has put together are too large to be sent on. What ethtool
    does not know, as in another network namespace, is left out."""
    name = interface["name"]
    features = namespace.run("ethtool", "-k", name) or ""
    on = [short for long, short in MERGING.items() if re.search(rf"^{long}: on", features, re.MULTILINE)]
    if on:
        mend = f"ethtool -K {name} {' '.join(f'{short} off' for short in on)}"
        yield warn(
            f"{lb}: {name} puts packets together ({', '.join(on)}): with the userspace datapath what comes out is "
            "larger than the next link takes, and is lost.",
            mend,
            f"in /etc/network/interfaces, below the interface: post-up {mend}",
        )
