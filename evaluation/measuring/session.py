"""A run from its beginning to its record: when, on what machine, from which commit, and beside how much other work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from evaluation.measuring.findings import Findings
from evaluation.measuring.machine import commit, machine, versions
from evaluation.measuring.others import Watch
from evaluation.measuring.record import Record


class Session:
    """Begins when it is made. `arguments`: what stood on the command line after the name."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self._name = name
        self._command = " ".join(("python -m evaluation", name, *_without_folder(arguments)))
        self._date, self._began = datetime.now(UTC).replace(microsecond=0), time.monotonic()
        self._watch = Watch()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def record(self, findings: Findings) -> Record:
        """The record of this run, which ends now."""
        checkout = commit()
        shares = [share for share in (findings.others, self._watch.share()) if share is not None]
        return Record(
            name=self._name,
            command=self._command,
            date=self._date,
            seconds=round(self.seconds, 1),
            commit=checkout.name,
            modified=checkout.modified,
            machine=machine(),
            versions=versions(),
            others=round(max(shares), 4),
            runs=findings.runs,
            passed=findings.passed,
            tables=dict(findings.tables),
            notes=findings.notes,
            pictures=findings.pictures,
        )


def _without_folder(arguments: Sequence[str]) -> list[str]:
    """All but `--out DIR`: where the results go is nothing that they depend on."""
    kept, given = [], iter(arguments)
    for argument in given:
        if argument == "--out":
            next(given, None)
        elif not argument.startswith("--out="):
            kept.append(argument)
    return kept
