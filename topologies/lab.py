"""A lab that runs: built from a plan, with its control function, cleaned up however it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from tests.bed.namespaces import call_inside
from tests.bed.processes import CommandFailed
from topologies import plan, programs, rundir
from topologies.controller import APPS, SEE_ALL, ControlFunctionProcess, credentials, namespace
from topologies.emulator import Mininet, Node, lg
from topologies.nodes import LoadBalancerSwitch
from topologies.plan import Plan
from topologies.rundir import LabError
from topologies.shell import in_one_line, remedy
from topologies.steps import step
from topologies.topo import LabTopo

READY = 30.0
"""Seconds that the control function may take until all LBs are ready and all servers found."""


class LabNetwork(Mininet):
    """Mininet whose links, too, have a limit for what their making may take."""

    def addLink(self, node1: Node | str, node2: Node | str, **params: Any) -> object:  # noqa: N802 (Mininet's name)
        with step(f"the link between {node1} and {node2}"):
            return super().addLink(node1, node2, **params)


class Lab:
    """`with Lab(PLAN) as lab:` builds the lab and starts it; leaving the block removes everything.

    `lab.net` is the Mininet; `lab[name]` a node; `lab.control_function` the controller's process, None without one.
    Raises LabError when it cannot be built or does not get ready.
    """

    net: Mininet

    def __init__(self, lab_plan: Plan, *, controller: bool = True, apps: Sequence[str] = APPS) -> None:
        self.plan = lab_plan
        self.control_function: ControlFunctionProcess | None = None
        self._with_controller = controller
        self._apps = apps

    def __enter__(self) -> Lab:
        check_machine()
        self.directory = rundir.current()
        try:
            self._start()
        except BaseException as error:
            self._stop()
            if type(error) is Exception or isinstance(error, CommandFailed):  # Mininet's own, and Open vSwitch's
                said = in_one_line(str(error).splitlines())
                raise LabError(f"{said}. {remedy(said)}") from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __getitem__(self, name: str) -> Node:
        return self.net[name]

    def start_control_function(self, apps: Sequence[str] = APPS, environment: Mapping[str, str] | None = None) -> None:
        """Start (again) ryu-manager with `apps`, `environment` added, and wait until every LB is ready."""
        self._made_control_function().stop()
        self._made_control_function().start(apps, environment)
        self.wait_ready()

    def write_site(self, lab_plan: Plan) -> None:
        """Another site file for the control function, with the same machines. It reads that when it starts."""
        self._made_control_function().write_site(lab_plan)

    def _made_control_function(self) -> ControlFunctionProcess:
        if self.control_function is None:
            self.control_function = ControlFunctionProcess(self.plan, self.directory.subdirectory("controller"))
        return self.control_function

    def rest(self, method: str, path: str, body: object = None, *, timeout: float = 30.0) -> dict[str, Any]:
        """One REST call; the answer's JSON, also of an error. Raises OSError if nothing answers within `timeout` s."""
        address = str(self.plan.rest_address), plan.REST_PORT
        token = credentials(self.plan).get("LBCTL_TOKEN")
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        connection = http.client.HTTPConnection(*address)
        connection.sock = call_inside(namespace(self.plan), lambda: socket.create_connection(address, timeout))
        with contextlib.closing(connection):
            try:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                answer: dict[str, Any] = json.load(connection.getresponse())
                return answer
            except http.client.HTTPException as error:
                raise OSError(f"no answer to {method} {path}: {error!r}") from error

    def not_ready(self) -> str:
        """Why the lab cannot carry connections yet; empty if it can."""
        try:
            balancers = self.rest("GET", "/v1/load-balancers", timeout=5.0)["load_balancers"]
            external_ips = self.rest("GET", "/v1/external-ips", timeout=5.0)["external_ips"]
        except (OSError, ValueError, KeyError) as error:
            return f"the controller does not answer: {error}"
        waiting = [f"{lb['name']} is {lb['state']} ({lb['reason']})" for lb in balancers if lb["state"] != "ready"]
        servers = (
            server
            for external_ip in external_ips
            for service in external_ip["services"]
            for server in service["servers"]
        )
        unknown = sorted({server["address"] for server in servers if not server["mac"]})
        return "; ".join(waiting) or (f"no ARP answer from {', '.join(unknown)} yet" if unknown else "")

    def wait_ready(self) -> None:
        """Wait until every LB is ready. Raises LabError with the reason after READY seconds."""
        deadline = time.monotonic() + READY
        while reason := self.not_ready():
            if self.control_function is not None:
                self.control_function.check()
            if time.monotonic() > deadline:
                logged = (
                    f"; ryu-manager: {self.control_function.last_words()}. {SEE_ALL}" if self.control_function else ""
                )
                raise LabError(f"the lab is not ready after {READY:g} s: {reason}{logged}")
            time.sleep(0.1)

    def _start(self) -> None:
        lg.setLogLevel("warning")
        Mininet.inited = True  # or it would raise limits of the whole machine, for good
        self.net = LabNetwork(topo=LabTopo(plan=self.plan), controller=None, build=False)
        self.net.build()
        self.net.start()
        if self._with_controller:
            self.start_control_function(self._apps)

    def _stop(self) -> None:
        with _no_interrupts():
            if self.control_function is not None:
                self.control_function.stop()
            # Nodes and interfaces end with their processes; going through Mininet's own stop would be slower
            # and would need a network that was built completely.
            net = getattr(self, "net", None)
            with contextlib.suppress(LabError), step("the end of the nodes"):
                for node in (*net.switches, *net.hosts) if net is not None else ():
                    if isinstance(node, LoadBalancerSwitch):
                        node.ovs.stop()
                    node.terminate()
            rundir.remove()  # also ends what is still there of a node that could not end by itself


def check_machine() -> None:
    """Raises LabError when a lab cannot run here."""
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes network namespaces; start it with sudo")
    if packages := programs.missing():
        raise LabError(f"programs are missing; install them: apt-get install {' '.join(packages)}")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise SystemExit, so that `with` blocks clean up."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {sig: signal.signal(sig, leave) for sig in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """A second Ctrl-C must not leave half of it behind."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {sig: signal.signal(sig, signal.SIG_IGN) for sig in signals}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)
