"""By which address fields does Open vSwitch keep prefix trees? Where it keeps none, packets from random addresses are a
cached flow each (lbctl/openflow/tries.py)."""

from __future__ import annotations

from typing import Any

from lbctl.cli.doctor.finding import Finding, ok, warn
from lbctl.cli.ovs import as_list
from lbctl.openflow import tries

Row = dict[str, Any]


def check_prefixes(name: str, bridge: Row, flow_tables: dict[str, Row], version: tuple[int, int]) -> Finding:
    """Of a site that has IPv6 external IPs. name: of the LB; flow_tables: rows by UUID; version: Open vSwitch's."""
    rows = {int(number): flow_tables[uuid] for number, uuid in bridge["flow_tables"].items()}
    without = [table for table, fields in sorted(tries.FIELDS.items())
               if not set(fields) <= _kept(rows.get(table), fields, version)]
    if not without:
        return ok(f"{name}: packets from random IPv6 addresses share cached flows.")
    return warn(
        f"{name}: bridge {bridge['name']} has no prefix trees for IPv6 in tables {', '.join(map(str, without))}: each "
        "packet of a flood from random addresses is a cached flow of its own, and looked up by ovs-vswitchd.",
        f"lbctl drain {name}; ovs-vsctl {' '.join(tries.command(bridge['name']))} (Open vSwitch before 3.2.6 may crash "
        "when this is changed under load)",
    )


def _kept(row: Row | None, fields: tuple[str, ...], version: tuple[int, int]) -> set[str]:
    """The fields that a table has trees of; those that matter here are `fields`."""
    return set(as_list(row["prefixes"]) if row else []) or set(tries.DEFAULT if version < tries.BUILT_IN else fields)
