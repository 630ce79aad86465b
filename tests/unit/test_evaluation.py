"""`python -m evaluation`: what it lists can be run, its records hold together, and docs/ show what they say."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evaluation import __main__ as command
from evaluation import tables
from evaluation.benchmarks.command import main as run_benchmark
from evaluation.catalogue import BENCHMARKS, BY_NAME, EXPERIMENTS, Benchmark, Experiment
from evaluation.measuring import others
from evaluation.measuring.findings import (
    HEAD,
    RESULTS,
    Findings,
    Result,
    Unusable,
    markdown,
    milliseconds,
    of_results,
    per_second,
)
from evaluation.measuring.machine import CHECKOUT, commit, machine, versions
from evaluation.measuring.others import Watch, undisturbed
from evaluation.measuring.record import MEASURED, Figure, Record, Row, Table, UnreadableRecord, figure, read
from evaluation.measuring.session import Session
from evaluation.measuring.usage import thread_times
from tests.bed.processes import CommandFailed
from topologies import programs

RECORDS = tables.records(tables.DOCS)
DOCUMENTS = sorted(tables.DOCS.glob("*.md"))
TABLE = Table(columns=("what", "how much"), rows=(Row(cells=("gap", "2.0 ms"), figures={"gap": figure("s", [0.002])}),))


def record(name: str = "move", **changes: object) -> Record:
    """A record of a run, as small as can be."""
    plain = Record(name=name, command=f"python -m evaluation {name}", date=datetime(2026, 11, 27, tzinfo=UTC),
                   commit="abc", modified=False, seconds=1.0, machine=machine(), versions={"Python": "3"}, others=0.03,
                   runs=1, passed=True, tables={RESULTS: TABLE})
    return plain.model_copy(update=changes)


# What there is.


@pytest.mark.parametrize("entry", BY_NAME.values(), ids=BY_NAME)
def test_whatever_is_listed_can_be_imported_and_is_told(entry: Benchmark | Experiment) -> None:
    parameters = inspect.signature(entry.load()).parameters
    assert list(parameters) == ([] if isinstance(entry, Benchmark) else ["arguments"])
    assert entry.shows.endswith(".") and "\n" not in entry.shows and len(entry.shows) <= 100
    assert re.fullmatch(r"\d+ (s|min)", entry.takes)
    assert entry.name == entry.name.lower() and entry.name not in (command.ALL, command.TABLES)


def test_the_list_has_every_name_and_how_it_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    for entry in BY_NAME.values():
        assert re.search(rf"^  {entry.name} +{entry.takes}  {re.escape(entry.shows)}$", listed, re.MULTILINE)
    assert "python -m evaluation NAME" in listed and "python -m evaluation all" in listed
    assert all(len(line) <= 120 for line in listed.splitlines())


def test_no_benchmark_is_left_out() -> None:
    """Each module with a `main` that gives findings is in the list."""
    listed = {entry.path for entry in BENCHMARKS}
    there = set()
    for path in (CHECKOUT / "evaluation" / "benchmarks").glob("*.py"):
        functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        if any(each.name == "main" and each.returns and ast.unparse(each.returns) == "Findings" for each in functions):
            there.add(f"evaluation.benchmarks.{path.stem}")
    assert there == listed


@pytest.mark.parametrize("arguments", [["nothing"], ["move", "nothing"], ["--out", "x"]])
def test_wrong_names_are_told_with_the_right_ones(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    assert re.search("new_connections|NAME", capsys.readouterr().err)


def test_one_that_fails_does_not_end_the_others(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The first is no name that a process of its own knows, the second goes well."""
    broken = replace(BY_NAME["pages"], name="broken")
    status = command.run_each([broken, BY_NAME["maglev"]], ["--out", str(tmp_path)])
    out = capfd.readouterr().out
    assert status == 1
    assert re.search(r"^broken +wrong usage", out, re.MULTILINE) and re.search(r"^maglev +well", out, re.MULTILINE)
    assert read(tmp_path / "maglev.json").passed


def test_all_are_the_benchmarks_and_single_options_reach_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[list[str], list[str]]] = []
    monkeypatch.setattr(command, "run_each",
                        lambda entries, options: ran.append(([entry.name for entry in entries], list(options))) or 0)
    assert command.main(["all", "--out", "x"]) == 0 and command.main(["demonstration", "move"]) == 0
    assert ran == [([entry.name for entry in BENCHMARKS], ["--out", "x"]), (["demonstration", "move"], [])]


@pytest.mark.parametrize("name", [entry.name for entry in (*EXPERIMENTS, BENCHMARKS[0])])
def test_each_tells_its_options(name: str) -> None:
    done = programs.run([sys.executable, "-m", "evaluation", name, "--help"], capture_output=True,
                          cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=False)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python -m evaluation {name}"), done.stderr
    assert "--out DIR" in done.stdout


def test_what_needs_root_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.main(["move"]) == 1
    assert "python -m evaluation move needs root" in capsys.readouterr().err


# Records.


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    findings = Findings({RESULTS: TABLE}, passed=False, runs=3, others=0.5, notes=("so it is",), pictures=("day.png",))
    written = Session("move", ["--seed", "7", "--out", str(tmp_path)]).record(findings)
    assert read(written.write(tmp_path)) == written
    assert written.command == "python -m evaluation move --seed 7", "where it was written to is not part of it"
    assert (written.name, written.passed, written.runs, written.pictures) == ("move", False, 3, ("day.png",))
    assert written.source == MEASURED and written.others is not None and written.others >= 0.5
    assert written.commit == commit().name and written.versions == versions()
    assert written.machine.cores == os.cpu_count() and written.machine.kernel.startswith("Linux ")


@pytest.mark.parametrize(("text", "why"), [
    ("{", "no record"), ('{"name": "x"}', "no record"),
    (record().model_dump_json().replace("0.002", "0.003", 1), "median"),
    (record().model_dump_json().replace('"2.0 ms"', '"2.0 ms", "more"'), "columns"),
    (record("other").model_dump_json(), "other.json"),
])
def test_what_is_no_record_is_refused(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "move.json"
    file.write_text(text)
    with pytest.raises(UnreadableRecord, match=why):
        read(file)


def test_figures_know_their_median_also_when_something_never_ended() -> None:
    assert figure("s", [3, 1, 2]) == Figure(unit="s", median=2.0, values=(3.0, 1.0, 2.0))
    assert figure("s", [1, float("inf"), 2]).values == (1.0, None, 2.0)
    assert figure("s", [1, float("inf"), 2]).median == 2.0
    assert figure("s", [float("inf")]).median is None


def test_findings_of_lines() -> None:
    line = Result("gap", "2.0 ms", "none", "", "< 20 ms", 3, 0.25, True, {"gap": figure("s", [0.002])})
    missed = replace(line, passed=False, others=None, runs=5)
    found = of_results([line, missed, replace(line, target="")], {"more": TABLE})
    assert (found.passed, found.runs, found.others) == (False, 5, 0.25)
    assert [row.cells[-2:] for row in found.tables[RESULTS].rows] == [("25%", "PASS"), ("", "FAIL"), ("25%", "")]
    assert list(found.tables) == [RESULTS, "more"] and found.tables[RESULTS].columns == HEAD


def test_a_benchmark_prints_its_tables_and_leaves_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for passed in (True, False):
        status = run_benchmark("move", "Shows.", lambda passed=passed: Findings({RESULTS: TABLE}, passed),
                               ["--out", str(tmp_path)])
        assert status == (0 if passed else 1) and read(tmp_path / "move.json").passed is passed
    assert "| gap  | 2.0 ms   |" in capsys.readouterr().out


def test_a_bed_whose_program_fails_ends_a_benchmark_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure() -> Findings:
        raise CommandFailed("status 1: ip link add one\nRTNETLINK answers: Operation not permitted")

    assert run_benchmark("move", "what a move does", measure, ["--out", str(tmp_path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("move: status 1: ip link add one; RTNETLINK answers: Operation not permitted. If ip itself")


def test_a_run_that_says_nothing_leaves_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measure() -> Findings:
        raise Unusable("only 3 checks of 500 passed in a second")

    assert run_benchmark("health_checks", "what checks cost", measure, ["--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "health_checks: only 3 checks of 500 passed in a second\n"
    assert not list(tmp_path.iterdir())


def test_how_figures_are_written() -> None:
    assert [milliseconds(value) for value in (0.0053, 0.9999, 1.5, float("inf"))] == ["5.3 ms", "999.9 ms", "1 500 ms",
                                                                                     "never"]
    assert per_second(20443.4) == "20 443/s"


def process(pid: int, parent: int, ticks: int, space: int = 1) -> others._Process:
    return others._Process(pid, "started", parent, ticks, space)


def test_others_are_neither_this_process_nor_its_descendants_nor_what_runs_in_its_namespaces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own, inside = os.getpid(), tmp_path.stat().st_ino
    looks = iter([
        [process(own, 1, 0), process(1, 0, 100), process(900, 1, 5)],
        [process(own, 1, 1000), process(901, own, 1000), process(902, 901, 1000), process(903, 1, 1000, inside),
         process(1, 0, 100 + others.TICKS), process(904, 1, 3 * others.TICKS)],
    ])
    times = iter([10.0, 20.0])
    monkeypatch.setattr(others, "_processes", lambda: next(looks))
    monkeypatch.setattr("evaluation.measuring.others.time.monotonic", lambda: next(times))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert Watch([tmp_path]).share() == pytest.approx((1 + 3) / (10 * 2))


def test_a_disturbed_run_is_repeated_and_the_best_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.2])
    monkeypatch.setattr("evaluation.measuring.others.WAIT", 0.0)
    monkeypatch.setattr(Watch, "share", lambda _: next(shares))
    results = iter("ab")
    assert undisturbed(lambda: next(results)) == ("b", 0.2)


def test_times_of_threads_are_summed_by_name() -> None:
    times = thread_times(os.getpid())
    assert not any(name[-1].isdigit() for name in times)
    assert 0 < sum(times.values()) <= time.process_time() + 0.1


# Tables in docs/.


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_of_figures_are_those_of_the_records(document: Path) -> None:
    text = document.read_text()
    assert tables.filled_in(text, RECORDS, document.name) == text, "run: python -m evaluation tables"


def test_every_record_is_of_something_listed_and_shown_in_a_document() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    shown = {what.partition("/")[0] for place in tables.BEGIN.findall(text) for what in place.split()}
    assert shown == set(RECORDS) == set(BY_NAME)


@pytest.mark.parametrize("kept", RECORDS.values(), ids=RECORDS)
def test_a_measured_record_has_the_values_of_its_lines(kept: Record) -> None:
    assert all((tables.DOCS / picture).is_file() for picture in kept.pictures)
    assert kept.command.split()[:4] == ["python", "-m", "evaluation", kept.name]
    if kept.source == MEASURED:
        assert all(row.figures for table in kept.tables.values() for row in table.rows)
        assert kept.seconds is not None and kept.others is not None and kept.modified is not None


def document(what: str, inside: str = "") -> str:
    return f"# A\n\n<!-- figures: {what} -->\n{inside}<!-- end -->\n\nText.\n"


def test_tables_are_made_between_the_comments_and_only_there() -> None:
    known = {"move": record(), "pages": record("pages", notes=("as it is",)), "other": record("other", others=0.5)}
    filled = tables.filled_in(document("move", "| what was there |\n"), known, "a.md")
    assert filled.startswith("# A\n\n<!-- figures: move -->\n\n| what | how much |\n") and "Text.\n" in filled
    assert "what was there" not in filled and "`python -m evaluation move`: 2026-11-27, commit abc; others" in filled
    assert tables.filled_in(filled, known, "a.md") == filled
    both = tables.shown("move pages/results", known, "a.md")
    assert both.count("how much") == 1 and both.count("gap") == 2, "tables with the same columns are one"
    assert "as it is" not in both and "as it is" in tables.shown("pages", known, "a.md")
    assert both.count("commit abc") == 1 and tables.shown("move other", known, "a.md").count("commit abc") == 2


@pytest.mark.parametrize(("text", "why"), [
    (document("nothing"), "no record docs/figures/nothing.json"), (document("move/nothing"), "no table nothing, only"),
    (document(""), "names no record"), ("<!-- figures: move -->\n", "needs a line <!-- end -->"),
])
def test_figures_that_are_not_there_are_told(text: str, why: str) -> None:
    with pytest.raises(tables.UnknownFigures, match=rf"a\.md: .*{re.escape(why)}"):
        tables.filled_in(text, {"move": record()}, "a.md")


def test_a_new_run_is_taken_over_with_its_picture(tmp_path: Path) -> None:
    docs, results = tmp_path / "docs", tmp_path / "results"
    docs.mkdir()
    (docs / "a.md").write_text(document("move"))
    record(pictures=("day.png",)).write(results)
    (results / "day.png").write_bytes(b"picture")
    tables.take(results / "move.json", docs)
    assert (docs / "day.png").read_bytes() == b"picture"
    assert tables.records(docs) == {"move": read(results / "move.json")}
    assert tables.fill(docs) == [docs / "a.md"] and tables.fill(docs) == []
    assert markdown([TABLE]) in (docs / "a.md").read_text()
