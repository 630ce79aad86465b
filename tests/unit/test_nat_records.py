"""Records of NAT: which are made, when, and how one asks them."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lbctl.cli.main import app
from lbctl.cli.nat_log import tenures
from lbctl.connections.recorder import Recorder
from lbctl.entries.access_table import Entry
from lbctl.entries.nat_records import NatRecord, line
from lbctl.entries.translation import full_reply, outbound_keys
from lbctl.ground.effects import WriteRecords
from lbctl.values.keys import pack_key
from ryu_apps.shell import records
from ryu_apps.shell.records import RecordWriter
from tests.unit.real_threads import RealThreads

HOP = bytes(6)
TIME = 1_795_766_400.25
INSIDE, OUTSIDE, EXTERNAL = (ip_address(each).packed for each in ("10.0.0.201", "203.0.113.1", "198.51.100.20"))
KEYS = outbound_keys(pack_key(17, INSIDE, 5000, OUTSIDE, 53), (EXTERNAL, 23017))


def told(event: str = "opened", at: float = TIME, since: float = TIME, keys=KEYS) -> dict:
    return json.loads(line(NatRecord(event, at, since, *keys)))


def test_a_record_of_a_nat_gateway() -> None:
    assert told("ended", TIME + 2) == {
        "time": "2026-11-27T08:00:02.250Z", "event": "ended", "protocol": "udp", "translated": "198.51.100.20:23017",
        "inside": "10.0.0.201:5000", "outside": "203.0.113.1:53", "since": "2026-11-27T08:00:00.250Z"}


def test_a_record_of_full_nat_and_ipv6() -> None:
    client, external, internal, server = (ip_address(f"2001:db8::{n}").packed for n in range(1, 5))
    key = pack_key(6, client, 40000, external, 80)
    record = told(keys=(key, full_reply(key, server, 8080, (internal, 1024))))
    assert [record[each] for each in ("translated", "client", "external", "server")] == [
        "[2001:db8::3]:1024", "[2001:db8::1]:40000", "[2001:db8::2]:80", "[2001:db8::4]:8080"]


def test_times_are_the_machines() -> None:
    assert json.loads(line(NatRecord("opened", TIME, TIME, *KEYS), behind=-0.25))["time"] == "2026-11-27T08:00:00.000Z"


# Which entries.

class _Serving:
    def __init__(self, outbound: bool, ports: object) -> None:
        self.outbound, self.ports, self.recorder = outbound, ports, None


class _Ground:
    def __init__(self, nat_log: str | None, nat_log_of: str, servings: list[_Serving]) -> None:
        self.site = type("Site", (), {"nat_log": nat_log, "nat_log_of": nat_log_of})
        self.external_ips = servings


@pytest.mark.parametrize("file, of, recorded", [
    (None, "all", [False, False, False]),
    ("nat.jsonl", "nat-gateways", [True, False, False]),
    ("nat.jsonl", "all", [True, True, False]),
])
def test_which_external_ips_are_recorded(file, of, recorded) -> None:
    servings = [_Serving(True, object()), _Serving(False, object()), _Serving(False, None)]
    recorder = Recorder(_Ground(file, of, servings))
    assert [serving.recorder is not None for serving in servings] == recorded
    assert recorder.tick(0.0) == []
    if file:
        servings[0].recorder("ended", Entry(*KEYS, HOP, TIME), TIME + 1)
        assert recorder.tick(0.0) == [WriteRecords(file, [NatRecord("ended", TIME + 1, TIME, *KEYS)])]
        assert recorder.tick(0.0) == []


# Asking.

def lines(*told: tuple) -> list[str]:
    """(event, time, since) after TIME, or (event, time, since, keys)."""
    return [line(NatRecord(event, TIME + at, TIME + since, *(keys[0] if keys else KEYS)))
            for event, at, since, *keys in told]


PLACE = "198.51.100.20:23017"
OTHER = outbound_keys(pack_key(17, INSIDE, 6000, OUTSIDE, 54), (EXTERNAL, 23017))


def test_who_had_it() -> None:
    found = tenures(lines(("opened", 0, 0), ("ended", 10, 0), ("opened", 20, 20, OTHER)), PLACE)
    assert [(each.who, each.spoke_with, each.until is None) for each in found] == [
        ("10.0.0.201:5000", "203.0.113.1:53", False), ("10.0.0.201:6000", "203.0.113.1:54", True)]
    assert tenures(lines(("opened", 0, 0)), "198.51.100.20:2301") == []


def test_what_a_restarted_controller_found_is_no_second_one() -> None:
    found = tenures(lines(("opened", 0, 0), ("found", 30, -1), ("ended", 40, -1)), PLACE)
    assert len(found) == 1 and found[0].since.endswith("08:00:00.250Z") and found[0].until.endswith("08:00:40.250Z")


def test_an_end_alone_tells_enough_and_half_a_line_nothing() -> None:
    [whole] = lines(("ended", 40, 0))
    found = tenures([whole[:60] + "\n", f'{{"translated":"{PLACE}"}}\n', whole], PLACE)
    assert [each.since for each in found] == ["2026-11-27T08:00:00.250Z"]


def test_the_command_asks_old_files_too(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "nat.jsonl.1.gz", "wt") as old:
        old.writelines(lines(("opened", 0, 0)))
    (tmp_path / "nat.jsonl").write_text("".join(lines(("ended", 10, 0), ("opened", 20, 20, OTHER))))
    files = [str(tmp_path / "nat.jsonl.1.gz"), str(tmp_path / "nat.jsonl")]

    def who(at: str) -> list[str]:
        result = CliRunner().invoke(app, ["nat-log", PLACE, *files, "--at", at, "--json"])
        assert result.exit_code == 0, result.output
        return [each["who"] for each in json.loads(result.output)]

    assert who("2026-11-27T08:00:05Z") == ["10.0.0.201:5000"]
    assert who("2026-11-27T09:00:05+01:00") == ["10.0.0.201:5000"]
    assert who("2026-11-27T08:00:15Z") == []
    assert who("2026-11-27T08:00:25Z") == ["10.0.0.201:6000"]
    shown = CliRunner().invoke(app, ["nat-log", PLACE, *files])
    assert "10.0.0.201:5000" in shown.output and "10.0.0.201:6000" in shown.output


@pytest.mark.parametrize("arguments", [["nat.jsonl"], ["nat.jsonl", "--at", "yesterday"]])
def test_the_command_says_what_is_wrong(arguments, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    if len(arguments) > 1:
        (tmp_path / "nat.jsonl").touch()
    with pytest.raises(SystemExit) as ended:
        app(["nat-log", PLACE, *arguments])
    assert ended.value.code == 1 and capsys.readouterr().err.startswith("lbctl: ")


# The file.

class _Stopped(RealThreads):
    """A writer that never gets its turn."""

    def spawn(self, function, *args, **kwargs):
        return None


def order(*times: float, file: str = "nat.jsonl") -> WriteRecords:
    return WriteRecords(file, [NatRecord("opened", TIME + at, TIME, *KEYS) for at in times])


def writer(directory: Path, threads=None) -> RecordWriter:
    return RecordWriter(directory, Counter(), threads or RealThreads(), time.time)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_records_are_appended_in_order_to_whatever_file_has_the_name(tmp_path: Path) -> None:
    writing, file = writer(tmp_path), tmp_path / "nat.jsonl"
    writing.write(order(1, 2))
    wait_for(lambda: writing._counters["nat_records"] == 2)
    file.rename(tmp_path / "nat.jsonl.1")
    writing.write(order(3))
    writing.write(order(4, file="other.jsonl"))
    wait_for(lambda: writing._counters["nat_records"] == 4)
    seconds = [[json.loads(text)["time"][17:19] for text in (tmp_path / name).read_text().splitlines()]
               for name in ("nat.jsonl.1", "nat.jsonl", "other.jsonl")]
    assert seconds == [["01", "02"], ["03"], ["04"]] and file.stat().st_mode & 0o777 == 0o600


def test_the_machines_clock_is_followed_when_it_jumps(tmp_path: Path) -> None:
    writing = RecordWriter(tmp_path, Counter(), RealThreads(), lambda: time.time() + 3600)
    writing.write(order(1))
    wait_for(lambda: writing._counters["nat_records"] == 1)
    assert json.loads((tmp_path / "nat.jsonl").read_text())["time"].startswith("2026-11-27T07:00:0")


def test_what_finds_no_room_is_lost_and_counted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(records, "MOST", 3)
    writing = writer(tmp_path, _Stopped())
    for _ in range(3):
        writing.write(order(1, 2))
    assert writing._counters == {"dropped_nat_record_queue_full": 3} and len(writing._waiting) == 3


def test_after_a_disk_that_was_full_lines_begin_anew(tmp_path: Path, monkeypatch) -> None:
    writing, write = writer(tmp_path), os.write

    def half(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(file, data[:50])

    def full(file: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", write)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    writing.write(order(1))
    wait_for(lambda: writing._counters["dropped_nat_record_not_written"] == 1)
    writing.write(order(2))
    wait_for(lambda: writing._counters["nat_records"] == 1)
    torn, whole = (tmp_path / "nat.jsonl").read_text().splitlines()
    assert len(torn) == 50 and json.loads(whole)["time"].endswith("02.250Z")
