"""The labs and the demonstration as people start them, each in a network namespace of its own; and what they leave
behind."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lbctl.cli.doctor.receive_queues import ENOUGH
from topologies import fig1, fig2, fig3, fig3_full_nat, fig3_sliced, fig13, programs, rundir
from topologies.plan import SITE_NAME

CHECKOUT = Path(__file__).resolve().parents[2]
PLANS = {figure.PLAN.name: figure.PLAN for figure in (fig1, fig2, fig3, fig3_full_nat, fig3_sliced, fig13)}
APART = ("setpriv", "--pdeathsig", "INT", "unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Runs a command with a loopback interface of its own, since labs use fixed addresses and ports; it ends when we are
killed."""


def lab_command(lab: str, *commands: str, controller: bool = True) -> list[str]:
    options = [word for command in commands for word in ("--run", command)]
    return [sys.executable, f"topologies/{lab}.py", *options, *(() if controller else ("--no-controller",))]


def run(command: list[str], timeout: float = 90.0) -> subprocess.CompletedProcess[str]:
    """The command, to its end. If we are interrupted meanwhile, a lab cleans up."""
    with started(command, stderr=subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.terminate()
            process.communicate(timeout=20)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@contextmanager
def started(command: list[str], stderr: int = subprocess.STDOUT) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own; killed at the end if it still runs."""
    with programs.popen(
        [*APART, *command],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    pytest.fail(f"it never said {text!r}, but:\n{''.join(said)}")


def marked_processes(path: Path) -> list[int]:
    return rundir._marked(path)


def run_directory(process: subprocess.Popen[str]) -> Path:
    # `sh` and `unshare` replace themselves, so the pid is the lab's.
    return rundir.BASE / str(process.pid)


@pytest.mark.parametrize("lab", PLANS)
def test_every_client_reaches_every_external_ip(lab: str) -> None:
    result = run(lab_command(lab, "traffic"))
    assert result.returncode == 0, result.stdout + result.stderr
    plan = PLANS[lab]
    for client in plan.clients:
        for external_ip in (*plan.site.external_ips, None):
            target = SITE_NAME if external_ip is None else str(external_ip.address)
            answer = re.search(
                rf'^{client.name} -> {re.escape(target)}: {{"server": "(s\d)"', result.stdout, re.MULTILINE
            )
            assert answer, f"{client.name} got no answer from {target}:\n{result.stdout}"
            names = {m.name for m in plan.servers if external_ip is None or m.address in external_ip.server_addresses()}
            assert answer[1] in names


def test_the_name_stands_for_all_external_ips_in_turn() -> None:
    result = run(lab_command("fig3", *[f"c3 curl -s --max-time 5 http://{SITE_NAME}/"] * 9))
    servers = re.findall(r'"server": "(s\d)"', result.stdout)
    assert len(servers) == 9, result.stdout + result.stderr
    assert set(servers) == {"s1", "s2", "s3"}


@pytest.mark.quick
def test_an_external_ip_moves_and_survives_its_lb() -> None:
    result = run(
        lab_command(
            "fig3",
            "lbctl move 198.51.100.1 lb-b --wait",
            "c3 curl -s --max-time 5 http://198.51.100.1/",
            "kill lb-b",
            "c1 curl -s --max-time 9 --retry 9 --retry-all-errors --retry-delay 1 http://198.51.100.3/",
            "revive lb-b",
            "lbctl moves",
        )
    )
    said = result.stdout + result.stderr
    assert "from lb-a to lb-b, precopy: done" in said, said
    order = [said.find(text) for text in ('"server": "s1"', '"server": "s3"', "failover")]
    assert -1 < order[0] < order[1] < order[2], said


def test_with_full_nat_servers_need_no_route_to_the_clients() -> None:
    """And each of them serves all external IPs, on whatever LB."""
    fetch = "c3 curl -s --max-time 5 http://198.51.100.1/"
    routes = "s1 ip -color=never route"  # a machine of the lab has a terminal, on which newer ones colour what they say
    result = run(
        lab_command("fig3_full_nat", *[fetch] * 3, "lbctl move 198.51.100.1 lb-b --wait", *[fetch] * 3, routes)
    )
    said = result.stdout + result.stderr
    assert "from lb-a to lb-b, precopy: done" in said, said
    servers = re.findall(r'"server": "(s\d)"', result.stdout)
    assert len(servers) == 6 and set(servers[:3]) == set(servers[3:]) == {"s1", "s2", "s3"}, said
    assert "10.0.0.0/24 dev" in said and "default" not in said, said


def test_a_download_outlives_that_its_slice_changes_hands() -> None:
    """As in docs/first-session.md."""
    fetch = "c1 curl -s --max-time 5 http://198.51.100.1/"
    download = "curl -sS --limit-rate 2M --max-time 30 -o /dev/null -w '%{http_code} %{size_download}\\n'"
    result = run(
        lab_command(
            "fig3_sliced",
            *[fetch] * 8,
            f"c3 {download} http://198.51.100.1/10m &",
            "lbctl drain-server 10.0.0.11 --wait",
            *[fetch] * 4,
            "lbctl move 198.51.100.1 lb-b --wait",
            "c3 wait",
            "lbctl where 203.0.113.103:40000 198.51.100.1:80",
        )
    )
    said = result.stdout + result.stderr
    servers = re.findall(r'"server": "(s\d)"', result.stdout)
    assert len(servers) == 12 and set(servers[:8]) == {"s1", "s2"} and set(servers[8:]) == {"s2"}, said
    assert "200 10485760" in said and "precopy: done" in said, said
    assert "in slice 32 (client port 0x0040/0x01fe) of a sliced service: server 10.0.0.12:80" in said, said


def test_downloads_outlive_the_lb_of_figure_13() -> None:
    """One is known from the keeper's copy, one from the server's sockets; nobody orders anything."""
    fetch = (
        "curl -sS --limit-rate 1M --max-time 30 -o /dev/null -w '%{http_code} %{size_download}\\n' http://198.51.100."
    )
    downloads = (f"c1 {fetch}1/10m &", f"c3 {fetch}2/10m &")
    begun = [f"{client} until ss -Hnt state established | grep -q :80; do sleep 0.1; done" for client in ("c1", "c3")]
    metrics = (
        'curl -s -H "Authorization: Bearer $(cat /run/lbctl-lab/*/controller/rest-token)" http://10.0.0.13:8080/metrics'
    )
    copied, watched = (
        f"s3 until {metrics} | grep -qx '{line}'; do sleep 0.1; done"
        for line in ('lbctl_keeper_lag_seconds{server="10.0.0.11"} 0.0', 'lbctl_load_balancer_well{dp_name="lb-a"} 1.0')
    )
    end = ("kill lb-a", "c1 wait", "c3 wait", "lbctl moves --json")
    result = run(lab_command("fig13", *downloads, *begun, copied, watched, *end))
    said = result.stdout + result.stderr
    assert result.stdout.count(f"200 {10 << 20}") == 2, said
    moves = json.loads(result.stdout[result.stdout.index('{\n'):])["moves"]
    copied = {move["external_ip"]: move["entries_from"] for move in moves}
    assert copied == {"198.51.100.1": {"keeper": 1}, "198.51.100.2": {"sockets": 1}}, said


def test_the_doctor_looks_at_all_open_vswitches_of_a_lab() -> None:
    """In one report, each in the network namespace of its LB."""
    ask = "lbctl doctor --json"
    # Open vSwitch tells its database some seconds late that the controller is connected.
    told = [
        f"{lb} until ovs-vsctl get controller {lb} is_connected | grep -q true; do sleep 0.2; done"
        for lb in ("lb-a", "lb-b")
    ]
    result = run(lab_command("fig3", *told, ask, "lb-b ss --packet --memory", "kill lb-a", ask))
    said = result.stdout + result.stderr
    well, ill = (
        json.loads(text)["findings"] for text in re.findall(r"^{$.*?^}$", result.stdout, re.MULTILINE | re.DOTALL)
    )
    length = int(re.findall(r"rb(\d+)", result.stdout)[0])
    expected = [] if length >= ENOUGH else ["lb-a: the receive queues", "lb-b: the receive queues"]
    assert [found["what"][:24] for found in well if found["level"] != "ok"] == expected, said
    told = "\n".join(found["what"] for found in well)
    for lb in "ab":
        for words in (
            f"Open vSwitch \\S+ of lb-{lb} runs",
            f"lb-{lb}: the receive queues of lb{lb}-ext and lb{lb}-int hold {length} bytes",
            f"lb-{lb}: lb{lb}-int makes its own checksums",
            f"lb-{lb}: nobody but load balancers answers .* on the internal",
        ):
            assert re.search(words, told), (words, said)
    wrong = " ".join(found["what"] for found in ill if found["level"] == "fail")
    assert re.search(r"with its sockets in /run/lbctl-lab/\d+/lb-a ", wrong) and "/lb-b " not in wrong, said
    assert re.search(r"Open vSwitch \S+ of lb-b runs", "\n".join(found["what"] for found in ill)), said


FAILS, HANGS = "echo it cannot start >&2; exit 3", "while sleep 1; do :; done"


@pytest.mark.parametrize(
    ("program", "script"),
    [
        *(
            (program, FAILS)
            for program in (
                "mnexec",
                "ip",
                "ethtool",
                "ovsdb-server",
                "ovs-vswitchd",
                "nginx",
                "dnsmasq",
                "ryu-manager",
            )
        ),
        *((program, HANGS) for program in ("mnexec", "ovs-vswitchd", "nginx", "ryu-manager")),
    ],
    ids=lambda value: {FAILS: "fails", HANGS: "hangs"}.get(value, value),
)
def test_a_program_that_cannot_start_ends_the_lab_with_one_line(program: str, script: str, tmp_path: Path) -> None:
    """And nothing is left of it."""
    fake = tmp_path / program
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    start = f"""
import os
from topologies import controller, fig1, lab, prompt, steps
os.environ["PATH"] = {str(tmp_path)!r} + ":" + os.environ["PATH"]
if {program!r} == "ryu-manager":
    controller.ryu_manager = lambda: {str(fake)!r}
steps.LIMIT = lab.READY = 5.0
raise SystemExit(prompt.main(fig1.PLAN))
"""
    with started([sys.executable, "-c", start], stderr=subprocess.PIPE) as process:
        _, errors = process.communicate(timeout=60)
        directory = run_directory(process)
        assert process.returncode == 1, errors
        [line] = errors.splitlines()
        assert line.startswith("fig1: ") and program in line
        assert (
            ("it cannot start" in line) if script == FAILS else re.search(r"no end after 5 s|not ready after 5 s", line)
        )
        assert not marked_processes(directory)
        assert not directory.exists()


def test_one_lab_at_a_time_in_a_namespace() -> None:
    second = shlex.join(lab_command("fig1", "c1 true", controller=False))
    result = run(lab_command("fig1", f"sh {second}; echo status $?", controller=False))
    assert "another lab runs here" in result.stdout + result.stderr
    assert "status 1" in result.stdout, "and the first is none the worse for it"


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(sig: signal.Signals) -> None:
    with started(lab_command("fig3", "c1 sleep 60")) as process:
        wait_for_line(process, "Try:")
        directory = run_directory(process)
        assert len(marked_processes(directory)) > 10
        process.send_signal(sig)
        assert process.wait(20) != 0
        assert not marked_processes(directory)
        assert not directory.exists()


def test_the_next_lab_removes_what_a_killed_one_left() -> None:
    with started(lab_command("fig2", "c1 sleep 60")) as process:
        wait_for_line(process, "Try:")
        directory = run_directory(process)
        process.kill()
        process.wait(10)
        assert len(marked_processes(directory)) > 5, "a killed lab leaves daemons: if not, this test tests nothing"
        assert run(lab_command("fig1", "c1 true", controller=False)).returncode == 0
        assert not marked_processes(directory)
        assert not directory.exists()


def test_leftovers_of_others_are_not_touched() -> None:
    """A process that merely talks about a run directory that is not there is nobody's leftover."""
    with programs.popen(["sleep", "30"], env={**os.environ, rundir.MARK: "/run/lbctl-lab/elsewhere"}) as bystander:
        assert run(lab_command("fig1", "c1 true", controller=False)).returncode == 0
        time.sleep(0.1)
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("lab", PLANS)
def test_by_mininets_own_mn(lab: str) -> None:
    """In a pid namespace: when it fails, mn kills by name whatever looks like Mininet."""
    mn = f"{Path(sys.executable).parent}/mn --custom topologies/{lab}.py --topo {lab} --controller lbctl"
    ask = "c1 curl -s --max-time 9 --retry 9 --retry-all-errors --retry-delay 1 http://198.51.100.1/"
    script = f"mount -t tmpfs none /run && ip link set lo up && printf '%s\\n' '{ask}' 'exit' | {mn}"
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    result = programs.run(apart, cwd=CHECKOUT, capture_output=True, timeout=90, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r'"server": "s\d"', result.stdout + result.stderr), result.stdout + result.stderr


@pytest.mark.alone  # it counts what TCP sends again, which on a busy machine is more than what is lost
def test_the_demonstration_shows_what_it_claims(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "evaluation",
        "demonstration",
        "--out",
        str(tmp_path),
        "--orders",
        "table-first,precopy",
    ]
    result = run(command, timeout=150)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.rstrip().endswith("This is what the seed claims.")
    page = (tmp_path / "demonstration.html").read_text()
    assert "<svg" in page
    assert not re.search(r'(src|href)="(?!#)', page), "the page needs nothing else"
