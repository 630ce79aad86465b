"""A controller in a crash loop starts ever more slowly, and says so (docs/troubleshooting.md)."""

from __future__ import annotations

import time

from lbctl.store.runs import FREE
from tests.bed.bed import Bed
from tests.bed.controller import APPS, Controller
from tests.bed.patience import limit
from tests.bed.sites import simple_site
from tests.integration.test_lbctl_command import lbctl

BED = {"site": simple_site(lbs=1, external_ips=1)}
FAULTS_EXPECTED = True


def run(controller: Controller) -> tuple[int, float]:
    """Exit status, and seconds until the end."""
    begun = time.monotonic()
    status = controller.launch().wait(limit(60.0))
    return status, time.monotonic() - begun


def test_a_crash_loop(bed: Bed) -> None:
    dying = Controller(bed.controller.space, bed.controller.directory, bed.controller.address,
                       apps=(*APPS, "tests/integration/dies_at_once.py"))
    bed.controller.stop()
    ended = [run(dying) for _ in range(FREE)]
    assert {status for status, _ in ended} == {70}
    assert bed.controller.logged("crash loop") == 0, "the first ones were free, and the one before was told to end"
    run(dying)
    assert bed.controller.logged("crash loop") == 1
    bed.controller.start()
    assert bed.rest("GET", "/v1/health").json["crashes_in_a_row"] >= FREE
    assert "times in a row" in lbctl(bed, "doctor", status=1)
    bed.controller.stop()
    bed.controller.start()
    assert bed.rest("GET", "/v1/health").json["crashes_in_a_row"] == 0, "it was told to end"


def test_what_is_configured_wrongly_has_a_status_of_its_own(bed: Bed) -> None:
    bed.controller.stop()
    site = bed.controller.site_file.read_text()
    bed.controller.site_file.write_text("nonsense")
    assert run(bed.controller)[0] == 78
    bed.controller.site_file.write_text(site)
    bed.controller.start()
    assert bed.rest("GET", "/v1/health").json["crashes_in_a_row"] == 0
