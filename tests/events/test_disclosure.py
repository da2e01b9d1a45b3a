"""Disclosures and evidence: known answers, what evidence proves, and that nothing forged is believed."""

import json
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core.known import substrings
from hypothesis import given
from hypothesis import strategies as st

from events import forgeries
from events.forgeries import (
    ED25519,
    EVENT,
    INDEX,
    LOG,
    MLDSA44,
    NAMES,
    OLD_TIME_S,
    ORIGIN,
    POLICIES,
    POLICY,
    SEED,
    SENDER,
    SHOWN,
    SIGNERS,
    SIZE,
    STRANGER,
    TIME_S,
    WITNESS,
    WITNESS_MLDSA,
    Forgery,
)
from events.known import cases
from translog.core.keys import KeyType, SKey
from translog.core.policy import Policy, parse_policy
from translog.core.quorum import accepted_since
from translog.errors import DisclosureError, MalformedError, NotFoundError, SignatureError, TranslogError, VerificationError
from translog.events.disclosure import (
    EVIDENCE_BYTES_MAX,
    Disclosure,
    Evidence,
    LinkedCheckpoint,
    VerifiedEvidence,
    format_evidence,
    make_disclosures,
    make_evidence,
    parse_evidence,
    verify_evidence,
)
from translog.events.seal import decode_plain, encode_plain, seal

TRUSTED = {name: parse_policy(text.encode()) for name, text in POLICIES.items()}
GROUP = parse_policy(POLICY.encode())
GOOD = forgeries.good()
FORGERIES = forgeries.forgeries()
PAYLOAD = decode_plain(encode_plain(seal(EVENT, origin=ORIGIN, member="acme", stream="k8s-prod", seed=SEED)))


def verified(data: bytes, policy: Policy = GROUP, stream_key: SKey | None = None) -> VerifiedEvidence:
    return verify_evidence(parse_evidence(data), policy, stream_vkey=None if stream_key is None else stream_key.vkey)


def linked(document: dict[str, Any]) -> LinkedCheckpoint:
    """What a forged document's member would be parsed to."""
    proof = tuple(b64decode(value) for value in document["proof"])
    return LinkedCheckpoint(checkpoint=document["checkpoint"].encode(), proof=proof)


def made(names: Any = None, **more: Any) -> Evidence:
    return make_evidence(PAYLOAD, names=names, entry=LOG.entry, receipt=LOG.receipt().encode(), **more)


# Known answers


def test_the_known_disclosures_are_made(shared: Path) -> None:
    for case in cases(shared):
        payload = decode_plain(case["payload_whole"])
        found = make_disclosures(payload, range(len(payload.fields)))
        assert [
            {
                "leaf": item.leaf,
                "of": item.of,
                "salt": b64encode(item.salt).decode(),
                "text": item.text.decode(),
                "proof": [b64encode(value).decode() for value in item.proof],
            }
            for item in found
        ] == case["disclosures"]


def test_the_known_disclosures_are_proven(shared: Path) -> None:
    """Under a log of that one entry, whatever its origin."""
    for case in cases(shared):
        log = forgeries.Log(case["entry"])
        for leaves in ([0], [0, 1], range(len(case["disclosures"]))):
            document = {
                "translog": "evidence/1",
                "entry": b64encode(case["entry"]).decode(),
                "disclosures": [case["disclosures"][leaf] for leaf in leaves],
                "receipt": log.receipt(),
            }
            shown = verified(forgeries.dump(document)).shown
            names = list(case["event"])
            assert shown == {names[leaf - 1]: case["event"][names[leaf - 1]] for leaf in leaves if leaf}


# What is proven


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", GOOD)
def test_good_evidence_holds_under_every_policy(name: str, policy: str) -> None:
    evidence = parse_evidence(GOOD[name])
    assert format_evidence(evidence) == GOOD[name]
    result = verify_evidence(evidence, TRUSTED[policy])
    assert (result.origin, result.index, result.size) == (ORIGIN, INDEX, SIZE)
    assert (result.entry.member, result.entry.stream) == ("acme", "k8s-prod")


def test_what_is_shown_withheld_and_was_never_there() -> None:
    result = verified(GOOD["two fields"])
    assert result.shown == {name: EVENT[name] for name in SHOWN}
    assert result.names == tuple(NAMES)
    assert result.withheld == tuple(name for name in NAMES if name not in SHOWN)
    assert [result.absent(name) for name in ("unmapped", "actor", "time", "Actor", "")] == [True, False, False, True, True]
    alone = verified(GOOD["the header alone"])
    assert (alone.shown, alone.withheld) == ({}, tuple(NAMES))
    whole = verified(GOOD["every field"])
    assert (whole.shown, whole.withheld) == (EVENT, ())
    empty = verified(GOOD["an event without fields"])
    assert (empty.names, empty.shown, empty.withheld, empty.absent("actor")) == ((), {}, (), True)


def test_json_of_other_programs_is_shown_as_it_is_read() -> None:
    assert verified(GOOD["other programs' JSON"]).shown == {"a": 1500.0, "b": {"\U0001f332": [-0.0, True]}, "\uffff": ""}


@pytest.mark.parametrize(
    ("policy", "no_later_than_s", "not_before_s"),
    [
        ("mldsa", TIME_S, OLD_TIME_S),
        ("classic", None, None),
        ("both", TIME_S, OLD_TIME_S),
        ("witness", TIME_S, OLD_TIME_S),
        ("group", TIME_S, OLD_TIME_S),
    ],
)
def test_times_are_those_of_the_signatures_that_count(
    policy: str, no_later_than_s: int | None, not_before_s: int | None
) -> None:
    result = verified(GOOD["all there may be"], TRUSTED[policy])
    assert (result.no_later_than_s, result.not_before_s) == (no_later_than_s, not_before_s)
    assert result.not_before is not None
    assert result.not_before.checkpoint.size == forgeries.OLD_SIZE
    without = verified(GOOD["two fields"], TRUSTED[policy])
    assert (without.no_later_than_s, without.not_before, without.not_before_s) == (no_later_than_s, None, None)


WITNESSES = [SKey(name=f"w{n}", type=KeyType.COSIGNATURE_ED25519, seed=bytes([n]) * 32) for n in range(1, 4)]


def cosigned_at(size: int, *times_s: int) -> bytes:
    """A checkpoint that the log signs at 1, and witness n cosigns at the nth time."""
    text, _, lines = LOG.note(size, MLDSA44, time_s=1).decode().rpartition("\n\n")
    for skey, time_s in zip(WITNESSES, times_s, strict=True):
        lines += LOG.note(size, skey, time_s=time_s).decode().rpartition("\n\n")[2]
    return f"{text}\n\n{lines}".encode()


@pytest.mark.parametrize(
    ("quorum", "no_later_than_s", "not_before_s"),
    [("group g any w1 w2 w3", 100, 70), ("group g 2 w1 w2 w3", 200, 60), ("group g all w1 w2 w3", 300, 50)],
)
def test_times_are_those_at_which_the_quorum_had_signed(quorum: str, no_later_than_s: int, not_before_s: int) -> None:
    """No later than: enough had signed by then. Not before: enough signed the old tree then or later."""
    lines = "".join(f"witness {skey.name} {skey.vkey}\n" for skey in WITNESSES)
    policy = parse_policy(f"log {MLDSA44.vkey}\n{lines}{quorum}\nquorum g\n".encode())
    evidence = replace(
        made(SHOWN, not_before=linked(LOG.before(note=cosigned_at(forgeries.OLD_SIZE, 60, 50, 70)))),
        receipt=LOG.receipt(note=cosigned_at(SIZE, 300, 100, 200)).encode(),
    )
    result = verify_evidence(evidence, policy)
    assert (result.no_later_than_s, result.not_before_s) == (no_later_than_s, not_before_s)


def test_a_witness_that_is_not_asked_for_does_not_move_the_times() -> None:
    policy = parse_policy(f"log {MLDSA44.vkey}\nwitness w1 {WITNESSES[0].vkey}\nquorum none\n".encode())
    note = LOG.note(SIZE, MLDSA44, time_s=500).decode() + LOG.note(SIZE, WITNESSES[0], time_s=5).decode().rpartition("\n\n")[2]
    result = verify_evidence(replace(made(SHOWN), receipt=LOG.receipt(note=note.encode()).encode()), policy)
    assert [item.time_s for item in result.receipt.checkpoint.cosigned] == [5]
    assert result.no_later_than_s == 500


def test_a_quorum_that_no_times_reach_has_no_time() -> None:
    assert accepted_since([], GROUP) is None
    assert accepted_since([(1, "paul")], GROUP) is None
    assert accepted_since([(1, "paul"), (2, "mary")], GROUP) == 1


def test_a_streams_signature_is_checked_if_a_key_is_given_and_only_then() -> None:
    data = GOOD["a stream's checkpoint"]
    unchecked = verified(data)
    assert unchecked.stream is not None
    assert (unchecked.stream.checkpoint.size, unchecked.stream.signed_by) == (5, None)
    checked = verified(data, stream_key=SENDER)
    assert checked.stream is not None
    assert checked.stream.signed_by == SENDER.vkey
    with pytest.raises(SignatureError):
        verified(data, stream_key=SKey(name=SENDER.name, type=KeyType.ED25519, seed=bytes(32)))
    with pytest.raises(DisclosureError, match="not that of"):
        verified(data, stream_key=STRANGER)
    unsigned = json.loads(data)
    unsigned["stream"] = forgeries.stream_of(forgeries.TREE.root, skey=STRANGER)
    assert verified(forgeries.dump(unsigned)).stream == unchecked.stream
    with pytest.raises(SignatureError):
        verified(forgeries.dump(unsigned), stream_key=SENDER)
    assert verified(GOOD["two fields"], stream_key=SENDER).stream is None


# Making it


@pytest.mark.parametrize("names", [None, [], ["actor"], ["message", "actor"], NAMES, ["never there"], ["actor", "never there"]])
def test_evidence_shows_what_was_chosen_and_never_the_seed(names: list[str] | None) -> None:
    data = format_evidence(made(names))
    chosen = NAMES if names is None else [name for name in NAMES if name in names]
    result = verified(data)
    assert list(result.shown.items()) == [(name, EVENT[name]) for name in chosen]
    assert result.withheld == tuple(name for name in NAMES if name not in chosen)
    assert b64encode(SEED)[:20] not in data
    assert [item.leaf for item in parse_evidence(data).disclosures] == [0, *(1 + NAMES.index(name) for name in chosen)]


def test_evidence_carries_what_links_it() -> None:
    evidence = made(SHOWN, not_before=linked(LOG.before()), stream=linked(forgeries.stream_of(forgeries.TREE.root)))
    assert format_evidence(evidence) == forgeries.dump(forgeries.base())
    assert parse_evidence(format_evidence(evidence)) == evidence


def test_the_salts_of_withheld_fields_stay() -> None:
    data = format_evidence(made(SHOWN))
    shown = {0, *(1 + NAMES.index(name) for name in SHOWN)}
    for leaf, salt in enumerate(forgeries.TREE.salts):
        assert (b64encode(salt) in data) == (leaf in shown)


def test_an_erased_field_is_withheld_for_ever() -> None:
    payload = PAYLOAD.erase(1 + NAMES.index("message"))
    whole = make_evidence(payload, entry=LOG.entry, receipt=LOG.receipt().encode())
    result = verify_evidence(whole, GROUP)
    assert result.withheld == ("message",)
    assert not result.absent("message")
    with pytest.raises(NotFoundError) as caught:
        make_evidence(payload, names=["message"], entry=LOG.entry, receipt=LOG.receipt().encode())
    assert caught.value.code == "field-erased"


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.integers(-9, 9), max_size=40), st.data()
)
def test_any_part_of_any_event_is_proven(event: dict[str, int], data: st.DataObject) -> None:
    sealed = seal(event, origin=ORIGIN, member="acme", stream="k8s-prod", seed=SEED)
    chosen = data.draw(st.sets(st.sampled_from(sorted(event)))) if event else set()
    log = forgeries.Log(forgeries.entry_of(sealed.root))
    receipt = log.receipt(note=log.note(SIZE, ED25519)).encode()
    evidence = make_evidence(decode_plain(encode_plain(sealed)), names=chosen, entry=log.entry, receipt=receipt)
    result = verified(format_evidence(evidence), TRUSTED["classic"])
    assert dict(result.shown) == {name: event[name] for name in chosen}
    assert set(result.withheld) == set(event) - chosen


# Forgeries


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_evidence_is_refused_for_what_is_wrong_with_it(name: str) -> None:
    forgery: Forgery = FORGERIES[name]
    with pytest.raises(TranslogError) as caught:
        verified(forgery.data)
    assert type(caught.value) is forgery.error, str(caught.value)
    assert forgery.says in caught.value.detail


SMALL_TEXTS = forgeries.texts_of({"a": 1, "b": 2})
SMALL_LOG = forgeries.Log(forgeries.entry_of(forgeries.Tree(SMALL_TEXTS).root))
SMALL = forgeries.evidence_of(SMALL_TEXTS, [0, 2]) | {"receipt": SMALL_LOG.receipt(note=SMALL_LOG.note(SIZE, ED25519))}
"""Signed with one key, so that every byte of it counts."""


def test_every_change_of_one_byte_is_refused() -> None:
    """Each byte to some others: one bit, the next character, a digit, a quote, a control character, one beyond ASCII."""
    data = forgeries.dump(SMALL)
    proven = verified(data, TRUSTED["classic"])
    for at, old in enumerate(data):
        for new in {old ^ 1, old ^ 0x20, (old + 1) % 256, 0x30, 0x22, 0x5C, 0x0A, 0xC3} - {old}:
            with pytest.raises((MalformedError, VerificationError)):
                verified(data[:at] + bytes([new]) + data[at + 1 :], TRUSTED["classic"])
    assert verified(data, TRUSTED["classic"]) == proven


def test_every_deletion_and_doubling_of_one_byte_is_refused() -> None:
    data = forgeries.dump(SMALL)
    for at in range(len(data)):
        for changed in (data[:at] + data[at + 1 :], data[: at + 1] + data[at:]):
            with pytest.raises((MalformedError, VerificationError)):
                verified(changed, TRUSTED["classic"])


def test_only_lines_of_keys_that_the_policy_does_not_list_may_differ() -> None:
    """As in any note: nobody has vouched for them, and they add nothing to what is proven."""
    data = GOOD["two fields"]
    proven = verified(data, TRUSTED["classic"])
    other = json.loads(data)
    other["receipt"] = LOG.receipt(note=LOG.note(SIZE, ED25519, WITNESS))
    assert verified(forgeries.dump(other), TRUSTED["classic"]) == proven


@given(st.binary(max_size=200) | st.sampled_from([*substrings(GOOD["two fields"][:60])]))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_evidence(data)


@given(st.data())
def test_any_json_in_any_place_is_refused_or_proves_the_same(data: st.DataObject) -> None:
    document = forgeries.base()
    inner: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if isinstance(inner[key], dict | list) and inner[key] and data.draw(st.booleans()):
            inner = inner[key]
            continue
        break
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([0, 1, 3, 8, "", "AAAA"])
    inner[key] = data.draw(plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(), plain, max_size=3))
    changed = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        result = verified(changed)
    except (MalformedError, VerificationError):
        assert changed != forgeries.dump(forgeries.base())
    else:
        assert changed == forgeries.dump(forgeries.base())
        assert result.index == INDEX


def test_parts_of_one_event_prove_nothing_under_another_policy() -> None:
    data = GOOD["every field"]
    for text in (
        "quorum none\n",
        f"log {STRANGER.vkey}\nquorum none\n",
        f"log {MLDSA44.vkey}\nwitness w {WITNESSES[0].vkey}\nquorum w\n",
        f"log {SENDER.vkey}\nquorum none\n",
    ):
        with pytest.raises(VerificationError):
            verified(data, parse_policy(text.encode()))


def test_a_checkpoint_from_before_is_of_the_same_log() -> None:
    """Of a log that the policy lists as well, and even of the same tree."""
    other = replace(MLDSA44, name="log.example.org/other")
    policy = parse_policy(f"log {ED25519.vkey}\nlog {other.vkey}\nquorum none\n".encode())
    note = LOG.note(forgeries.OLD_SIZE, other, origin=other.name, time_s=OLD_TIME_S)
    verify_evidence(made(SHOWN), policy)
    with pytest.raises(DisclosureError, match="another log's"):
        verify_evidence(made(SHOWN, not_before=linked(LOG.before(note=note))), policy)


def test_disclosures_are_made_in_order_each_once() -> None:
    assert [item.leaf for item in make_disclosures(PAYLOAD, [3, 0, 3, 1])] == [0, 1, 3]


def test_parts_that_were_never_parsed_are_checked_all_the_same() -> None:
    """verify_evidence takes no shape for granted: it is also called on evidence that was just made."""
    good = made(SHOWN)
    first, actor, message = good.disclosures
    for disclosures in (
        (),
        (actor,),
        (first, first),
        (first, message, actor),
        (first, actor, actor),
        (first, replace(actor, of=actor.of + 1)),
        (replace(first, of=0), actor),
        (replace(first, of=-1), actor),
        (first, replace(actor, leaf=0)),
        (first, replace(actor, leaf=-1)),
        (first, replace(actor, leaf=2**70)),
        (first, replace(actor, proof=(b"short",))),
        (replace(first, proof=(*first.proof, bytes(32))), actor),
        (first, Disclosure(leaf=1, of=first.of, salt=b"", text=b"", proof=())),
    ):
        with pytest.raises(DisclosureError):
            verify_evidence(replace(good, disclosures=disclosures), GROUP)


def test_evidence_of_the_largest_size_is_looked_at_and_none_larger() -> None:
    with pytest.raises(MalformedError, match=f"at most {EVIDENCE_BYTES_MAX} are read"):
        parse_evidence(b" " * (EVIDENCE_BYTES_MAX + 1))
    with pytest.raises(MalformedError, match="not strict JSON"):
        parse_evidence(b" " * EVIDENCE_BYTES_MAX)


def test_the_policy_of_the_forgeries_asks_for_all_that_signed() -> None:
    """Else a forged signature line could go unnoticed for want of anyone looking at it."""
    keys = {log.vkey for log in GROUP.logs} | {witness.vkey for witness in GROUP.witnesses.values()}
    assert keys == {skey.vkey for skey in SIGNERS} - {ED25519.vkey} == {MLDSA44.vkey, WITNESS.vkey, WITNESS_MLDSA.vkey}
