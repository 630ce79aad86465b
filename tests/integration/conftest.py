"""A bed for each test module, clean for each test; what a failed test needs to be understood is added to its report.

A module says what bed it wants with `BED = {...}` (arguments of tests.bed.bed.Bed), and what else there is to be in it,
each time that it is built, with a function `prepare(bed)`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite(*(f"tests.integration.{name}" for name in ("gate", "hands", "moving", "slow_moves")))

from tests.bed.bed import Bed, NotInTime  # noqa: E402
from tests.bed.controller import environment  # noqa: E402
from tests.bed.found import AsFound  # noqa: E402
from tests.bed.starter import Starter  # noqa: E402
from tests.integration.moving import NAIVE_APPS  # noqa: E402
from topologies.queues import long_receive_queues  # noqa: E402

FAILED = pytest.StashKey[bool]()
"""Of a test: has it failed so far?"""
INTERNAL_ERROR = "internal error"
LONGEST = (
    "test_slices",
    "test_restart",
    "test_move",
    "test_topologies",
    "test_rebalance",
    "test_move_failures",
    "test_access_table",
    "test_experiment",
)
"""These modules come first: else one process would be busy with one of them at the end while the others have nothing to
do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long modules first; else the order stays."""
    items.sort(key=lambda item: LONGEST.index(name) if (name := item.path.stem) in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def long_queues() -> Iterator[None]:
    """An LB that is kept from the processor by other tests loses no packet for that; labs can't ask for it in their
    namespaces."""
    with long_receive_queues():
        yield


@pytest.fixture(scope="session")
def starter() -> Iterator[Starter]:
    """Starts the controllers of all beds."""
    starter = Starter(environment())
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def built_bed(request: pytest.FixtureRequest, starter: Starter) -> Iterator[Bed]:
    """The module's bed, in whatever state: for the fixtures below."""
    if os.geteuid() != 0:
        pytest.fail("integration tests make network namespaces: run ./test.sh as root")
    prepare = getattr(request.module, "prepare", None)
    with Bed(**getattr(request.module, "BED", {}), starter=starter, prepare=prepare) as bed:
        yield bed


@pytest.fixture(scope="module")
def found(built_bed: Bed) -> AsFound:
    """What the module's bed was like at first."""
    return AsFound(built_bed)


@pytest.fixture(autouse=True)
def as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test leaves its module's bed as it found it, also when it fails: what it has not put back itself is put
    back here."""
    if "built_bed" not in request.fixturenames:
        yield
        return
    found: AsFound = request.getfixturevalue("found")
    faults = found.bed.controller.logged(INTERNAL_ERROR)
    yield
    if not getattr(request.module, "FAULTS_EXPECTED", False):
        assert found.bed.controller.logged(INTERNAL_ERROR) <= faults, found.bed.diagnostics()
    if request.node.stash.get(FAILED, False):
        found.rebuild()
    elif restored := found.restore():
        request.node.add_report_section("teardown", "restored", restored)


@pytest.fixture
def quiet_bed(found: AsFound) -> Bed:
    """A bed whose controller does not run; the test may start it."""
    return found.begin()


@pytest.fixture
def live(found: AsFound) -> Bed:
    """The module's bed with a controller that goes on from test to test, until one leaves something that must be put
    back."""
    return found.go_on()


@pytest.fixture
def fresh(quiet_bed: Bed) -> Bed:
    """The module's bed from the beginning, for tests that break something."""
    quiet_bed.start_controller()
    return quiet_bed


@pytest.fixture
def bed(quiet_bed: Bed) -> Bed:
    """A bed whose controller runs: every LB is ready, every external IP is where the site file says."""
    quiet_bed.start_controller()
    return quiet_bed


@pytest.fixture
def naive_bed(quiet_bed: Bed, request: pytest.FixtureRequest) -> Bed:
    """The same bed with a controller that moves by a naive order (the fixture's parameter)."""
    quiet_bed.controller.apps = NAIVE_APPS[request.param]
    return quiet_bed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Adds flow dumps, move records and logs to the report of a failed test, before teardown cleans them away."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    bed = getattr(item, "funcargs", {}).get("built_bed") or getattr(item, "funcargs", {}).get("quiet_bed")
    told_already = call.excinfo is not None and call.excinfo.errisinstance(NotInTime)
    if report.failed and call.when in ("setup", "call") and bed is not None and not told_already:
        report.sections.append(("test bed", bed.diagnostics()))
    return report
