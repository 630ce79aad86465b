"""Network namespaces as the lbctl command sees them; others than its own are entered in test_topologies.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbctl.cli.failure import Failure
from lbctl.cli.namespace import NetworkNamespace, _Inside

GONE = 2**22 + 1
"""More than any process id."""


@pytest.mark.parametrize("pid", [None, GONE, os.getpid()], ids=["none", "gone", "our own"])
def test_where_there_is_no_other_it_is_our_own(pid: int | None) -> None:
    namespace = NetworkNamespace(pid)
    assert namespace.run("readlink", "/proc/self/ns/net") == os.readlink("/proc/self/ns/net") + "\n"
    assert namespace.call(lambda: 7) == 7


def test_what_fails_or_is_not_installed_says_nothing() -> None:
    namespace = NetworkNamespace()
    assert namespace.run("false") is None and namespace.run("no-such-program-here") is None


def test_a_process_that_has_ended_meanwhile_is_told() -> None:
    with pytest.raises(Failure, match=rf"/proc/{GONE}/ns/net cannot be entered \(No such file or directory\)"):
        _Inside(Path(f"/proc/{GONE}/ns/net"), lambda: 7).result()
