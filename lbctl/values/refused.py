"""An order that can't be carried out."""

from __future__ import annotations


class Refused(Exception):
    """An order that can't be carried out; `status` is the HTTP status that says so."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail
