"""hypothesis looks at other examples in each run; tests/conftest.py chooses the seed, and shows it.

An example that failed is kept in .hypothesis/ and tried first from then on; the report says how to keep it for good
(`@reproduce_failure`). LBCTL_EXAMPLES says how many examples each test looks at.
"""

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from lbctl.switches import switch
from lbctl.values.drops import DROPS
from tests.unit.exploring import KEPT
from tests.unit.fake_site import FakeSite, site

# A slow machine is no fault of a test's. An explanation (of which line is to blame) slows down the search for a small
# example: it traces each line.
settings.register_profile(
    "lbctl", derandomize=False, deadline=None, print_blob=True, database=DirectoryBasedExampleDatabase(KEPT),
    max_examples=int(os.environ.get("LBCTL_EXAMPLES", "100")), suppress_health_check=[HealthCheck.too_slow],
    phases=set(Phase) - {Phase.explain},
)
settings.load_profile("lbctl")


class DescribedCounter(Counter[str]):
    """An LB's counters, which take no drop that nobody describes."""

    def __setitem__(self, name: str, count: int) -> None:
        reason = name.removeprefix("dropped_")
        assert reason == name or reason in DROPS, f"{reason}: describe it in lbctl/values/drops.py"
        super().__setitem__(name, count)


@pytest.fixture(scope="session", autouse=True)
def described_drops() -> Iterator[None]:
    """Of all switches in all unit tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(switch, "Counter", DescribedCounter)
        yield


@pytest.fixture
def world() -> FakeSite:
    """A site whose LBs are connected and have nothing to do; modules that want another have their own."""
    world = FakeSite(site())
    world.settle(1.0)
    return world
