"""The lbctl command: its commands, and how it ends."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from lbctl import __version__
from lbctl.cli import config, drain_server, keeper, move, nat_log, rebalance, scheduler, servers, status, table
from lbctl.cli.doctor import command as doctor
from lbctl.cli.failure import Failure
from lbctl.cli.where import command as where


class _Lbctl(typer.Typer):
    """Ends with 0, with 1 and one line if it failed, with 2 if it was used wrongly; never with a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except Failure as failure:
            print(f"lbctl: {failure}", file=sys.stderr)
        except KeyboardInterrupt:
            print("lbctl: interrupted", file=sys.stderr)
        except Exception as error:
            print(f"lbctl: internal error: {type(error).__name__}: {error}. Please report it with the command that "
                  "brought it.", file=sys.stderr)
        sys.exit(1)


app = _Lbctl(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Load balancers whose external IPs move without losing connections. The controller is found by LBCTL_URL "
         "(default http://127.0.0.1:8080); LBCTL_TOKEN is its token, if it wants one.")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lbctl {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True,
                                                   help="Print the version.")] = False) -> None:
    pass


app.command("status")(status.status)
app.command("table")(table.table)
app.command("move")(move.move)
app.command("failover")(move.failover)
app.command("rebalance")(rebalance.rebalance)
app.command("drain")(rebalance.drain)
app.command("moves")(move.moves)
app.command("abort")(move.abort)
app.command("scheduler")(scheduler.scheduler)
app.command("entries")(scheduler.entries)
app.command("drain-server")(drain_server.drain_server)
app.add_typer(servers.app, name="server")
app.command("where")(where.where)
app.command("nat-log")(nat_log.nat_log)
app.command("doctor")(doctor.doctor)
app.command("keeper")(keeper.keeper)
app.add_typer(config.app, name="config")
