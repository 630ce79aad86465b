"""The one place that starts other programs, for labs, tests and the evaluation.

It starts what requirements/programs.list declares, which scripts/install.sh installs, and the programs of this Python's
environment and of the checkout. Anything else is refused, on every machine, whether it happens to be installed or not.
A program behind others (`ip netns exec NAME`, `nice -n -10`, `sh -c '...'`) is looked at as well.
"""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
DECLARATIONS = CHECKOUT / "requirements" / "programs.list"
PURPOSES = ("labs", "tests", "evaluation")
OURS = {"lbctl", "ryu-manager"}
"""Programs that the Python packages bring, which may be installed elsewhere."""

LAUNCHERS = {"mnexec", "nice", "setpriv", "unshare"}
"""They start the command that follows their options."""
WITH_VALUE = {"-a", "-n", "--pdeathsig", "--reuid"}
"""Those of their options that have a value."""
SHELLS = {"sh", "bash"}
SEPARATORS = {";", "&", "&&", "|", "||", "(", ")", ";;"}
RESERVED = {"{", "}", "!", "do", "done", "else", "fi", "if", "then", "while"}
"""Words of the shell's grammar that a command may follow."""
BUILT_IN = set(". : [ cd echo exit export false for printf read set test true wait".split())
"""Commands that the shell carries out itself."""


class UndeclaredProgram(RuntimeError):
    """A program that no declaration names was to be started; the message says where to declare it."""


@dataclass(frozen=True)
class Program:
    """A declared program: its name, the Debian package that has it, and what it is for (one of PURPOSES)."""

    name: str
    package: str
    purpose: str
    is_service: bool = False


@functools.cache
def declared() -> dict[str, Program]:
    """All declared programs by name. Raises ValueError for a line that is none."""
    found: dict[str, Program] = {}
    for number, line in enumerate(DECLARATIONS.read_text().splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        right = len(words) > 2 and words[2] in PURPOSES and words[3:] in ([], ["service"])
        if not right or words[0] in found:
            raise ValueError(f"{DECLARATIONS}:{number}: `program package {'|'.join(PURPOSES)} [service]`, each once")
        found[words[0]] = Program(words[0], words[1], words[2], len(words) == 4)
    return found


def missing(*names: str) -> list[str]:
    """The packages of those programs that are not installed; without names, of all that a lab needs.

    Raises UndeclaredProgram.
    """
    check_names(names)
    wanted = [declared()[name] for name in names] or [one for one in declared().values() if one.purpose == "labs"]
    return sorted({program.package for program in wanted if shutil.which(program.name) is None})


def run(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """subprocess.run of a command of declared programs, as text unless `options` say otherwise.

    Raises UndeclaredProgram, and whatever subprocess.run does.
    """
    return subprocess.run(_checked(command), **{"text": True, **options})


def popen(command: Sequence[object], **options: Any) -> subprocess.Popen[str]:
    """subprocess.Popen of a command of declared programs, as text unless `options` say otherwise.

    Raises UndeclaredProgram, and whatever subprocess.Popen does.
    """
    return subprocess.Popen(_checked(command), **{"text": True, **options})


def check(command: Sequence[object]) -> None:
    """Raises UndeclaredProgram for a command with a program that is not declared."""
    check_names(_programs([str(word) for word in command]))


def check_script(script: str) -> None:
    """The same for a text that a shell will read. It knows simple commands, not all of the shell's grammar."""
    check_names(_programs_of_script(script))


def check_names(names: Sequence[str] | Iterator[str]) -> None:
    """Raises UndeclaredProgram for the first of these programs (names or paths) that is neither declared nor our own.
    """
    for name in names:
        if not _is_ours(name) and Path(name).name not in declared():
            raise UndeclaredProgram(
                f"{name} is not declared: add a line for it to requirements/programs.list, "
                "with the Debian package that has it"
            )


def _checked(command: Sequence[object]) -> list[str]:
    words = [str(word) for word in command]
    check(words)
    return words


def _is_ours(name: str) -> bool:
    """Is it of this Python's environment, or a file of the checkout?"""
    environment = Path(sys.executable).parent
    path = Path(name)
    if path.name in OURS or "/" not in name:
        return path.name in OURS
    return path == Path(sys.executable) or path.parent == environment or CHECKOUT in path.absolute().parents


def _programs(words: list[str]) -> Iterator[str]:
    """Names of the programs that a command starts, those behind launchers and in shell scripts included."""
    while words:
        program, *rest = words
        yield program
        name = Path(program).name
        if name in SHELLS and rest[:1] == ["-c"] and len(rest) > 1:
            yield from _programs_of_script(rest[1])
            words = rest[3:] if '"$@"' in rest[1] else []
        elif name == "ip" and rest[:2] == ["netns", "exec"]:
            words = rest[3:]
        elif name in LAUNCHERS:
            words = _after_options(rest)
        else:
            return


def _after_options(words: list[str]) -> list[str]:
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in WITH_VALUE else 1
    return words[at:]


def _programs_of_script(script: str) -> Iterator[str]:
    lexer = shlex.shlex(script.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS:
            command.append(word)
            continue
        command = _without_grammar(command)
        if command and command[0] not in BUILT_IN and "$" not in command[0]:
            yield from _programs(command)
        command = []


def _without_grammar(command: list[str]) -> list[str]:
    """Without reserved words, `exec` and assignments before the command."""
    at = 0
    while at < len(command) and (command[at] in {*RESERVED, "exec"} or "=" in command[at].partition("/")[0]):
        at += 1
    return command[at:]
