"""Which entries are recorded (`nat_log`), and the records on their way to the file."""

from __future__ import annotations

from lbctl.entries.access_table import Entry
from lbctl.entries.nat_records import NatRecord, RecordedEvent
from lbctl.ground.effects import Outbox, WriteRecords
from lbctl.ground.ground import Ground
from lbctl.ground.serving import Serving


class Recorder:
    """Of all external IPs whose port is not the inside host's (the client's) own."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._records: list[NatRecord] = []
        """Since the last tick."""
        self.site_changed()

    def site_changed(self) -> None:
        """Entries that are there when recording begins are told when they end."""
        for serving in self._ground.external_ips:
            serving.recorder = self._note if self._recorded(serving) else None

    def _recorded(self, serving: Serving) -> bool:
        site = self._ground.site
        return bool(site.nat_log) and (serving.outbound or site.nat_log_of == "all" and serving.ports is not None)

    def _note(self, event: RecordedEvent, entry: Entry, now: float) -> None:
        self._records.append(NatRecord(event, now, entry.created, entry.key, entry.reply))

    def tick(self, _now: float) -> Outbox:
        """What there is to write."""
        records, file = self._records, self._ground.site.nat_log
        if not records:
            return []
        self._records = []
        return [WriteRecords(file, records)] if file else []
