"""Which connection is which LB's, and who sends there."""

from __future__ import annotations

from collections.abc import Container

from lbctl.openflow.outbound import EntryCodec
from ryu_apps.shell.sender import Encode, Sender, SwitchConnection
from ryu_apps.shell.threads import Threads


class Switchboard:
    """The connections that the core knows of. `names` and `senders` are for reading only."""

    def __init__(self, encode: Encode, codec: EntryCodec, threads: Threads) -> None:
        self._encode, self._codec, self._threads = encode, codec, threads
        self.names: dict[SwitchConnection, str] = {}
        """The LB at the other end."""
        self.senders: dict[str, Sender] = {}
        """By LB."""

    def connected(self, name: str, connection: SwitchConnection) -> None:
        """From now on messages for that LB go there."""
        self.names[connection] = name
        self.senders[name] = Sender(connection, self._encode, self._codec, self._threads)

    def lost(self, connection: SwitchConnection) -> str | None:
        """The LB that was at its other end; None if it was nobody's."""
        name = self.names.pop(connection, None)
        if name is not None:
            self.senders.pop(name).stop()
        return name

    def keep(self, names: Container[str]) -> None:
        """Ends the connections of all other LBs."""
        for connection in [connection for connection, name in self.names.items() if name not in names]:
            self.lost(connection)
            connection.close()

    def use(self, codec: EntryCodec) -> None:
        """For all that is encoded from now on."""
        self._codec = codec
        for sender in self.senders.values():
            sender.use(codec)
