"""The test bed with what benchmarks need besides: nginx on the servers, HAProxy beside the LBs, wrk on the clients."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.measuring.findings import Result, median, per_second
from evaluation.measuring.record import figure
from tests.bed.bed import Bed
from tests.bed.namespaces import Namespace
from tests.bed.processes import CommandFailed
from tests.bed.sites import SERVER_PORT
from tests.bed.traffic import connect
from topologies.queues import long_receive_queues

HAPROXY_EXTERNAL, HAPROXY_INTERNAL = "198.51.100.60", "10.0.0.60"
HAPROXY_OTHER_PORT = 81
"""It serves the same there as on port 80."""
NGINX = """\
worker_processes 1;
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 5000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    server {{
        listen {port} backlog=16384;
        location / {{ return 200 "{name}\\n"; }}
    }}
}}
"""
HAPROXY = """\
global
    maxconn 5000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend service
    bind {address}:80
    bind {address}:{other_port}
    default_backend servers
backend servers
    balance roundrobin
{servers}
"""


class Scene(Bed):
    """A bed whose namespace `haproxy` sits on the external and the internal network, as an LB does.

    Its switches have receive queues as long as in the labs.
    """

    def _build(self) -> None:
        with long_receive_queues():
            super()._build()
        self.haproxy = self.hosts.add(
            "haproxy", "external", [f"{HAPROXY_EXTERNAL}/{self.site.external_networks[0].prefixlen}"]
        )
        self.hosts.plug(self.haproxy, "eth1", "internal")
        self.haproxy.ip("addr", "add", f"{HAPROXY_INTERNAL}/{self.site.internal_networks[0].prefixlen}", "dev", "eth1")
        for space in (*self.clients, self.haproxy):
            space.sysctl(ipv4__ip_local_port_range="1024 65535")

    @property
    def namespaces(self) -> list[Path]:
        """Everything that runs for this bed runs inside these."""
        balancers = [node.space for node in self.lbs.values()]
        others = (self.switch, self.controller.space, self.router, self.remote, self.haproxy)
        return [space.path for space in (*balancers, *self.servers, *self.clients, *others)]

    def start_nginx(self) -> None:
        """nginx in place of the bed's own servers, which are too slow to be measured through."""
        for space in self.servers:
            self.server_scripts[space.name].kill()
            directory = self.directory / f"nginx-{space.name}"
            directory.mkdir()
            config = directory / "nginx.conf"
            config.write_text(NGINX.format(directory=directory, port=SERVER_PORT, name=space.name))
            self._daemon(space, space.name.removeprefix("server-"), SERVER_PORT, "nginx", "-p", directory, "-c", config)

    def start_haproxy(self) -> None:
        """HAProxy in TCP mode, one thread for each core as by default, round-robin to the same servers."""
        lines = [
            f"    server s{n} {space.name.removeprefix('server-')}:{SERVER_PORT}"
            for n, space in enumerate(self.servers)
        ]
        config = self.directory / "haproxy.cfg"
        places = {"address": HAPROXY_EXTERNAL, "other_port": HAPROXY_OTHER_PORT}
        config.write_text(HAPROXY.format(**places, servers="\n".join(lines)))
        self._daemon(self.haproxy, HAPROXY_EXTERNAL, 80, "haproxy", "-db", "-f", config)

    def _daemon(self, space: Namespace, address: str, port: int, *command: object) -> None:
        """Returns when it listens. It ends with the bed, which ends whatever runs in its namespaces."""
        log = self.directory / f"{space.name}-{command[0]}.log"
        with log.open("w") as output:
            space.popen(*command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

        def listens() -> bool:
            with connect(space, address, port):
                return True

        self.wait_until(listens, 10.0, f"{command[0]} listening; see {log}")


@dataclass(frozen=True)
class Load:
    """What wrk measured, all clients together. `errors`: connections or requests that failed."""

    per_second: float
    errors: int

def compared(
    what: str, names: tuple[str, str], runs: Sequence[tuple[Load, Load]], others: Sequence[float], target: float
) -> Result:
    """Two loads, one right after the other, in each run: the second is the yardstick. Passed when the ratio of their
    medians reaches the target and the first had no errors. `others`: of each run, see Result."""
    ours, yardstick = ([load.per_second for load in loads] for loads in zip(*runs, strict=True))
    errors = sum(load.errors for load, _ in runs)
    ratio = median(ours) / median(yardstick)
    return Result(
        what,
        per_second(median(ours)) + (f", {errors} errors" if errors else ""),
        f"{names[1]} {per_second(median(yardstick))}",
        f"{ratio:.2f}",
        f">= {target:g}",
        len(runs),
        max(others),
        ratio >= target and not errors,
        {names[0]: figure("1/s", ours), names[1]: figure("1/s", yardstick)},
    )


def wrk(clients: Sequence[Namespace], url: str, seconds: float, *, connections: int, close: bool) -> Load:
    """HTTP requests from all clients at once, each with so many connections; `close`: a new one for each request.

    Raises CommandFailed when a wrk fails.
    """
    header = ("-H", "Connection: close") if close else ()
    command = ("wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "5s", *header, url)
    running = [client.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for client in clients]
    outputs = [process.communicate(timeout=seconds + 30)[0] for process in running]
    rate, errors = 0.0, 0
    for output in outputs:
        found = re.search(r"Requests/sec:\s+([\d.]+)", output)
        if not found:
            raise CommandFailed(f"wrk {url}: {output.strip()}")
        rate += float(found[1])
        errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", output) for n in re.findall(r"\d+", line))
        errors += sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    return Load(rate, errors)
