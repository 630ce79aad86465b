"""A site as the text of a site file: what lbctl.site.file reads, without what is a default."""

from __future__ import annotations

import yaml

from lbctl.site.documents import short_document_of
from lbctl.site.model import Site


def site_text(site: Site) -> str:
    """The site file that says what `site` says."""
    return yaml.safe_dump(short_document_of(site), sort_keys=False)
