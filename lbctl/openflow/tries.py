"""What Open vSwitch is told about tables that match addresses, by ovs-vsctl, when a bridge is made: by which fields it
keeps prefix trees.

Without the tree of a field a cached flow holds all bits of it that some flow of the table matches, so packets from
random addresses are a cached flow each, and a lookup of all tables. Before 3.5 Open vSwitch has trees for IPv4 alone,
and takes three for each table.
"""

from __future__ import annotations

from lbctl.openflow.tables import number

DEFAULT = ("nw_dst", "nw_src")
"""What a table has where nothing is said, before BUILT_IN."""
BUILT_IN = (3, 5)
"""From this version on it has all four."""
_IN, _OUT = (*DEFAULT, "ipv6_src"), (*DEFAULT, "ipv6_dst")
FIELDS = {number(name): fields for fields, names in ((_IN, ("sources", "access_in", "slice_hop")),
                                                     (_OUT, ("transfer_mode", "access_out", "way_back", "no_entry")))
          for name in names}
"""By table: there are clients' addresses, which anybody may choose, on their way in, or out."""


def command(bridge: str) -> list[str]:
    """Arguments of ovs-vsctl that set them."""
    rows = {fields: f"@{fields[-1]}" for fields in FIELDS.values()}
    made = [word for fields, row in rows.items()
            for word in (f"--id={row}", "create", "Flow_Table", f"prefixes={','.join(fields)}", "--")]
    tables = (f"flow_tables:{table}={rows[fields]}" for table, fields in FIELDS.items())
    return [*made, "set", "bridge", bridge, *tables]
