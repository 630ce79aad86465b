"""The Open vSwitches of this machine, through their own tools. Mostly it is one; in a lab each load balancer has its
own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer

from lbctl.cli.failure import Failure
from lbctl.cli.namespace import NetworkNamespace

Rundirs = Annotated[
    list[str] | None,
    typer.Option(
        "--ovs-rundir",
        metavar="DIR",
        help="Where Open vSwitch's sockets are, if not in OVS_RUNDIR or the usual place; once for each, "
        "where there are several.",
    ),
]

TIMEOUT = 15
"""Seconds that a tool may take."""


class Ovs:
    """`rundir` is where its sockets are (None: OVS_RUNDIR, else the tools' default)."""

    def __init__(self, rundir: str | None = None) -> None:
        self._environment = dict(os.environ) | ({"OVS_RUNDIR": os.path.abspath(rundir)} if rundir else {})
        self.rundir = self._environment.get("OVS_RUNDIR", "/var/run/openvswitch")

    @classmethod
    def all_in(cls, rundirs: list[str] | None) -> list[Ovs]:
        """One for each directory; without any, the one that the environment names or the tools take."""
        return [cls(rundir) for rundir in rundirs] if rundirs else [cls()]

    @cached_property
    def namespace(self) -> NetworkNamespace:
        """Where it runs, and so where its ports are; this command's own if it does not run."""
        return NetworkNamespace(self._pid("ovs-vswitchd") or self._pid("ovsdb-server"))

    @cached_property
    def version(self) -> tuple[int, int] | None:
        """Such as (3, 1), of the daemon that runs; None if it can't be told."""
        match = re.search(r"(\d+)\.(\d+)", self.appctl("version"))
        return (int(match[1]), int(match[2])) if match else None

    @staticmethod
    def missing_tools() -> list[str]:
        return [tool for tool in ("ovs-vsctl", "ovs-appctl", "ovs-ofctl") if shutil.which(tool) is None]

    def vsctl(self, *args: str) -> str:
        return self._run("ovs-vsctl", f"--timeout={TIMEOUT}", "--no-wait", *args)

    def appctl(self, *args: str) -> str:
        return self._run("ovs-appctl", f"--timeout={TIMEOUT}", "-t", "ovs-vswitchd", *args)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a database table; sets as lists (one value: that value), maps as dicts, references as UUID
        text."""
        answer = json.loads(self.vsctl("--format=json", "list", table))
        return [dict(zip(answer["headings"], map(_value, row), strict=True)) for row in answer["data"]]

    def bridge_of(self, dpid: str) -> str | None:
        """The bridge with that datapath id (16 hexadecimal digits)."""
        return next((row["name"] for row in self.rows("Bridge") if row["datapath_id"] == dpid), None)

    def _pid(self, daemon: str) -> int | None:
        try:
            return int(Path(self.rundir, f"{daemon}.pid").read_text())
        except (OSError, ValueError):
            return None

    def _run(self, *command: str) -> str:
        """Raises Failure with what the tool said."""
        try:
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT + 5)
        except FileNotFoundError:
            raise Failure(f"{command[0]} is not installed here: apt-get install openvswitch-switch, or run this on the "
                          "load balancer's host.") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failure(f"{command[0]} failed: {error}.") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise Failure(f"{' '.join(command)} failed: {'; '.join(said) or 'it said nothing'}. Does Open vSwitch run, "
                          f"with its sockets in {self.rundir} (OVS_RUNDIR), and are you root?")
        return done.stdout


def _value(value: Any) -> Any:
    """From OVSDB's JSON (RFC 7047, 5.1)."""
    match value:
        case ["set", items]:
            return [_value(item) for item in items]
        case ["map", pairs]:
            return {_value(key): _value(item) for key, item in pairs}
        case ["uuid", uuid]:
            return uuid
    return value


def as_list(value: Any) -> list[Any]:
    """A column that holds any number of values: OVSDB writes one value as itself."""
    return value if isinstance(value, list) else [value]
