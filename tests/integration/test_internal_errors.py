"""A fault in the controller costs what it touches, not the site (docs/troubleshooting.md)."""

from __future__ import annotations

import pytest

from tests.bed.bed import Bed
from tests.bed.controller import APPS
from tests.bed.sites import simple_site
from tests.bed.traffic import connect
from tests.integration.hands import metric
from tests.integration.moving import FIRST, assert_unharmed, mixed_load
from tests.integration.test_lbctl_command import lbctl

BED = {"site": simple_site(external_ips=2, settings={"grace": 0.5, "linger": 1}),
       "apps": ("tests/integration/faulty_core.py", *APPS)}
FAULTS_EXPECTED = True


def faults(bed: Bed) -> int:
    found: int = bed.rest("GET", "/v1/health").json["internal_errors"]
    return found


def test_the_same_packet_twice_ends_nothing(bed: Bed) -> None:
    loads = mixed_load(bed, FIRST)
    pid = bed.controller.process.pid
    for _ in range(3):
        with pytest.raises(OSError):
            connect(bed.clients[1], FIRST, 666, timeout=1.5)
    assert bed.move(FIRST, "lb-b")["state"] == "done"
    assert_unharmed(loads)
    assert bed.controller.running and bed.controller.process.pid == pid
    assert faults(bed) >= 3
    log = bed.controller.log_tail(100_000)
    assert log.count("LookupError: port 666") == 1, "once a minute is enough"
    assert metric(bed, 'lbctl_controller_events_total{event="internal_errors"}') >= 3
    assert "faults of its own" in lbctl(bed, "doctor", status=1)
