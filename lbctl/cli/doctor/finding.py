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
    """what: one sentence. mend: the command, or the deed, that mends it; None if there is nothing to mend.

    keep: what makes that outlive a restart of the machine; None if there is nothing to do for it, as with ovs-vsctl.
    """

    level: Level
    what: str
    mend: str | None = None
    keep: str | None = None


def ok(what: str) -> Finding:
    return Finding(Level.OK, what)


def warn(what: str, mend: str, keep: str | None = None) -> Finding:
    return Finding(Level.WARN, what, mend, keep)


def fail(what: str, mend: str) -> Finding:
    return Finding(Level.FAIL, what, mend)


def keep_sysctl(**values: int) -> str:
    """The command that sets these at every start of the machine; `__` stands for a dot."""
    lines = "\\n".join(f"{name.replace('__', '.')} = {value}" for name, value in values.items())
    return (
        f"printf '{lines}\\n' >/etc/sysctl.d/60-lbctl-{next(iter(values)).rpartition('__')[2].replace('_', '-')}.conf"
    )
