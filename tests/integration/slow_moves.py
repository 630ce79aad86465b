"""A move to an LB that is slow, which does no harm in the right order, and does in a naive one."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.traffic import Load
from tests.integration.gate import gates
from tests.integration.moving import FIRST, Talks, harm, mixed_load, wait_ended, wait_step


def harm_by_a_slow_lb(bed: Bed, address: str, strategy: str, start: Callable[[], list[Load]] | None = None) -> int:
    """Connections broken and requests failed by a move to an LB that takes 0.3 s for each step. start: starts the
    load."""
    with gates(bed) as gate:
        loads = start() if start else mixed_load(bed, address, interval=0.05)
        gate["lb-b"].shut()
        ordered = bed.move(address, "lb-b", strategy, wait=False)
        for _ in range(2 if APPS != bed.controller.apps else 4):
            gate["lb-b"].wait()
            time.sleep(0.3)
            gate["lb-b"].step()
        gate["lb-b"].open()
        assert wait_ended(bed, ordered["id"])["state"] == "done"
        time.sleep(0.2)
        return harm(loads)


def opened_while_entries_are_copied(bed: Bed) -> list[str]:
    """What has broken of the connections opened between the copying of the table and the change of the route."""
    with gates(bed) as gate, Talks(bed.clients[0], FIRST, 3) as before:
        gate["lb-b"].shut()
        ordered = bed.move(FIRST, "lb-b", wait=False)
        if APPS == bed.controller.apps:
            gate["lb-b"].step()
        wait_step(bed, ordered["id"], "copy")
        gate["lb-b"].wait()
        with Talks(bed.clients[0], FIRST, 3) as meanwhile:
            gate["lb-b"].open()
            assert wait_ended(bed, ordered["id"])["state"] == "done"
            assert before.broken() == []
            return meanwhile.broken(timeout=2)
