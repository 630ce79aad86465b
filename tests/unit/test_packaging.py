"""The rules that hold the parts apart, and what the installation promises."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import lbctl
from topologies import programs

CHECKOUT = Path(__file__).resolve().parents[2]
REQUIREMENTS = sorted((CHECKOUT / "requirements").glob("*.txt"))
MODULES = sorted(
    path
    for folder in ("lbctl", "ryu_apps", "topologies", "evaluation", "tests/bed")
    for path in (CHECKOUT / folder).rglob("*.py")
)
SHELL_ONLY = {"ryu", "eventlet", "os_ken"}
OURS_OUTSIDE_LBCTL = {"ryu_apps", "topologies", "evaluation", "tests"}
MAXIMUM_LINES = 400
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*(; python_version [<>]=? \"3\.\d+\")?")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, (node.module or "").partition(".")[0]


def offences(folder: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(CHECKOUT)}:{line}: imports {name}"
        for path in MODULES
        if path.is_relative_to(CHECKOUT / folder)
        for line, name in imported(path)
        if name in forbidden
    ]


def pins(path: Path) -> dict[str, str]:
    """Normalised name -> version of a requirements file; environment markers are left out."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    pairs = (line.partition(";")[0].strip().split("==") for line in lines if line)
    return {normal(name): pinned for name, pinned in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lbctl_imports_neither_ryu_nor_eventlet_nor_what_lies_outside_it() -> None:
    assert offences("lbctl", SHELL_ONLY | OURS_OUTSIDE_LBCTL) == []


def test_ryu_apps_import_no_other_folder_than_lbctl() -> None:
    assert offences("ryu_apps", OURS_OUTSIDE_LBCTL - {"ryu_apps"}) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_long_module_says_why(path: Path) -> None:
    source = path.read_text()
    lines = len(source.splitlines())
    docstring = ast.get_docstring(ast.parse(source)) or ""
    assert lines <= MAXIMUM_LINES or "lines because" in docstring, (
        f"{path} has {lines} lines: cut it, or say in its docstring that it has so many 'lines because ...'"
    )


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_requirements_are_pins_and_nothing_else(path: Path) -> None:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    assert [line for line in lines if line and not PIN.fullmatch(line)] == []


def test_no_package_is_pinned_twice() -> None:
    names = [name for path in REQUIREMENTS for name in pins(path)]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    "path", [path for path in REQUIREMENTS if path.name != "os-ken.txt"], ids=lambda path: path.name
)
def test_this_environment_is_the_pinned_one(path: Path) -> None:
    skipped = set() if sys.version_info >= (3, 13) else {"legacy-cgi"}
    pinned = {name: wanted for name, wanted in pins(path).items() if name not in skipped}
    assert {name: version(name) for name in pinned} == pinned


def test_the_pins_satisfy_each_other_except_for_ryus_eventlet() -> None:
    """Conflicts of what else may be installed in this environment are no business of ours."""
    result = programs.run([sys.executable, "-m", "pip", "check"], capture_output=True, check=False)
    pinned = {name for path in REQUIREMENTS for name in pins(path)}
    assert result.returncode in (0, 1), result.stderr
    assert [line for line in result.stdout.splitlines() if normal(line.partition(" ")[0]) in pinned] == [
        "c65ryu 5.0.0 has requirement eventlet==0.32.0, but you have eventlet 0.41.3."
    ]


def test_the_pinned_versions_satisfy_what_lbctl_declares() -> None:
    declared = {normal(re.split(r"[<>=;\[ ]", line)[0]) for line in requires("lbctl") or () if "extra" not in line}
    assert declared <= set(pins(CHECKOUT / "requirements" / "base.txt"))


def test_the_command_is_installed_with_the_version_of_the_library() -> None:
    (command,) = entry_points(group="console_scripts", name="lbctl")
    assert (command.value, version("lbctl")) == ("lbctl.cli.main:app", lbctl.__version__)


def test_the_sample_configuration_names_a_site_file_that_is_there() -> None:
    configuration = configparser.ConfigParser()
    configuration.read(CHECKOUT / "lbctl.conf")
    assert (CHECKOUT / configuration["lbctl"]["site"]).is_file()
    assert configuration["DEFAULT"]["wsapi_host"] == "127.0.0.1"


@pytest.mark.parametrize("script", ["demo.sh", "test.sh", "scripts/install.sh", "scripts/fresh-machine.sh", ".ci/run"])
def test_shell_scripts_parse(script: str) -> None:
    programs.run(["bash", "-n", CHECKOUT / script], check=True)


@pytest.fixture
def readable_copy() -> Iterator[Path]:
    """The two commands in a folder that everyone may read: the checkout may be in root's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("scripts", "requirements"):
            shutil.copytree(CHECKOUT / part, folder / part)
        for script in ("demo.sh", "test.sh"):
            shutil.copy(CHECKOUT / script, folder)
        yield folder


@pytest.mark.parametrize("script", ["demo.sh", "test.sh"])
def test_the_two_commands_refuse_anyone_but_root_in_one_line(script: str, readable_copy: Path) -> None:
    command = ["setpriv", "--reuid", "65534", "--clear-groups", "bash", readable_copy / script]
    result = programs.run(command, capture_output=True, check=False, timeout=30)
    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"lbctl: this needs root .*\n", result.stderr)


def test_a_fresh_machine_needs_root_and_a_release(readable_copy: Path) -> None:
    """125 says that there is no such machine: .ci/run goes by it."""
    script = readable_copy / "scripts" / "fresh-machine.sh"
    nobody = ["setpriv", "--reuid", "65534", "--clear-groups", "bash", script, "12"]
    refused = programs.run(nobody, capture_output=True, check=False, timeout=30)
    assert refused.returncode == 125 and refused.stdout == ""
    assert refused.stderr == "lbctl: no fresh machine: this needs root: run it with sudo\n"
    misused = programs.run(["bash", script, "11"], capture_output=True, check=False, timeout=30)
    assert (misused.returncode, misused.stderr) == (2, "usage: scripts/fresh-machine.sh [--keep] 12|13 [COMMAND...]\n")
