"""hypothesis tries the same examples in every run, so that a failure comes again; LBCTL_EXAMPLES asks for more of them."""

import os

from hypothesis import settings

settings.register_profile("lbctl", derandomize=True, deadline=None, database=None,
                          max_examples=int(os.environ.get("LBCTL_EXAMPLES", "100")))
settings.load_profile("lbctl")
