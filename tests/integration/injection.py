"""The test's end of injected_loads.py: it says what the external IPs carry."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.bed.bed import Bed

APP = "tests/integration/injected_loads.py"
LOADS, READ = "loads.json", "loads-read"
"""Files beside the controller's directory."""
Rates = Mapping[str, float]
"""External IP -> packets a second."""


class Injection:
    """For a bed whose controller is to run with it: `rates` are what it finds at first."""

    def __init__(self, bed: Bed, rates: Rates) -> None:
        self._bed = bed
        self._number = 0
        self.say(rates)

    def say(self, *periods: Rates) -> None:
        """From now on: these rates in one period of measuring after the other. The last ones stay."""
        self._number += 1
        new = self._bed.directory / f"{LOADS}.new"
        new.write_text(json.dumps({"number": self._number, "periods": periods}))
        new.rename(self._bed.directory / LOADS)

    def wait(self, periods: int) -> None:
        """Until so many periods have been measured since it was last said what they carry."""
        seconds = periods * self._bed.site.settings.load_period
        self._bed.wait_until(lambda: self._measured() >= periods, 2 * seconds + 2, f"{periods} periods measured")

    def _measured(self) -> int:
        file = self._bed.directory / READ
        number, periods = map(int, file.read_text().split()) if file.exists() else (0, 0)
        return periods if number == self._number else 0
