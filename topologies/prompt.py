"""The lab at a terminal: what `python topologies/figN.py` does, and Mininet's prompt with a few commands more."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bed.ovs import OvsError
from topologies import controller, plan, programs, rundir
from topologies.emulator import Node, Prompt, lg
from topologies.lab import Lab, ended_by_signals
from topologies.nodes import Client, LoadBalancerSwitch
from topologies.plan import Plan
from topologies.rundir import LabError
from topologies.topo import LabTopo

LOOK_AT_SWITCHES = ("doctor", "where")
"""The commands of lbctl that may be told where Open vSwitch is."""


class LabPrompt(Prompt):
    """Mininet's prompt, where names may have a hyphen (`lb-a ovs-ofctl dump-flows lb-a`), and with these commands:

    lbctl ARGS   kill LB   revive LB   traffic
    """

    prompt = "lab> "
    identchars = Prompt.identchars + "-"

    def do_lbctl(self, line: str) -> None:
        """lbctl ARGS: the lbctl command, e.g. `lbctl status`, `lbctl move 198.51.100.1 lb-b --wait`.

        `lbctl doctor` and `lbctl where` look at the Open vSwitch of every LB of the lab.
        """
        words = shlex.split(line)
        if words and words[0] in LOOK_AT_SWITCHES and "--ovs-rundir" not in words:
            words += [word for lb in self._load_balancers() for word in ("--ovs-rundir", str(lb.ovs.rundir))]
        command = [*controller.place(self._plan), str(Path(sys.executable).parent / "lbctl"), *words]
        programs.run(command, check=False, env={**os.environ, **controller.credentials(self._plan)})

    def do_kill(self, line: str) -> None:
        """kill LB: kill -9 the LB's ovs-vswitchd."""
        if lb := self._load_balancer(line):
            with _told():
                lb.kill()

    def do_revive(self, line: str) -> None:
        """revive LB: start the ovs-vswitchd of an LB that was killed; its tables are empty at first."""
        if lb := self._load_balancer(line):
            with _told():
                lb.revive()

    def do_traffic(self, line: str) -> None:
        """traffic: every client asks the site for its page once, by name and at each external IP."""
        clients = [node for node in self.mn.hosts if isinstance(node, Client)]
        addresses = [plan.SITE_NAME, *(str(external_ip.address) for external_ip in self._plan.site.external_ips)]
        for client in clients:
            for address in addresses:
                said = client.cmd(f"curl -s -S --max-time 3 http://{address}/").strip()
                print(f"{client.name} -> {address}: {said}", flush=True)

    def default(self, line: str) -> None:
        """`NODE COMMAND`, as in Mininet, but an LB's own name in the command stays a name: it is its bridge's, too."""
        first, arguments, _ = self.parseline(line)
        node = self.mn[first] if first and first in self.mn else None
        if isinstance(node, LoadBalancerSwitch) and arguments:
            node.sendCmd(arguments)
            self.waitForNode(node)
        else:
            super().default(line)

    def waitForNode(self, node: Node) -> None:  # noqa: N802 (Mininet's name)
        """Show the node's output until its command ends. Mininet's own turns in circles where no terminal is."""
        if self.isatty():
            super().waitForNode(node)
        while node.waiting:
            print(node.monitor(), end="", flush=True)

    @property
    def _plan(self) -> Plan:
        assert isinstance(self.mn.topo, LabTopo)
        return self.mn.topo.plan

    def _load_balancers(self) -> list[LoadBalancerSwitch]:
        return [node for node in self.mn.switches if isinstance(node, LoadBalancerSwitch)]

    def _load_balancer(self, line: str) -> LoadBalancerSwitch | None:
        named = {lb.name: lb for lb in self._load_balancers()}
        if line.strip() not in named:
            print(f"which load balancer? One of: {', '.join(named)}")
        return named.get(line.strip())


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What Open vSwitch cannot do is told, and the prompt goes on."""
    try:
        yield
    except OvsError as error:
        print(error, flush=True)


def main(lab_plan: Plan) -> int:
    """Run the lab of a figure's file from the command line; the exit status."""
    options = _parser(lab_plan).parse_args()
    try:
        with ended_by_signals():
            print(f"Building {lab_plan.name}: {lab_plan.title} ...", flush=True)
            with Lab(lab_plan, controller=not options.no_controller) as lab:
                print(description(lab), flush=True)
                return _use(lab, options.run)
    except LabError as error:
        print(f"{lab_plan.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def description(lab: Lab) -> str:
    """What is there and what one can type, for people."""
    site = lab.plan.site
    lines = ["", *_machines(lab.plan), ""]
    for external_ip in site.external_ips:
        address = str(external_ip.address)
        called = f" ({lab.plan.seed_names[address]})" if address in lab.plan.seed_names else ""
        servers = ", ".join(m.name for m in lab.plan.servers if m.address in external_ip.server_addresses())
        inside = (
            f"gateway {external_ip.gateway}"
            if external_ip.gateway
            else f"internal IP {', '.join(map(str, external_ip.internal_ips))}"
        )
        lines.append(f"external IP {address}{called}: on {external_ip.load_balancer}, {inside}, {servers}")
    if lab.control_function is None:
        lines += ["", "No controller; start one with: " + controller_hint(lab)]
    else:
        log, on_server = lab.control_function.log_file, lab.plan.control_server
        where = f" (on {on_server.name}, token in {rundir.secret(rundir.REST_TOKEN)})" if on_server else ""
        lines += ["", f"REST: http://{lab.plan.rest_address}:{plan.REST_PORT}/v1{where}   controller's log: {log}"]
    for node in lab.net.switches:
        if isinstance(node, LoadBalancerSwitch):
            lines.append(f"Open vSwitch of {node.name}: OVS_RUNDIR={node.ovs.rundir}")
    first = site.external_ips[0].address
    lines += ["", f"Try: c1 curl -s http://{plan.SITE_NAME}/    traffic    lbctl status"]
    if len(site.load_balancers) > 1:
        lines.append(f"     lbctl move {first} {site.load_balancers[1].name} --wait    help    exit")
    return "\n".join(lines) + "\n"


def controller_hint(lab: Lab) -> str:
    """The command that starts the lab's control function by hand, in the checkout."""
    by_hand = controller.ControlFunctionProcess(lab.plan, lab.directory.subdirectory("controller"))
    return shlex.join(by_hand.command())


def _use(lab: Lab, commands: list[str]) -> int:
    lg.setLogLevel("output")
    if commands:
        # Mininet's prompt reads a script from a file only.
        script = lab.directory.path / "commands"
        script.write_text("\n".join(commands) + "\n")
        LabPrompt(lab.net, script=str(script))
    else:
        LabPrompt(lab.net)
    return 0


def _machines(lab_plan: Plan) -> list[str]:
    def listed(machines: tuple[plan.Machine, ...]) -> str:
        return ", ".join(f"{m.name} {m.address}" for m in machines)

    near = tuple(client for client in lab_plan.clients if client not in lab_plan.remote_clients)
    lines = [f"load balancers   {', '.join(lb.name for lb in lab_plan.site.load_balancers)}"]
    lines += [f"servers          {listed(lab_plan.servers)}", f"clients          {listed(near)}"]
    if lab_plan.remote_clients:
        lines.append(f"                 {listed(lab_plan.remote_clients)} (behind the router)")
    return [*lines, f"name server      dns {plan.NAME_SERVER}: {plan.SITE_NAME} is every external IP, in turn"]


def _parser(lab_plan: Plan) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"The lab {lab_plan.name}: {lab_plan.title}.")
    parser.add_argument(
        "--no-controller", action="store_true", help="start no ryu-manager: you will start one yourself"
    )
    parser.add_argument(
        "--run",
        metavar="COMMAND",
        action="append",
        default=[],
        help="a command of the prompt, instead of the prompt; may be given several times",
    )
    return parser
