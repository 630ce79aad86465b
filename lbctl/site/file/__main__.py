"""`python -m lbctl.site.file FILE`: reads a site file, in a process of its own. What it writes is pickled: the site
without its external IPs, and these in portions; or the list of the file's problems."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import replace
from typing import BinaryIO

from lbctl.site.file import ConfigError, load

NICE = 10
PORTION = 20
"""External IPs: whoever reads them has other things to do in between."""


def main(path: str, answer: BinaryIO) -> None:
    """Answers for one file."""
    try:
        site = load(path)
    except ConfigError as error:
        pickle.dump(error.errors, answer)
        return
    pickle.dump(replace(site, external_ips=()), answer)
    for start in range(0, len(site.external_ips), PORTION):
        pickle.dump(site.external_ips[start:start + PORTION], answer)


if __name__ == "__main__":
    os.nice(NICE)
    main(sys.argv[1], sys.stdout.buffer)
