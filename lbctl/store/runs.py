"""How the last controllers ended: one that ends soon after each start, without being told to, is in a crash loop. It is
slowed, so that what leads to it does not come ever faster, and told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

SHORT = 30.0
"""Seconds: a controller that has been started again within so long has ended soon."""
FREE = 3
"""Times in a row that one may end soon before the next one waits."""
LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """began: seconds since the epoch, after it had waited. crashes: how many in a row had ended soon before it. told:
    it has been told to end."""

    began: float
    crashes: int = 0
    told: bool = False

    def next(self, now: float) -> Run:
        """One that starts now."""
        soon = 0 <= now - self.began < SHORT and not self.told
        return Run(now, self.crashes + 1 if soon else 0)

    @property
    def wait(self) -> float:
        """Seconds that it shall wait before it begins: 1, 2, 4 and so on."""
        return min(2.0 ** (self.crashes - FREE), LONGEST_WAIT) if self.crashes >= FREE else 0.0


class Runs:
    """The last run, in a file. One that can't be read or written is as if there were none: nothing depends on it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> Run:
        try:
            found = json.loads(self._path.read_text())
            return Run(float(found["began"]), int(found["crashes"]), bool(found["told"]))
        except (OSError, ValueError, TypeError, LookupError):
            return Run(float("-inf"))

    def write(self, run: Run) -> None:
        text = json.dumps({"began": run.began, "crashes": run.crashes, "told": run.told})
        try:
            self._path.write_text(text + "\n")
        except OSError:
            pass
