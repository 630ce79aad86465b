"""Checksums that are left to hardware which is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lbctl.cli.doctor.finding import Finding, ok, warn
from lbctl.cli.namespace import NetworkNamespace


def check_offload(lb: str, interface: dict[str, Any], namespace: NetworkNamespace) -> Iterator[Finding]:
    """With the userspace datapath, checksums that a veth's sender leaves to the hardware are never made, and TCP hangs.

    interface: its row in Open vSwitch's database. What ethtool does not know, as in another network namespace, is left
    out.
    """
    name, status = interface["name"], interface["status"]
    if not isinstance(status, dict) or status.get("driver_name") != "veth":
        return
    features = namespace.run("ethtool", "-k", name)
    if features is None:
        return
    if re.search(r"^tx-checksumming: on", features, re.MULTILINE):
        yield warn(
            f"{lb}: {name} is a veth that leaves checksums to hardware that it does not have: with the userspace "
            "datapath TCP hangs where the hosts' ends do so.",
            f"ethtool -K {name} tx off; the same on the hosts' ends",
            f"in /etc/network/interfaces, below each interface: post-up ethtool -K {name} tx off",
        )
    else:
        yield ok(f"{lb}: {name} makes its own checksums.")
