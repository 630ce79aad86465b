"""lbctl config check: is this site file right?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lbctl.cli import output
from lbctl.site.file import ConfigError, load

app = typer.Typer(no_args_is_help=True, help="Work on site files.", rich_markup_mode=None)


@app.callback()
def _config() -> None:
    """Work on site files."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The site file.")],
    json: output.Json = False,
) -> None:
    """Check a site file: print every error with its line, or that there is none."""
    try:
        site = load(file)
    except ConfigError as error:
        if json:
            output.print_json({"valid": False, "errors": [{"file": problem.file, "line": problem.line,
                                                           "message": problem.message} for problem in error.errors]})
        else:
            for problem in error.errors:
                output.print_line(str(problem))
            output.remark(f"{file}: {len(error.errors)} error{'s' if len(error.errors) > 1 else ''}.")
        raise typer.Exit(1) from None
    if json:
        output.print_json({"valid": True, "errors": []})
    else:
        output.print_line(f"{file} is right: {len(site.load_balancers)} load balancers, "
                          f"{len(site.external_ips)} external IPs.")
