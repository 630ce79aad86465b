"""The shell of a node, in which a lab runs its commands: how it starts, and what is said if something cannot."""

from __future__ import annotations

import select
from collections.abc import Iterable
from pathlib import Path

from topologies import programs
from topologies.emulator import Node
from topologies.rundir import LabError
from topologies.steps import step

PROMPT = chr(127)
"""Of a node's shell, by Mininet's choice."""

PLAIN = "; ".join(f'{tool}() {{ command {tool} -color=never "$@"; }}' for tool in ("ip", "bridge", "tc"))
"""Shell functions: a node's shell is on a terminal, where newer iproute2 colours what it says."""


def checked(node: Node, *commands: str) -> None:
    """Run shell commands in `node`, up to the first that fails. Raises LabError with that one and what it said.

    It does so as well if one has no end (see `step`).
    """
    programs.check_script(" && ".join(commands))
    steps = " && ".join(f"{{ at={number}; {command}; }}" for number, command in enumerate(commands))
    with step(node.name):
        *said, ended = node.cmd(f"{steps}; status=$?; echo; echo $at $status").strip().splitlines()
    number, status = ended.split()
    if status != "0":
        command = commands[int(number)]
        raise LabError(f"{node.name}: `{command}` failed with status {status}: {in_one_line(said)}. {remedy(command)}")


class LabNode(Node):
    """A node of Mininet that does not wait for ever for a shell that cannot start."""

    _starting = False

    def startShell(self, mnopts: str | None = None) -> None:  # noqa: N802 (Mininet's name)
        with step(f"{self.name}: the start of its shell by mnexec"):
            self._starting = True
            super().startShell(mnopts)
            self.cmd(PLAIN)

    def read(self, size: int = 1024) -> str:
        """While the shell starts: all that it says up to its first prompt. Raises LabError if it ends before that."""
        if not self._starting:
            return super().read(size)
        said = ""
        while not said.endswith(PROMPT):
            if select.select([self.stdout], [], [], 0.1)[0]:  # pollOut also tells that one may write
                said += super().read(size)
            elif self.shell is not None and self.shell.poll() is not None:
                ended = f"mnexec could not start its shell (status {self.shell.returncode})"
                raise LabError(f"{self.name}: {ended}: {_mnexec_said(said)}")
        self._starting = False
        return said


def _mnexec_said(text: str) -> str:
    """With what helps."""
    said = in_one_line(text.splitlines())
    if "mount" in said:
        return (
            f"{said}. It can start one only where / is a mount point of its own, which a plain chroot is not "
            "(`findmnt /` tells): enter that root by pivot_root, as scripts/fresh-machine.sh does"
        )
    return f"{said}. {remedy('mnexec')}"


def in_one_line(said: Iterable[str]) -> str:
    """What a program has said."""
    return "; ".join(line.strip() for line in said if line.strip()).rstrip(".") or "it said nothing"


def remedy(command: str) -> str:
    """What to do if the program itself is to blame, which `command` names."""
    named = [program for word in command.split() if (program := programs.declared().get(Path(word).name))]
    program = next(
        (program for program in named if program.name not in programs.LAUNCHERS), named[-1] if named else None
    )
    if program is None:
        return "Does this work here when you type it?"
    return f"If {program.name} itself is broken: apt-get install --reinstall {program.package}"
