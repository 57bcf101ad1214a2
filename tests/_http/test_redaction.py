"""Tests of redaction: which secrets are removed from which part of a response."""

from __future__ import annotations

import html
import json
from urllib.parse import quote

import pytest

from together_batches._http.redaction import Redactor

KEY = "tgp_v1_0123456789"
VALUE = 'token "<äö>" & more'


def test_the_key_is_taken_out_of_everything() -> None:
    """The key is removed even from successful responses, because no field of a job is a key."""
    redactor = Redactor(KEY, {})
    assert redactor.success_body(f"a {KEY} b".encode()) == b"a [secret] b"
    assert redactor.error_body(f"a {KEY} b".encode()) == b"a [secret] b"
    assert redactor.text(f"Bearer {KEY}") == "Bearer [secret]"
    assert redactor.is_in(((b"X-Echo", f"Bearer {KEY}".encode()),))


@pytest.mark.parametrize(
    "echo",
    [VALUE, json.dumps(VALUE), json.dumps(VALUE, ensure_ascii=False), html.escape(VALUE), quote(VALUE, safe="")],
)
def test_a_header_of_the_callers_is_taken_out_of_what_is_shown(echo: str) -> None:
    """A caller's header value is removed in every spelling, except from the body of a successful response."""
    redactor = Redactor(KEY, {"X-Team": f" {VALUE} "})
    for shown in (redactor.error_body(f"a {echo}".encode()).decode(), redactor.text(f"a {echo}")):
        assert "token" not in shown
        assert "[secret]" in shown
    assert redactor.is_in(((b"X-Echo", echo.encode()),))
    assert redactor.success_body(echo.encode()) == echo.encode()


@pytest.mark.parametrize("name", ["X-Gateway-Token", "Cf-Access-Client-Secret", "X-Api-Key", "Cookie"])
def test_a_header_that_is_named_as_a_secret_is_one(name: str) -> None:
    """A header with the name of a secret is removed from successful responses, too."""
    assert Redactor(KEY, {name: "0123456789"}).success_body(b"a 0123456789") == b"a [secret]"


def test_a_secret_within_another_leaves_nothing_of_the_longer_one() -> None:
    """The longest secret is replaced first, so that no part of it remains."""
    assert Redactor(KEY, {"X-Team": f"{KEY}-and-more"}).text(f"{KEY}-and-more") == "[secret]"


def test_short_secrets_mutilate_nothing() -> None:
    """Secrets of tests are short, occur in many responses by accident, and stay."""
    redactor = Redactor("test", {"X-Token": "blue"})
    assert redactor.error_body(b"test blue") == b"test blue"
    assert redactor.text("test blue") == "test blue"
    assert not redactor.is_in(((b"X", b"test blue"),))


def test_a_redactor_shows_nothing() -> None:
    """A dump of the variables of its owner shows no secret of a redactor."""
    redactor = Redactor(KEY, {"X-Token": KEY})
    assert KEY not in repr(redactor)
    with pytest.raises(TypeError):
        vars(redactor)
