"""How far back the packet counters of an entry's flows tell what there was."""

from __future__ import annotations

from lbctl.ground.serving import Serving
from lbctl.switches.switch import Switch


def counted_since(serving: Serving, switch: Switch) -> float:
    """Since when the switch has counted the external IP's packets: what was before, of an older entry, nobody knows."""
    return max(serving.since, switch.lost_at)
