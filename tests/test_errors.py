"""The exception tree: stable codes, and sentences that say what to do."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from translog import errors
from translog.errors import NotFoundError, OldSizeError, PushbackError, RateLimitedError, RemoteError, TranslogError


def family(error: type[TranslogError]) -> Iterator[type[TranslogError]]:
    yield error
    for child in error.__subclasses__():
        yield from family(child)


FAMILY = list(family(TranslogError))


def test_every_error_of_the_module_is_in_the_tree() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined == {error for error in FAMILY if error.__module__ == errors.__name__}
    assert len(defined) > 15


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [error.default_code for error in FAMILY]
    assert len(set(codes)) == len(codes)
    assert all("default_code" in vars(error) for error in FAMILY)


@pytest.mark.parametrize("error", FAMILY)
def test_codes_are_kebab_case_and_errors_say_what_they_are_for(error: type[TranslogError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.default_code)
    assert error.__doc__


@pytest.mark.parametrize("error", FAMILY)
def test_an_error_carries_detail_hint_and_code(error: type[TranslogError]) -> None:
    needs: dict[str, Any] = {"retry_after_ms": 5} if error in (PushbackError, RateLimitedError) else {}
    if error is OldSizeError:
        needs = {"size": 5}
    bare = error("what is wrong", **needs)
    assert (str(bare), bare.detail, bare.hint, bare.code) == ("what is wrong", "what is wrong", "", error.default_code)
    full = error("what is wrong", hint="what to do", code="special", **needs)
    assert (str(full), full.detail, full.hint, full.code) == (
        "what is wrong (what to do)",
        "what is wrong",
        "what to do",
        "special",
    )


def test_errors_that_may_be_tried_again_say_when() -> None:
    assert NotFoundError("d").retry_after_ms is None
    assert NotFoundError("d", retry_after_ms=7).retry_after_ms == 7
    assert PushbackError("d", retry_after_ms=8).retry_after_ms == 8
    remote = RemoteError("d", status=503, retry_after_ms=9)
    assert (remote.status, remote.retry_after_ms) == (503, 9)
    assert (RemoteError("d").status, RemoteError("d").retry_after_ms) == (None, None)
