"""Token files: made for their owner alone, and never twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbctl.http.tokens import TokenError, make_token, read_token


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    make_token(file)
    token = read_token(file)
    assert len(bytes.fromhex(token)) == 32 and file.stat().st_mode & 0o777 == 0o600
    make_token(file)
    assert read_token(file) == token


def test_a_token_that_can_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="nowhere/token cannot be made"):
        make_token(tmp_path / "nowhere" / "token")
