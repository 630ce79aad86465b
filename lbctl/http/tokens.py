"""The token that requests must carry (RFC 6750): of the controller's REST API and of the keepers' alike."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


class TokenError(Exception):
    """A token file that can't be used; the message begins with its name."""


def read_token(file: Path) -> str:
    """Raises TokenError if the file can't be read, or holds anything but one token."""
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise TokenError(f"{file} cannot be read: {error}") from error
    if not token or any(character.isspace() for character in token):
        raise TokenError(f"{file} must hold one token, for example: openssl rand -hex 32 > {file}")
    return token


def make_token(file: Path) -> None:
    """A new token in that file, for its owner alone; one that is there stays. Raises TokenError."""
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise TokenError(f"{file} cannot be made: {error}") from error
    with os.fdopen(number, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(32) + "\n")


def missing_token(headers: Mapping[str, str], token: str | None, who: str) -> str | None:
    """What is wrong with a request that does not carry the token; None if nothing is wrong, or no token is wanted.

    who: what the request was sent to, in a word for people.
    """
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if token is None or scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return None
    return "The token is wrong." if given else f"This {who} wants a token: send `Authorization: Bearer TOKEN`."
