"""What lbctl asks of Ryu or os-ken (ryu_apps/library/names.pyi): the library that is installed has all of it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ryu_apps.library import names, options
from topologies import programs

assert options.CONF is names.cfg.CONF, "the options are declared as soon as their module is imported"

CHECKOUT = Path(__file__).resolve().parents[2]
DECLARED = Path(names.__file__).with_suffix(".pyi")


def declared() -> Iterator[tuple[str, str | None]]:
    """(name, member or None) of all that is declared; of a Protocol not its own name, but that of what has this type.
    """
    body = ast.parse(DECLARED.read_text()).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, None
        elif isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
            yield node.name, None
            yield from ((node.name, member.name) for member in node.body if isinstance(member, ast.FunctionDef))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, None
            kind = node.annotation.id if isinstance(node.annotation, ast.Name) else ""
            for member in classes[kind].body if kind in classes else ():
                if isinstance(member, ast.FunctionDef):
                    yield node.target.id, member.name
                elif isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                    yield node.target.id, member.target.id


@pytest.mark.parametrize(("name", "member"), list(declared()))
def test_the_library_has_what_is_declared(name: str, member: str | None) -> None:
    assert hasattr(names, name)
    assert member is None or hasattr(getattr(names, name), member)


def test_what_is_imported_is_what_is_declared() -> None:
    assert set(names.__all__) == {name for name, _ in declared()}


def test_nothing_in_the_process_blocks_it() -> None:
    """Where the standard library is not patched, everything works, until somebody waits."""
    command = ("from eventlet.patcher import is_monkey_patched; from tests.bed.switch_library import main_function; "
               "main_function(); names = ('os', 'select', 'socket', 'thread', 'time'); "
               "print([name for name in names if not is_monkey_patched(name)])")
    done = programs.run([sys.executable, "-c", command], cwd=CHECKOUT, capture_output=True, check=True)
    assert done.stdout == "[]\n"
