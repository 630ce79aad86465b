"""The record of one run of an experiment or a benchmark, as it is kept in a JSON file and shown in docs/.

A table holds the texts as they are shown. Each of its rows also holds the figures that the texts were made of, with the
value of every run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

MEASURED = "measured"
"""The source of a record that a run has written."""
TRANSCRIBED = "before JSON files were kept"
"""The source of a record whose figures were taken over from an older document: it has texts only."""


class UnreadableRecord(ValueError):
    """A file is no record; the message says which file, and what is wrong with it."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Value):
    """One quantity that was measured. `values`: one for each run, in order; None where it never came to an end."""

    unit: str
    median: float | None
    values: tuple[float | None, ...]

    @model_validator(mode="after")
    def _median_is_of_these_values(self) -> Self:
        if self.median != _finite(statistics.median(_number(value) for value in self.values)):
            raise ValueError(f"{self.median} is not the median of {self.values}")
        return self


def figure(unit: str, values: Iterable[float]) -> Figure:
    """The figure of these values, of which there must be one. Infinite ones are those that never came to an end."""
    numbers = [float(value) for value in values]
    return Figure(unit=unit, median=_finite(statistics.median(numbers)), values=tuple(map(_finite, numbers)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.inf if value is None else value


class Row(_Value):
    """`cells`: the texts, one for each column. `figures`: by name, what they were made of."""

    cells: tuple[str, ...]
    figures: dict[str, Figure] = {}


class Table(_Value):
    """A table with as many cells in each row as there are columns."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _every_row_has_every_column(self) -> Self:
        if short := [row.cells for row in self.rows if len(row.cells) != len(self.columns)]:
            raise ValueError(f"the row {short[0]} does not have the columns {self.columns}")
        return self


class Machine(_Value):
    """What a run was made on. `memory`: in bytes. Empty or None: not known, as of an old record."""

    cpu: str = ""
    cores: int
    memory: int | None = None
    kernel: str


class Record(_Value):
    """One run. `modified`: whether files of the checkout differed from the commit; `seconds`: how long it took.

    `others`: the largest share of the machine's processor time (0 to 1) that other work took meanwhile. `runs`: how
    many runs the medians are of. `passed`: whether every target was met. `pictures`: names of files that lie beside the
    JSON file, and in docs/. None: not known, or it does not apply.
    """

    name: str
    command: str
    source: str = MEASURED
    date: datetime
    commit: str
    modified: bool | None
    seconds: float | None
    machine: Machine
    versions: dict[str, str]
    others: float | None
    runs: int | None
    passed: bool | None
    tables: dict[str, Table]
    notes: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        return f"{self.name}.json"

    def write(self, directory: Path) -> Path:
        """Write NAME.json into the directory, which is made if need be; returns the file."""
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / self.file_name
        file.write_text(self.model_dump_json(indent=1) + "\n")
        return file


def read(file: Path) -> Record:
    """The record in a file. Raises UnreadableRecord."""
    try:
        record = Record.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UnreadableRecord(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        [problem, *_] = error.errors()
        place = ".".join(map(str, problem["loc"])) or "the file"
        raise UnreadableRecord(f"{file} is no record of a run: {place}: {problem['msg']}") from error
    if file.name != record.file_name:
        raise UnreadableRecord(f"{file} holds the record of {record.name}: it must be called {record.file_name}")
    return record
