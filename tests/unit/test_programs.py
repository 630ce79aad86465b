"""Other programs are started in one place, which knows them all: a test run needs nothing that nobody installs."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from topologies import programs
from topologies.programs import CHECKOUT, UndeclaredProgram

STARTS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "posix_spawn", "posix_spawnp",
           *(f"{verb}{how}" for verb in ("exec", "spawn") for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe"))},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "pty": {"spawn"},
}
FOLDERS = ("lbctl", "ryu_apps", "topologies", "evaluation", "tests", "docs")
THE_PLACE = "topologies/programs.py"
PRODUCT = ("lbctl/", "ryu_apps/")
"""It starts programs, too, and knows nothing of the labs' place for that; they are declared as well."""


class Found(NamedTuple):
    """A call that starts a program, or an import of what does; `words`: what a literal command begins with."""

    file: str
    line: int
    by_name: bool
    words: tuple[object, ...] = ()


@functools.cache
def found() -> tuple[Found, ...]:
    """All of them, in our Python files."""
    files = [path for folder in FOLDERS for path in sorted((CHECKOUT / folder).rglob("*.py"))]
    return tuple(one for path in files for one in found_in(path))


def found_in(path: Path) -> Iterator[Found]:
    name = str(path.relative_to(CHECKOUT))
    for node in ast.walk(ast.parse(path.read_text(), name)):
        match node:
            case ast.ImportFrom(module=str(module)) if {alias.name for alias in node.names} & STARTS.get(module, set()):
                yield Found(name, node.lineno, True)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="namespace"), attr="run")) if name.startswith(PRODUCT):
                yield Found(name, node.lineno, False, constants(node.args))  # lbctl/cli/namespace.py
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=attr)) if attr in STARTS.get(module, ()):
                literal = node.args[0].elts if node.args and isinstance(node.args[0], ast.List) else ()
                yield Found(name, node.lineno, False, constants(literal))


def constants(items: Sequence[ast.expr]) -> tuple[object, ...]:
    return tuple(item.value for item in items if isinstance(item, ast.Constant))


def test_programs_are_started_in_one_place_only() -> None:
    outside = [one for one in found() if one.file != THE_PLACE and not one.file.startswith(PRODUCT)]
    assert [f"{one.file}:{one.line}" for one in outside] == []
    assert len(found()) > len(outside), "else this test sees nothing"


def test_what_the_product_starts_is_declared_too() -> None:
    """lbctl doctor runs them by `namespace.run`, which takes a command's words one by one."""
    named = {name for path in (CHECKOUT / "lbctl" / "cli").rglob("*.py")
             for name in re.findall(r'namespace\.run\("([\w-]+)"', path.read_text())}
    assert "ethtool" in named, "else this test sees nothing"
    programs.check_names(sorted(named))
    assert {"ovs-vsctl", "ovs-appctl", "ovs-ofctl"} <= programs.declared().keys(), "lbctl/cli/ovs.py starts these"
    assert "nsenter" in programs.declared(), "lbctl/cli/namespace.py starts it"


def test_nothing_that_starts_programs_is_imported_by_name() -> None:
    """Or the tests above would not see it."""
    assert [f"{one.file}:{one.line}" for one in found() if one.by_name] == []


@pytest.mark.parametrize("command", [
    ["nmap", "-v"],
    ["/usr/bin/nmap"],
    ["ip", "netns", "exec", "somewhere", "nmap"],
    ["nice", "-n", "-15", "mnexec", "-a", "77", "nmap"],
    ["setpriv", "--pdeathsig", "INT", "unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", "nmap"],
    ["sh", "-c", "ping -c1 198.51.100.1; nmap -v"],
    ["sh", "-c", "for n in 1 2; do echo $n | nmap; done"],
    ["sh", "-c", "ip link || LANG=C nmap"],
    ["bash", "-c", "echo 1\nnmap"],
], ids=" ".join)
def test_an_undeclared_program_is_refused_wherever_it_hides(command: list[str]) -> None:
    with pytest.raises(
        UndeclaredProgram, match="nmap is not declared: add a line for it to requirements/programs.list"
    ):
        programs.popen(command)


@pytest.mark.parametrize("command", [
    ["ip", "-n", "nmap", "link"],
    ["ip", "netns", "add", "nmap"],
    [sys.executable, "-m", "nmap"],
    [Path(sys.executable).parent / "lbctl", "status"],
    [CHECKOUT / "test.sh"],
    ["nice", "-n", "-10", "ryu-manager"],
    ["sh", "-c", "if test -e nmap; then echo nmap; fi; printf '%s\\n' nmap | sleep 1 2>/dev/null"],
], ids=lambda command: " ".join(map(str, command)))
def test_declared_programs_and_our_own_pass(command: list[object]) -> None:
    programs.check(command)


def test_run_and_popen_are_those_of_subprocess() -> None:
    assert programs.run(["sh", "-c", "echo one; exit 3"], capture_output=True).returncode == 3
    with programs.popen(["sh", "-c", "echo one"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.read() == "one\n"


def test_all_that_is_declared_is_installed() -> None:
    """test.sh has done it."""
    assert programs.missing(*programs.declared()) == []


def test_a_lab_asks_for_the_programs_of_labs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    wanted = {program.package for program in programs.declared().values() if program.purpose == "labs"}
    assert set(programs.missing()) == wanted and "keepalived" not in wanted
    assert programs.missing("keepalived", "nft") == ["keepalived", "nftables"]


@pytest.mark.parametrize("line", ["nmap nmap", "nmap nmap labs often", "nmap nmap fun", "nmap nmap labs service 2"])
def test_a_line_that_says_too_little_or_too_much(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "programs.list"
    file.write_text(f"# nothing\n\n{line}\n")
    monkeypatch.setattr(programs, "DECLARATIONS", file)
    with pytest.raises(ValueError, match=r"programs.list:3: "):
        programs.declared.__wrapped__()


def test_the_installation_reads_the_same_declarations() -> None:
    script = ". scripts/install.sh; programs_and_packages; echo; quiet_packages"
    said = programs.run(["bash"], input=script, cwd=CHECKOUT, capture_output=True, check=True).stdout
    installed, _, quiet = said.partition("\n\n")
    declared = programs.declared().values()
    assert installed.splitlines() == [f"{program.name} {program.package}" for program in declared]
    assert quiet.splitlines() == [program.package for program in declared if program.is_service]
