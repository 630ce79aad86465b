"""A program that makes traffic inside a machine of a lab, seen by who starts it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from topologies.controller import CHECKOUT
from topologies.lab import Lab
from topologies.rundir import LabError

START = 20.0
"""Seconds within which a program must say that it is ready."""


class Program:
    """A module of this checkout that runs in a machine. A context manager: ready when entered, ended when left.

    The module prints the line `ready` when it has started, and at the end its result as one line of JSON.
    """

    def __init__(self, lab: Lab, machine: str, module: str, arguments: tuple[object, ...]) -> None:
        self.name = f"{module.rpartition('.')[2]} on {machine}"
        self._lab, self._machine = lab, machine
        self._command = [sys.executable, "-m", module, *map(str, arguments)]

    def __enter__(self) -> Program:
        self._errors: Path = self._lab.directory.path / f"{self.name.replace(' ', '-')}.log"
        with self._errors.open("w") as errors:
            self._process = self._lab[self._machine].popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=CHECKOUT
            )
        try:
            if self._line(START) != "ready":
                self._fail("did not get its traffic going")
        except BaseException:
            self._process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def check(self) -> None:
        """Raises LabError if it has ended."""
        if self._process.poll() is not None:
            self._fail("ended by itself")

    def tell(self, line: str) -> None:
        """Write a line to its standard input. Raises LabError if it has ended."""
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError:
            self._fail("ended by itself")

    def end(self) -> None:
        """End its standard input, which tells it to end."""
        assert self._process.stdin
        self._process.stdin.close()

    def result(self, timeout: float) -> Mapping[str, Any]:
        """What it found. Raises LabError if there is nothing within so many seconds."""
        try:
            found: Mapping[str, Any] = json.loads(self._line(timeout))
        except ValueError:
            self._fail("has given no result")
        return found

    def _line(self, timeout: float) -> str:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], max(0.0, timeout))[0]:
            self._fail(f"says nothing for {timeout:.0f} s")
        line: bytes = self._process.stdout.readline()
        return line.decode().strip()

    def _fail(self, what: str) -> NoReturn:
        said = self._errors.read_text(errors="replace").strip().splitlines()[-5:]
        raise LabError(f"{self.name} {what}: {' / '.join(said) or 'no reason given'}")
