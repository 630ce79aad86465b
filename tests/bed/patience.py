"""How long tests and beds wait for what should come. Every limit is said for a machine that does nothing else; here
is by how much more a test waits before it fails, so that none depends on how fast the machine is.

A limit costs nothing when what is waited for comes. A time in which something must *not* come is no limit: it stays
as it is.
"""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("LBCTL_PATIENCE") or 6.0)
"""How many times slower than an idle machine this one may be."""


def limit(seconds: float) -> float:
    """Seconds to wait at most for what takes an idle machine so many at most."""
    return seconds * PATIENCE
