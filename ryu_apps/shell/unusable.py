"""What is configured can't be used: the controller does not start, and a supervisor need not try again."""

from __future__ import annotations

import sys

EXIT_STATUS = 78
"""EX_CONFIG (sysexits.h)."""


def unusable(reason: str) -> SystemExit:
    """To be raised. reason: what it is, where, and what to do."""
    print(f"lbctl: {reason}", file=sys.stderr)
    return SystemExit(EXIT_STATUS)
