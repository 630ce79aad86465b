"""What the labs use of Mininet, with types: Mininet itself has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from typing import IO, Any

    class Interface:
        """A network interface of a node; printed, it is its name."""

        ip: str | None
        prefixLen: str | None

    class Node:
        """A shell in a network and mount namespace of its own."""

        name: str
        pid: int
        shell: subprocess.Popen[bytes] | None
        stdout: IO[str]
        waiting: bool

        def __init__(self, name: str, **params: object) -> None: ...
        def read(self, size: int = 1024) -> str: ...
        def startShell(self, mnopts: str | None = None) -> None: ...  # noqa: N802
        def cmd(self, *words: object) -> str: ...
        def sendCmd(self, *words: object) -> None: ...  # noqa: N802
        def monitor(self, timeoutms: int | None = None) -> str: ...
        def popen(self, command: Sequence[str], **options: object) -> subprocess.Popen[bytes]: ...
        def intfList(self) -> list[Interface]: ...  # noqa: N802
        def intfNames(self) -> list[str]: ...  # noqa: N802
        def config(self, **params: object) -> dict[str, object]: ...
        def terminate(self) -> None: ...

    class Switch(Node):
        """A node that connects others."""

        dpid: str

        def start(self, controllers: Sequence[object]) -> None: ...
        def stop(self, deleteIntfs: bool = True) -> None: ...  # noqa: N803

    class Controller(Node):
        """A node that runs a controller."""

    class Topo:
        """Which nodes there are, and how they are linked; Mininet makes them when it is built."""

        def __init__(self, **params: Any) -> None: ...  # for build
        def build(self) -> None: ...
        def addHost(self, name: str, cls: type[Node], **options: object) -> str: ...  # noqa: N802
        def addSwitch(self, name: str, cls: type[Switch], **options: object) -> str: ...  # noqa: N802
        def addLink(self, one: str, other: str, **options: object) -> object: ...  # noqa: N802

    class Mininet:
        """The nodes of a topology while they exist."""

        inited: bool
        topo: Topo
        hosts: list[Node]
        switches: list[Switch]

        def __init__(self, topo: Topo, controller: None, build: bool) -> None: ...
        def build(self) -> None: ...
        def start(self) -> None: ...
        def configHosts(self) -> None: ...  # noqa: N802
        def addHost(self, name: str, **params: Any) -> Node: ...  # noqa: N802
        def addSwitch(self, name: str, **params: Any) -> Switch: ...  # noqa: N802
        def addLink(self, node1: Node | str, node2: Node | str, **params: Any) -> object: ...  # noqa: N802
        def __contains__(self, name: object) -> bool: ...
        def __getitem__(self, name: str) -> Node: ...

    class Prompt:
        """Mininet's prompt, a cmd.Cmd."""

        identchars: str
        mn: Mininet

        def __init__(self, mininet: Mininet, script: str | None = None) -> None: ...
        def isatty(self) -> bool: ...
        def parseline(self, line: str) -> tuple[str | None, str | None, str]: ...
        def waitForNode(self, node: Node) -> None: ...  # noqa: N802
        def default(self, line: str) -> None: ...

    class _Log:
        def setLogLevel(self, name: str) -> None: ...  # noqa: N802

    lg: _Log
else:
    from mininet.cli import CLI as Prompt
    from mininet.link import Intf as Interface
    from mininet.log import lg
    from mininet.net import Mininet
    from mininet.node import Controller, Node, Switch
    from mininet.topo import Topo

__all__ = ["Controller", "Interface", "Mininet", "Node", "Prompt", "Switch", "Topo", "lg"]
