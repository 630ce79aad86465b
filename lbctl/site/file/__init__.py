"""The site file: YAML (or JSON) -> `lbctl.site.model.Site`, or all its problems at once, each with file and line.

The format is shown by examples/site.yaml, and every key is listed in docs/site-file.md. Every list needs at least one
item (to take a service out of use, remove the service, not its last server).

Which keys there are, and what each may be, is declared in `lbctl.site.model`; `loader` reads them by that. The other
modules are rules: what keys must not contradict in one another.
"""

from __future__ import annotations

from pathlib import Path

from lbctl.site.file.loader import Loader
from lbctl.site.file.rules import check_site
from lbctl.site.file.yaml_reader import ConfigError, Mistake
from lbctl.site.forms import Part
from lbctl.site.model import Site

__all__ = ["ConfigError", "Mistake", "load", "parse"]

MAX_BYTES = 4 * 1024 * 1024


def load(path: str | Path) -> Site:
    """Read and validate a site file. Raises ConfigError, also when it cannot be read."""
    file = str(path)
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([Mistake(file, None, "there is no such file")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError([Mistake(file, None, f"cannot be read: {reason}")]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError([Mistake(file, None, f"larger than {MAX_BYTES // 1024**2} MiB: this is no site file")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise ConfigError([Mistake(file, line, message)]) from None
    return parse(text, file)


def parse(text: str, file: str = "site file") -> Site:
    """Validate the text of a site file; `file` is the name that problems carry. Raises ConfigError."""
    loader = Loader(file)
    root = loader.compose(text)
    draft = loader.part(Part(Site, "site file"), root) if root is not None else None
    if draft is not None:
        check_site(draft, loader)
    elif not loader.problems:
        loader.problem(None, "the file is empty: examples/site.yaml shows what belongs into it")
    if draft is None or loader.problems:
        raise ConfigError(loader.problems)
    site: Site = draft.built()
    return site
