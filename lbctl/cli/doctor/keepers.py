"""What the controller says of the keepers."""

from __future__ import annotations

from typing import Any

from lbctl.cli.doctor.finding import Finding, ok, warn


def check_keeper(keeper: dict[str, Any]) -> Finding:
    """Is the copy of that server's entries as it should be?"""
    if keeper["last_failure"] or keeper["behind"]:
        return warn(
            f"The keeper of {keeper['server']} is {keeper['lag']:.1f} s behind: "
            f"{keeper['last_failure'] or 'it is slow'}.",
            f"on the server: journalctl -u lbctl-keeper; does the controller's host reach {keeper['url']}?",
        )
    return ok(f"The keeper of {keeper['server']} {'has a full copy' if keeper['synced'] else 'is being given a copy'}.")
