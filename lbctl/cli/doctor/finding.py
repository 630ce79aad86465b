"""What a check of `lbctl doctor` finds."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """what: one sentence. mend: the command, or the deed, that mends it; None if there is nothing to mend."""

    level: Level
    what: str
    mend: str | None = None


def ok(what: str) -> Finding:
    return Finding(Level.OK, what)


def warn(what: str, mend: str) -> Finding:
    return Finding(Level.WARN, what, mend)


def fail(what: str, mend: str) -> Finding:
    return Finding(Level.FAIL, what, mend)
