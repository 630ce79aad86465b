"""The controller: does it answer, is what it needs installed, and what does it say?"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from lbctl.cli.client import START, Client, Unreachable
from lbctl.cli.doctor.finding import Finding, fail, ok, warn
from lbctl.cli.doctor.keepers import check_keeper
from lbctl.cli.doctor.load_balancers import check_drops, check_health, check_load_balancer
from lbctl.cli.doctor.servers import check_limit, check_servers
from lbctl.cli.failure import Failure


def check_controller(client: Client) -> Iterator[Finding]:
    """Without an answer, whether a controller could run here at all."""
    try:
        health = client.get("health")
    except Unreachable:
        yield fail(f"There is no controller at {client.url}.", f"{START}, or set LBCTL_URL")
        if client.is_local:
            yield from check_stack()
        return
    except Failure as failure:
        yield fail(str(failure), "export LBCTL_URL=http://ADDRESS:8080 LBCTL_TOKEN=TOKEN")
        return
    yield ok(f"The controller at {client.url} answers (lbctl {health['version']}).")
    if faults := health["internal_errors"]:
        yield fail(f"The controller has met {faults} faults of its own since it started; it goes on without what led "
                   "to them.", "its log has the tracebacks of \"internal error\": please report them")
    if crashes := health["crashes_in_a_row"]:
        yield fail(f"Before this start the controller had ended soon after its start, {crashes} times in a row.",
                   "its log says why before each start; report it with that part of the log")
    yield from check_drops("The controller", health["dropped"])
    for lb in client.get("load-balancers")["load_balancers"]:
        yield from check_load_balancer(lb)
        yield from check_health(lb)
    for external_ip in client.get("external-ips")["external_ips"]:
        yield from check_servers(external_ip)
        yield from check_limit(external_ip)
    for keeper in client.get("keepers")["keepers"]:
        yield check_keeper(keeper)


def check_stack() -> Iterator[Finding]:
    """Ryu as this project needs it, in the Python that runs this command."""
    mend = "./test.sh installs .venv with all that the controller needs; then: . .venv/bin/activate"
    eventlet, fork, original = _version("eventlet"), _version("c65ryu"), _version("ryu")
    if original:
        yield fail(f"PyPI's ryu {original} is installed, which does not start with a current eventlet.", mend)
    elif fork is None or eventlet is None:
        yield warn("Ryu is not installed beside this lbctl, so no controller can start from here.", mend)
    else:
        yield ok(f"Ryu (c65ryu {fork}) and eventlet {eventlet} are installed.")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
