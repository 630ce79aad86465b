"""Where each external IP is assigned, as it is saved again and again."""

from __future__ import annotations

from lbctl.ground.serving import Directory
from lbctl.values.addresses import Address


class Assigned:
    """Of a directory of external IPs. A large site has thousands, of which few have moved since the last time: only
    these are looked up, by their addresses."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._of: object = None
        """What the directory had the last time; each change makes another one."""
        self._addresses: list[Address] = []
        self._lbs: list[str] = []
        self._known: dict[Address, str] = {}

    def now(self) -> dict[Address, str]:
        """External IP -> LB."""
        lbs = [serving.assigned for serving in self._directory]
        if self._of is not self._directory.by_address:
            self._of, self._lbs = self._directory.by_address, lbs
            self._addresses = [serving.address for serving in self._directory]
            self._known = dict(zip(self._addresses, lbs, strict=True))
        for place, (before, lb) in enumerate(zip(self._lbs, lbs, strict=True)):
            if before != lb:
                self._known[self._addresses[place]] = lb
        self._lbs = lbs
        return dict(self._known)
