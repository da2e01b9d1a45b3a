"""The seal: known answers, a tree checked against the recursive oracle, and nothing sealed that a strict reader refuses."""

import json
import math
import struct
from enum import IntEnum, StrEnum
from hashlib import sha256, shake_256
from pathlib import Path
from typing import Any

import pytest
from core.known import changes, substrings
from core.merkle_oracle import Oracle
from hypothesis import given
from hypothesis import strategies as st

from events import forgeries
from events.known import cases
from translog.core.merkle import hash_leaf, prove_inclusion
from translog.errors import MalformedError, VerificationError
from translog.events.seal import (
    BLOB,
    Blob,
    Field,
    LeafTree,
    Payload,
    Sealed,
    decode_plain,
    encode_plain,
    event_root,
    find_blobs,
    hash_field,
    make_salts,
    put_back_blobs,
    seal,
    seal_texts,
    take_blobs,
)
from translog.events.texts import (
    LEAVES_MAX,
    TEXT_BYTES_MAX,
    TEXT_DEPTH_MAX,
    Header,
    format_header,
    make_json,
    make_texts,
    parse_header,
    parse_json,
    parse_text,
)

SEED = bytes(range(32))
WHERE = {"origin": "log.example.org/audit", "member": "acme", "stream": "k8s-prod"}
INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
EVENTS = st.dictionaries(TEXT, JSON, max_size=8)


def sealed(event: Any, **changes: Any) -> Sealed:
    return seal(event, **{"seed": SEED, **WHERE, **changes})


def nested(depth: int, kind: str = "list") -> Any:
    """Arrays or objects within each other, `depth` of them."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


# Known answers


def test_known_answers(shared: Path) -> None:
    for case in cases(shared):
        where = {name: case["parsed"][name] for name in ("member", "stream")}
        made = seal(case["event"], origin=case["origin"], seed=case["seed"], **where)
        assert made.texts == tuple(case["texts"])
        assert made.root == case["event_root"]
        assert seal_texts(case["texts"], seed=case["seed"]) == made
        assert make_salts(made.seed, len(made.texts)) == case["salts"]
        assert encode_plain(made) == case["payload_whole"]
        payload = decode_plain(case["payload_whole"])
        assert payload.leaves() == case["leaves"]
        assert (payload.seed, payload.root(), payload.event()) == (case["seed"], case["event_root"], case["event"])
        assert payload.header() == Header(origin=case["origin"], names=tuple(case["event"]), **where)
        erased = payload.erase(len(case["texts"]) - 1)
        assert encode_plain(erased) == case["payload_last_field_erased"]
        assert decode_plain(case["payload_last_field_erased"]) == erased
        assert hash_leaf(struct.pack(">Q", case["parsed"]["seq"]) + made.root) == case["stream_leaf_hash"]


def test_a_root_by_hand() -> None:
    made = sealed({"a": 1})
    header = b'["translog",{"v":1,"origin":"log.example.org/audit","member":"acme","stream":"k8s-prod","names":["a"]}]'
    salts = shake_256(b"translog/salts/1" + SEED).digest(32)
    leaves = [sha256(b"\0" + salts[:16] + header).digest(), sha256(b"\0" + salts[16:] + b'["a",1]').digest()]
    assert made.texts == (header, b'["a",1]')
    assert made.root == sha256(b"\2\0\2" + sha256(b"\1" + leaves[0] + leaves[1]).digest()).digest()


@pytest.mark.parametrize("count", [*range(1, 131), 255, 256, 257, 1_000])
def test_the_tree_is_that_of_the_oracle_and_so_is_every_proof(count: int) -> None:
    oracle = Oracle([b"%d" % n for n in range(count)])
    tree = LeafTree([oracle.mth(n, n + 1) for n in range(count)])
    assert tree.root == oracle.mth(0, count)
    for leaf in range(count) if count < 40 else (0, 1, count // 2, count - 1):
        assert prove_inclusion(index=leaf, size=count, reader=tree) == oracle.path(leaf, 0, count)


def test_the_number_of_leaves_is_part_of_the_root() -> None:
    assert len({event_root(bytes(32), count) for count in range(1, 300)}) == 299


# Sealing


@given(EVENTS, st.binary(min_size=32, max_size=32))
def test_any_event_is_sealed_in_compact_json_and_read_back_as_it_was(event: dict[str, Any], seed: bytes) -> None:
    made = sealed(event, seed=seed)
    for text, pair in zip(made.texts[1:], event.items(), strict=True):
        assert text == json.dumps(pair, separators=(",", ":"), ensure_ascii=False).encode()
    payload = decode_plain(encode_plain(made))
    assert list(payload.event().items()) == list(event.items())
    assert repr(payload.event()) == repr(event)  # 1 is not 1.0 is not True
    assert payload.root() == made.root == seal_texts(made.texts, seed=seed).root
    assert encode_plain(payload) == encode_plain(made)


def test_order_names_values_seed_and_place_all_change_the_root() -> None:
    roots = {
        sealed({"a": 1, "b": 2}).root,
        sealed({"b": 2, "a": 1}).root,
        sealed({"a": 1}).root,
        sealed({"a": 1.0}).root,
        sealed({"a": True}).root,
        sealed({"a": "1"}).root,
        sealed({"c": 1}).root,
        sealed({}).root,
        sealed({"a": 1}, seed=bytes(32)).root,
        sealed({"a": 1}, origin="x").root,
        sealed({"a": 1}, member="x").root,
        sealed({"a": 1}, stream="x").root,
    }
    assert len(roots) == 12


def test_equal_values_have_unequal_leaves() -> None:
    """Salts differ from field to field and from event to event, so nobody can guess a value from its leaf."""
    one, other = sealed({"a": "alice", "b": "alice"}), sealed({"a": "alice", "b": "alice"}, seed=bytes(32))
    leaves = [*decode_plain(encode_plain(one)).leaves(), *decode_plain(encode_plain(other)).leaves()]
    assert len(set(leaves)) == 6


class Number(IntEnum):
    ONE = 1


class Word(StrEnum):
    ONE = "one"


def test_enumerations_are_the_values_they_stand_for() -> None:
    assert sealed({"a": Number.ONE, "b": [Word.ONE]}) == sealed({"a": 1, "b": ["one"]})


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        [math.nan],
        2**53,
        -(2**53),
        {"a": [2**53]},
        [10**5_000],
        "\ud800",
        ["\udfff"],
        {"\ud800": 1},
        {1: 1},
        {None: 1},
        {"a": {True: 1}},
        b"bytes",
        (1, 2),
        {1, 2},
        object(),
        [object()],
    ],
)
def test_what_is_not_strict_json_is_not_sealed(value: Any) -> None:
    for refuse in (sealed, lambda event: take_blobs({"x": [event["x"]]}, seed=SEED, blob_bytes_min=1)):
        with pytest.raises(MalformedError):
            refuse({"x": value})


@pytest.mark.parametrize("name", [1, None, True, b"a", "\ud800"])
def test_a_name_that_is_no_text_is_not_sealed(name: Any) -> None:
    with pytest.raises(MalformedError):
        sealed({name: 1})


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1, 1e308, 5e-324, "\uffff", "\u2028\u2029\x7f\x80", "\0\x1f", ""])
def test_what_is_at_the_edge_is_sealed(value: Any) -> None:
    made = sealed({"x": value})
    assert decode_plain(encode_plain(made)).event() == {"x": value}
    assert made.texts[1] == json.dumps(["x", value], separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_nesting_is_sealed_to_the_depth_that_is_read_and_no_deeper(kind: str) -> None:
    value = nested(TEXT_DEPTH_MAX - 1, kind)  # the pair is one
    made = sealed({"x": value})
    assert parse_text(made.texts[1]) == ("x", value)
    assert make_json(nested(TEXT_DEPTH_MAX - 1, kind))
    for deep in (nested(TEXT_DEPTH_MAX, kind), nested(5_000, kind)):
        with pytest.raises(MalformedError, match="nested too deep"):
            sealed({"x": deep})
        with pytest.raises(MalformedError, match="nested too deep"):
            take_blobs({"x": deep}, seed=SEED, blob_bytes_min=10)
    with pytest.raises(MalformedError, match="nested too deep"):
        parse_text(json.dumps(["x", nested(TEXT_DEPTH_MAX, kind)]).encode())


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(MalformedError, match="nested too deep"):
        sealed({"x": circle})


def test_as_many_fields_as_a_u16_counts_are_sealed_and_no_more() -> None:
    most = {f"{n}": n for n in range(LEAVES_MAX - 1)}
    made = sealed(most)
    assert len(made.texts) == LEAVES_MAX
    assert decode_plain(encode_plain(made)).root() == made.root
    with pytest.raises(MalformedError) as caught:
        sealed({**most, "one more": 1})
    assert caught.value.code == "too-many-fields"


def test_a_text_of_the_largest_size_is_sealed_and_read_and_no_larger_one() -> None:
    value = "a" * (TEXT_BYTES_MAX - len('["x",""]'))
    assert parse_text(sealed({"x": value}).texts[1]) == ("x", value)
    with pytest.raises(MalformedError) as caught:
        sealed({"x": value + "a"})
    assert caught.value.code == "field-too-large"
    with pytest.raises(MalformedError, match="at most"):
        parse_text(json.dumps(["x", value + "a"], separators=(",", ":")).encode())


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_has_32_bytes(seed: bytes) -> None:
    with pytest.raises(MalformedError, match="a seed has 32 bytes"):
        sealed({"a": 1}, seed=seed)


def test_seeds_and_contents_do_not_show() -> None:
    made = sealed({"secret": "s3cr3t"})
    shown = repr(made) + repr(decode_plain(encode_plain(made)))
    assert "s3cr3t" not in shown
    assert repr(SEED) not in shown


# Texts made elsewhere


def test_texts_are_sealed_as_they_are_spelled() -> None:
    texts = [forgeries.header_of(["a", "b", "\uffff"]), *forgeries.FOREIGN_FIELDS]
    made = seal_texts(texts, seed=forgeries.SEED)
    assert made.texts == tuple(texts)
    assert made.root == forgeries.Tree(texts).root
    assert decode_plain(encode_plain(made)).event() == {"a": 1500.0, "b": {"\U0001f332": [-0.0, True]}, "\uffff": ""}


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [b'["a",1]'],
        [forgeries.header_of(["a"])],
        [forgeries.header_of(["a"]), b'["b",1]'],
        [forgeries.header_of(["a"]), b'["a",1]', b'["b",1]'],
        [forgeries.header_of(["a", "b"]), b'["b",1]', b'["a",1]'],
        [forgeries.header_of(["a", "a"]), b'["a",1]', b'["a",2]'],
        [forgeries.header_of(["a"], v=2), b'["a",1]'],
        [forgeries.header_of(["a"]) + b" ", b'["a",1]'],
        [forgeries.header_of(["a"]), b'["a",NaN]'],
        [forgeries.header_of(["a"]), b'["a",{"b":1,"b":1}]'],
        [forgeries.header_of(["a"]), b'["a","\xff"]'],
        [forgeries.header_of(["a"]), b'["a",{"$blob":{"salt":"","sha256":"","size":0}}]'],
        [forgeries.header_of(["a"]), b'["a",{"$blob":1}]'],
    ],
)
def test_texts_that_are_no_event_are_not_sealed(texts: list[bytes]) -> None:
    with pytest.raises(MalformedError):
        seal_texts(texts, seed=SEED)


def test_every_one_byte_change_of_a_header_is_refused_or_another_header() -> None:
    header = Header(origin="log.example.org/a", member="acme", stream="app", names=("message", "größe"))
    text = format_header(header)
    assert parse_header(text) == header
    for data in (*changes(text), *substrings(text)):
        try:
            found = parse_header(data)
        except MalformedError:
            continue
        assert found != header
        assert format_header(found) == data


def test_a_header_names_as_many_fields_as_there_may_be_and_no_more() -> None:
    names = [f"{n}" for n in range(LEAVES_MAX)]
    assert len(parse_header(forgeries.header_of(names[1:])).names) == LEAVES_MAX - 1
    with pytest.raises(MalformedError, match="too many"):
        parse_header(forgeries.header_of(names))


@given(JSON)
def test_strict_json_reads_what_the_plain_reader_reads(value: Any) -> None:
    for ensure_ascii in (False, True):
        data = json.dumps(value, ensure_ascii=ensure_ascii).encode()
        assert repr(parse_json(data)) == repr(value) == repr(json.loads(data))
    assert parse_json(make_json(value)) == value


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_strict_json_reads_or_refuses_any_bytes(data: bytes) -> None:
    try:
        value = parse_json(data)
    except MalformedError:
        return
    assert json.loads(data) == value


# Payloads


def test_every_field_can_be_erased_and_the_root_stays() -> None:
    event = {"a": 1, "b": {"c": "secret"}, "d": [None]}
    payload = decode_plain(encode_plain(sealed(event)))
    root = payload.root()
    for leaf in (2, 1, 3, 1):
        payload = payload.erase(leaf)
        assert (payload.root(), payload.seed) == (root, None)
        assert isinstance(payload.fields[leaf], bytes)
        plain = encode_plain(payload)
        assert decode_plain(plain) == payload
        assert SEED not in plain
        assert b"secret" not in plain
    assert payload.event() == {}
    assert payload.header().names == ("a", "b", "d")


def test_what_is_left_after_an_erasure_is_read() -> None:
    payload = decode_plain(encode_plain(sealed({"a": 1, "b": 2, "c": 3}))).erase(2)
    assert payload.event() == {"a": 1, "c": 3}


@pytest.mark.parametrize("leaf", [0, -1, 2, 65_536])
def test_the_header_and_what_is_not_there_cannot_be_erased(leaf: int) -> None:
    with pytest.raises(MalformedError, match="cannot be erased"):
        decode_plain(encode_plain(sealed({"a": 1}))).erase(leaf)


@pytest.mark.parametrize("erased", [False, True])
def test_every_one_byte_change_and_part_of_a_payload_is_refused_or_encodes_back(erased: bool) -> None:
    payload = decode_plain(encode_plain(sealed({"a": 1, "b": "two"})))
    good = payload.erase(1) if erased else payload
    plain = encode_plain(good)
    for data in (*changes(plain), *substrings(plain)):
        try:
            found = decode_plain(data)
        except MalformedError:
            continue
        assert encode_plain(found) == data
        assert found.root() != good.root()


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"\0",
        b"\3" + bytes(100),
        b"\1" + SEED,
        b"\1" + SEED + b"\0\0",
        b"\2\0\0",
        b"\2\0\1\0" + bytes(32),
        b"\2\0\1\2" + bytes(32),
        b"\2\0\1\1" + bytes(16) + b"\0\0\0\1a",
        b"\1" + SEED + b"\0\1\xff\xff\xff\xffa",
        encode_plain(sealed({"a": 1})) + b"\0",
    ],
)
def test_what_is_no_payload_is_refused(plain: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_plain(plain)


@pytest.mark.parametrize("texts", [[b'["a",1]'], [forgeries.header_of(["a"])], [forgeries.header_of(["a"]), b'["b",1]']])
def test_a_payload_whose_header_does_not_fit_is_read_as_no_event(texts: list[bytes]) -> None:
    fields = tuple(Field(bytes(16), text) for text in texts)
    with pytest.raises(MalformedError):
        Payload(fields=fields, seed=SEED).event()
    with pytest.raises(MalformedError):
        Payload(fields=(bytes(32), *fields), seed=None).event()


# Blobs


def blob_of(value: Any, number: int = 0, seed: bytes = SEED) -> tuple[dict[str, Any], Blob]:
    """A reference and its blob, by hand."""
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    salt = shake_256(b"translog/blob-salts/1" + seed).digest(16 * (number + 1))[-16:]
    digest = sha256(salt + data).digest()
    return {"$blob": {"salt": forgeries.b64(salt), "sha256": forgeries.b64(digest), "size": len(data)}}, Blob(salt, data)


def test_large_values_are_taken_out_in_order_and_put_back() -> None:
    event = {"a": "x" * 99, "b": 1, "c": {"d": ["ß" * 60]}, "e": "y" * 98, "f": [2**53 - 1] * 3}
    left, blobs = take_blobs(event, seed=SEED, blob_bytes_min=100)
    first, second = blob_of(event["a"]), blob_of(event["c"], 1)
    assert left == {**event, "a": first[0], "c": second[0]}
    assert list(left) == list(event)
    assert blobs == [first[1], second[1]]
    assert [(found.name, found.salt, found.size) for found in find_blobs(left)] == [
        ("a", first[1].salt, 101),
        ("c", second[1].salt, len(second[1].data)),
    ]
    assert put_back_blobs(left, [blob.data for blob in blobs]) == event
    assert sealed(left).root != sealed(event).root


def test_an_event_without_large_values_stays_as_it_is() -> None:
    event = {"a": "x" * 98, "b": 10**15, "c": {"$blob": 1, "d": 2}, "e": [{"$blob": 1}]}
    left, blobs = take_blobs(event, seed=SEED, blob_bytes_min=100)
    assert (left, blobs) == (event, [])
    assert put_back_blobs(left, []) == event


@pytest.mark.parametrize(
    "value", [{"$blob": 1}, {"$blob": {"salt": "", "sha256": "", "size": 0}}, blob_of("x")[0], {"$blob": {"$blob": None}}]
)
def test_what_could_be_mistaken_for_a_blob_is_made_one_and_read_back_as_it_was(value: Any) -> None:
    left, blobs = take_blobs({"a": value, "b": 1}, seed=SEED, blob_bytes_min=10**6)
    reference, blob = blob_of(value)
    assert (left, blobs) == ({"a": reference, "b": 1}, [blob])
    assert put_back_blobs(left, [blob.data]) == {"a": value, "b": 1}


@given(EVENTS, st.integers(0, 40))
def test_any_event_comes_back_from_its_blobs(event: dict[str, Any], blob_bytes_min: int) -> None:
    left, blobs = take_blobs(event, seed=SEED, blob_bytes_min=blob_bytes_min)
    for name, value in left.items():
        size = len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
        assert isinstance(event[name], int | float | None) or value != event[name] or size <= blob_bytes_min
    back = put_back_blobs(left, [blob.data for blob in blobs])
    assert repr(dict(back)) == repr(event)


def test_blobs_that_are_not_those_of_the_event_are_refused() -> None:
    event = {"a": "x" * 99, "b": "y" * 99}
    left, blobs = take_blobs(event, seed=SEED, blob_bytes_min=10)
    one, two = (blob.data for blob in blobs)
    for wrong in ([two, one], [one, one], [one, two + b" "], [one, two[:-1]], [one, b""], [one, two.replace(b"y", b"z", 1)]):
        with pytest.raises(VerificationError) as caught:
            put_back_blobs(left, wrong)
        assert caught.value.code == "blob-mismatch"
    for number in ([], [one], [one, two, two]):
        with pytest.raises(MalformedError, match="the event has 2 blobs"):
            put_back_blobs(left, number)


def test_a_blob_of_another_size_than_the_event_says_is_refused() -> None:
    left, blobs = take_blobs({"a": "x" * 99}, seed=SEED, blob_bytes_min=10)
    left["a"][BLOB]["size"] += 1
    with pytest.raises(VerificationError):
        put_back_blobs(left, [blob.data for blob in blobs])


def test_a_blob_that_is_no_strict_json_is_refused() -> None:
    data = b'{"a":1,"a":1}'
    salt = bytes(16)
    digest = sha256(salt + data).digest()
    reference = {BLOB: {"salt": forgeries.b64(salt), "sha256": forgeries.b64(digest), "size": len(data)}}
    with pytest.raises(MalformedError, match="occurs twice"):
        put_back_blobs({"a": reference}, [data])


@pytest.mark.parametrize(
    "inner",
    [
        None,
        {},
        {"salt": "", "sha256": "", "size": 0},
        {**blob_of("x")[0]["$blob"], "size": True},
        {**blob_of("x")[0]["$blob"], "size": "3"},
        {**blob_of("x")[0]["$blob"], "salt": 1},
        {**blob_of("x")[0]["$blob"], "sha256": None},
        {**blob_of("x")[0]["$blob"], "extra": 1},
        dict(reversed(blob_of("x")[0]["$blob"].items())),
    ],
)
def test_a_reference_that_is_none_is_refused(inner: Any) -> None:
    with pytest.raises(MalformedError):
        find_blobs({"a": {BLOB: inner}})
    with pytest.raises(MalformedError):
        put_back_blobs({"a": {BLOB: inner}}, [b'"x"'])


def test_a_field_and_its_salt_make_its_leaf() -> None:
    assert hash_field(b"salt", b"text") == sha256(b"\0salttext").digest()


def test_texts_are_made_without_sealing() -> None:
    where = (WHERE["origin"], WHERE["member"], WHERE["stream"])
    made = [make_texts({"a": 1}, origin=where[0], member=where[1], stream=where[2], is_plain=plain) for plain in (False, True)]
    assert made == [sealed({"a": 1}).texts] * 2


@pytest.mark.parametrize("value", [object(), math.nan, "\ud800", nested(10_000)])
def test_an_event_that_only_claims_to_be_plain_is_refused_where_it_cannot_be_encoded(value: Any) -> None:
    with pytest.raises(MalformedError):
        make_texts({"a": value}, origin="o", member="m", stream="s", is_plain=True)
