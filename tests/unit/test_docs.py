"""The documents say what is there: generated ones are current, links lead somewhere, named files and tests exist."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from lbctl.openflow import tries

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FOLDERS = "lbctl|ryu_apps|tests|topologies|evaluation|docs|examples|requirements|scripts"

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
IN_CHECKOUT = re.compile(rf"(?:{FOLDERS})/[\w./-]*")


def documented(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def text_outside_code_blocks(document: Path) -> str:
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def headings(document: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text_outside_code_blocks(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def generator(name: str) -> ModuleType:
    """The script of that name in docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_pipeline_is_current() -> None:
    made = generator("generate_pipeline").document()
    assert made == documented("pipeline.md"), "run: python docs/generate_pipeline.py"


def test_the_command_for_prefix_trees_is_current() -> None:
    words = documented("ipv6.md").replace("\\\n", "").split()
    told = words[words.index("ovs-vsctl") + 1:]
    assert told[:len(tries.command("lb-a"))] == tries.command("lb-a")


def test_drops_are_current() -> None:
    assert generator("generate_drops").document() == documented("drops.md"), "run: python docs/generate_drops.py"


def test_slices_are_current() -> None:
    text = documented("slices.md")
    assert generator("generate_slices").filled(text) == text, "run: python docs/generate_slices.py"


def test_architecture_is_current() -> None:
    """The rooms and their order are those of the contract, and each stop of the four walks is there."""
    text = documented("architecture.md")
    assert generator("generate_architecture").filled(text) == text, "run: python docs/generate_architecture.py"


def test_the_walks_are_as_long_as_they_say() -> None:
    """And none is empty; a stop that is not there is an error."""
    architecture, text = generator("generate_architecture"), documented("architecture.md")
    walks = architecture.walks(text)
    assert walks.keys() == architecture.BEFORE.keys() and all(walks.values())
    with pytest.raises(ValueError, match="there is no Switch.rule in lbctl/switches/switch.py"):
        architecture.walks(text.replace("`Switch.role`", "`Switch.rule`", 1))


def test_every_room_has_a_place_where_changes_go() -> None:
    """Of the rooms that decide or talk to something; what is below them is words, and what stands in the table
    besides is there."""
    rows = documented("architecture.md").partition("## Where a change of each kind goes")[2].partition("\n## ")[0]
    named = set(re.findall(r"`lbctl/(\w+)/", rows))
    rooms = {room for line in generator("generate_architecture").layers() for room in line}
    assert named <= rooms and rooms - named == {"control", "values", "http"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in LINK.findall(text_outside_code_blocks(document)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(document: Path) -> None:
    named = {code.partition("::")[0] for code in CODE.findall(text_outside_code_blocks(document))}
    assert [] == [name for name in sorted(named) if IN_CHECKOUT.fullmatch(name) and not (ROOT / name).exists()]


def test_the_seed_map_names_tests_that_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", documented("seed-map.md")))
    assert named
    missing = [f"{file}::{test}" for file, test in sorted(named)
               if not re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(), flags=re.MULTILINE)]
    assert not missing


def test_each_statement_of_the_seed_map_says_where_it_is_or_that_it_is_not_yet() -> None:
    rows = [line.strip("| ").split(" | ") for line in documented("seed-map.md").splitlines() if line.startswith("| ")]
    assert not [row for row in rows if len(row) < 2 or not row[1].strip()]


def test_the_picture_is_well_formed_and_fetches_nothing() -> None:
    picture = ROOT / "docs" / "fig3.svg"
    ElementTree.parse(picture)
    text = picture.read_text()
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(?:href|src)=|url\((?!#)|@import", text)
