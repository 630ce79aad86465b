"""Figure 13 of the seed: failover. Copies of the access tables are on the servers, and one of them, s3, is the control
server 5c.

By itself:         python topologies/fig13.py
By Mininet's mn:   mn --custom topologies/fig13.py --topo fig13 --controller lbctl

The control function is on the internal network only: LBs and keepers talk to it there, and so does `lbctl` at the
prompt.
"""

from dataclasses import replace

from lbctl.site.model import CopyName
from topologies import fig3
from topologies.controller import LabController
from topologies.plan import with_keepers
from topologies.prompt import LabPrompt, main
from topologies.topo import LabTopo

COPIES: tuple[tuple[CopyName, ...], ...] = (("keeper",), ("sockets",), ("controller", "sockets"))
"""Of each external IP: as in the figure; as in figure 14; and what is the default with keepers (docs/failover.md)."""

PLAN = replace(
    fig3.PLAN,
    name="fig13",
    title="two load balancers, three external IPs, copies of entries on three servers, the control function on s3",
    site=with_keepers(fig3.PLAN.site, fig3.PLAN.servers, COPIES),
    control_server=fig3.S3,
)


class Fig13Topo(LabTopo):
    """For `mn --topo fig13`."""

    plan = PLAN


class Fig13Controller(LabController):
    """For `mn --controller lbctl`."""

    plan = PLAN


topos = {"fig13": Fig13Topo}
controllers = {"lbctl": Fig13Controller}
CLI = LabPrompt  # mn takes its prompt from here

if __name__ == "__main__":
    raise SystemExit(main(PLAN))
