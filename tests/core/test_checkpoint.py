"""Checkpoint texts: one spelling per tree head."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.known import TEXT, text_changes
from translog.core.checkpoint import ORIGIN_BYTES_MAX, Checkpoint, format_checkpoint, parse_checkpoint
from translog.core.merkle import EMPTY_ROOT
from translog.core.wire import SIZE_MAX, encode_base64
from translog.errors import MalformedError

EMPTY_B64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
ROOT_B64 = encode_base64(bytes(range(32)))


def test_our_known_checkpoint() -> None:
    checkpoint = parse_checkpoint(TEXT)
    assert (checkpoint.origin, checkpoint.size, checkpoint.extensions) == ("example.com/log", 1, ())
    assert checkpoint.root.hex().startswith("8a2a5c9b7688")
    assert format_checkpoint(checkpoint) == TEXT


def test_an_origin_need_not_be_a_name_or_url() -> None:
    text = f"go.sum database tree\n35225469\n{ROOT_B64}\n"
    checkpoint = parse_checkpoint(text)
    assert checkpoint == Checkpoint(origin="go.sum database tree", size=35225469, root=bytes(range(32)))
    assert format_checkpoint(checkpoint) == text


def test_extension_lines_are_kept() -> None:
    text = f"o\n1\n{ROOT_B64}\nfirst\n second \u2028\n"
    assert parse_checkpoint(text).extensions == ("first", " second \u2028")
    assert format_checkpoint(parse_checkpoint(text)) == text


def test_the_empty_tree_has_its_own_root_but_a_wrong_one_still_parses() -> None:
    assert parse_checkpoint(f"o\n0\n{EMPTY_B64}\n").root == EMPTY_ROOT
    assert parse_checkpoint(f"o\n0\n{ROOT_B64}\n").size == 0  # a witness answers it with 422, not with 400
    assert parse_checkpoint(f"o\n1\n{EMPTY_B64}\n").size == 1


@pytest.mark.parametrize("size", ["", "01", "00", "-1", "+1", " 1", "1 ", "1_0", "\u0661", "1.0", str(SIZE_MAX + 1), "x"])
def test_a_size_in_another_spelling_or_out_of_range_is_refused(size: str) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(f"o\n{size}\n{ROOT_B64}\n")


def test_the_largest_size_is_read() -> None:
    assert parse_checkpoint(f"o\n{SIZE_MAX}\n{ROOT_B64}\n").size == SIZE_MAX


@pytest.mark.parametrize(
    "root",
    [
        "",
        ROOT_B64[:-1],
        ROOT_B64[:-2] + "9=",
        ROOT_B64 + "=",
        ROOT_B64 + " ",
        " " + ROOT_B64,
        ROOT_B64.replace("+", "-").replace("A", "-"),
        encode_base64(bytes(31)),
        encode_base64(bytes(33)),
        bytes(32).hex(),
    ],
)
def test_a_root_that_is_not_canonical_base64_of_32_bytes_is_refused(root: str) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(f"o\n1\n{root}\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "o\n",
        "o\n1\n",
        f"o\n1\n{ROOT_B64}",
        f"\n1\n{ROOT_B64}\n",
        f"o\n\n1\n{ROOT_B64}\n",
        f"o\n1\n{ROOT_B64}\n\n",
        f"o\n1\n{ROOT_B64}\n\nmore\n",
        f"o\n1\n{ROOT_B64}\nmore\n\n",
        f"\no\n1\n{ROOT_B64}\n",
        f"o\r\n1\r\n{ROOT_B64}\r\n",
    ],
)
def test_missing_or_empty_lines_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_checkpoint(text)


def test_an_origin_of_more_than_255_bytes_is_refused() -> None:
    assert parse_checkpoint(f"{'o' * 255}\n1\n{ROOT_B64}\n").origin == "o" * ORIGIN_BYTES_MAX
    for origin in ("o" * 256, "\u2014" * 86):
        with pytest.raises(MalformedError, match="255 bytes"):
            parse_checkpoint(f"{origin}\n1\n{ROOT_B64}\n")


def test_every_substring_and_change_of_a_checkpoint_is_refused_or_formats_back() -> None:
    """What is accepted has another origin, size, root or extension line: only a signature can tell."""
    taken = 0
    for text in (*text_changes(TEXT), *text_changes(f"o\n0\n{EMPTY_B64}\next\n")):
        try:
            checkpoint = parse_checkpoint(text)
        except MalformedError:
            continue
        taken += 1
        assert format_checkpoint(checkpoint) == text
    assert taken


LINE = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x20), min_size=1, max_size=60)


@given(LINE, st.integers(min_value=1, max_value=SIZE_MAX), st.binary(min_size=32, max_size=32), st.lists(LINE, max_size=3))
def test_any_checkpoint_round_trips(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin=origin, size=size, root=root, extensions=tuple(extensions))
    assert parse_checkpoint(format_checkpoint(checkpoint)) == checkpoint
