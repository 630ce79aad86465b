"""hypothesis looks at other examples in each run; tests/conftest.py chooses the seed, and shows it.

An example that failed is kept in .hypothesis/ and tried first from then on; the report says how to keep it for good
(`@reproduce_failure`). LBCTL_EXAMPLES says how many examples each test looks at.
"""

import os

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.unit.exploring import KEPT

# A slow machine is no fault of a test's.
settings.register_profile(
    "lbctl", derandomize=False, deadline=None, print_blob=True, database=DirectoryBasedExampleDatabase(KEPT),
    max_examples=int(os.environ.get("LBCTL_EXAMPLES", "100")), suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lbctl")
