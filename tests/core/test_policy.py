"""Policies: what parses, which quorums are reached, and which checkpoints a policy accepts."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.known import (
    CHECKPOINT,
    LOG,
    LOG_LINE,
    LOG_MLDSA,
    LOG_VKEY,
    TEXT,
    TIME,
    WITNESS,
    WITNESS_LINE,
    WITNESS_MLDSA,
    WITNESS_VKEY,
    changes,
    signer,
    substrings,
)
from translog.core.checkpoint import parse_checkpoint
from translog.core.keys import KeyType, SKey, VKey
from translog.core.note import sign_note
from translog.core.policy import (
    POLICY_BYTES_MAX,
    Policy,
    PolicyGroup,
    PolicyWitness,
    format_log_policy,
    format_policy,
    parse_policy,
    require_quorum,
    verify_checkpoint,
)
from translog.errors import ConsistencyError, MalformedError, QuorumError, SignatureError


def witness_key(n: int, key_type: KeyType = KeyType.COSIGNATURE_ED25519) -> SKey:
    return SKey(name=f"w{n}.example", type=key_type, seed=bytes([n, key_type]) * 16)


def vkey(n: int) -> str:
    """A witness vkey that is well-formed; nothing is verified with it."""
    return str(VKey(name=f"w{n}.example", type=KeyType.COSIGNATURE_ED25519, public_key=n.to_bytes(32, "big")))


LOG_ROW = f"log {LOG_VKEY}\n"
THREE = LOG_ROW + "".join(f"witness w{n} {vkey(n)}\n" for n in (1, 2, 3))
GOOD = (LOG_ROW + f"witness w {WITNESS_VKEY} https://w.example/\ngroup g any w\nquorum g\n").encode()


def parse(text: str) -> Policy:
    return parse_policy(text.encode())


# Parsing


def test_a_policy_with_everything() -> None:
    policy = parse(
        f"# comment\n\n  \t\n\t # indented comment\nlog\t{LOG_VKEY} \t https://log.example/ \n"
        f" witness  w1\t{vkey(1)}\nwitness w2 {vkey(2)} https://w2.example/x?y#z\nwitness #3 {vkey(3)}\n"
        "group any all w1 w2\ngroup g 1 any #3\nquorum g"
    )
    assert [(str(log.vkey), log.url) for log in policy.logs] == [(LOG_VKEY, "https://log.example/")]
    assert {name: str(witness.vkey) for name, witness in policy.witnesses.items()} == {
        "w1": vkey(1),
        "w2": vkey(2),
        "#3": vkey(3),
    }
    assert policy.witnesses["w2"] == PolicyWitness(name="w2", vkey=policy.witnesses["w2"].vkey, url="https://w2.example/x?y#z")
    assert policy.witnesses["w1"].url is policy.witnesses["#3"].url is None
    assert policy.groups == {
        "any": PolicyGroup(name="any", threshold=2, members=("w1", "w2")),
        "g": PolicyGroup(name="g", threshold=1, members=("any", "#3")),
    }
    assert policy.quorum == "g"


def test_the_smallest_policies() -> None:
    assert parse("quorum none").quorum == "none"
    assert parse(LOG_ROW + "quorum none\n").logs[0].url is None
    assert parse(THREE + "quorum w2\n").quorum == "w2"


REFUSED = {
    "no quorum line": ("", "no quorum line"),
    "two quorum lines": ("quorum none\nquorum none\n", "line 2: there is a quorum line already"),
    "quorum of nothing": ("quorum\n", "expected: quorum"),
    "quorum of two": (THREE + "quorum w1 w2\n", "expected: quorum"),
    "comment behind": ("quorum none # none\n", "expected: quorum"),
    "quorum not defined": ("quorum g\n", "'g' is not defined above"),
    "quorum defined below": (LOG_ROW + f"quorum w\nwitness w {WITNESS_VKEY}\n", "line 2: 'w' is not defined above"),
    "another word": ("logs x\nquorum none\n", "line 1: expected log, witness"),
    "upper case": (f"Log {LOG_VKEY}\nquorum none\n", "expected log, witness"),
    "log without key": ("log\nquorum none\n", "expected: log"),
    "log with three words": (f"log {LOG_VKEY} u v\nquorum none\n", "expected: log"),
    "log with bad key": (f"log {LOG_VKEY[:-1]}\nquorum none\n", "line 1:"),
    "log with cosignature key": (f"log {WITNESS_VKEY}\nquorum none\n", "type 0x01 or 0x06"),
    "log listed twice": (LOG_ROW * 2 + "quorum none\n", "line 2: this log key is listed already"),
    "witness without key": ("witness w\nquorum none\n", "expected: witness"),
    "witness with four words": (f"witness w {WITNESS_VKEY} u v\nquorum none\n", "expected: witness"),
    "witness with log key type": (f"witness w {LOG_VKEY}\nquorum none\n", "0x04 or 0x06"),
    "witness named none": (f"witness none {WITNESS_VKEY}\nquorum none\n", "'none' is taken"),
    "witness name twice": (f"witness w {vkey(1)}\nwitness w {vkey(2)}\nquorum none\n", "line 2: the name 'w' is taken"),
    "witness key twice": (f"witness v {vkey(1)}\nwitness w {vkey(1)}\nquorum none\n", "line 2: this witness key"),
    "group without members": ("group g any\nquorum none\n", "expected: group"),
    "group named none": (THREE + "group none any w1\nquorum none\n", "'none' is taken"),
    "group named as a witness": (THREE + "group w2 any w1\nquorum none\n", "'w2' is taken"),
    "group named as a group": (THREE + "group g any w1\ngroup g any w2\nquorum none\n", "'g' is taken"),
    "witness named as a group": (THREE + f"group g any w1\nwitness g {vkey(4)}\nquorum none\n", "'g' is taken"),
    "group of itself": (THREE + "group g any g\nquorum none\n", "'g' is not defined"),
    "group of none": (THREE + "group g any none\nquorum none\n", "'none' is not defined"),
    "group member below": (f"group g any w\nwitness w {vkey(1)}\nquorum none\n", "line 1: 'w' is not defined"),
    "member twice in a group": (THREE + "group g 1 w1 w1\nquorum none\n", "'w1' is a member of a group already"),
    "member of two groups": (THREE + "group g any w1\ngroup h any w2 w1\nquorum none\n", "'w1' is a member"),
    "group in two groups": (THREE + "group g any w1\ngroup h any g\ngroup i any g\nquorum none\n", "'g' is a member"),
    "threshold 0": (THREE + "group g 0 w1\nquorum none\n", "at least 1"),
    "threshold above": (THREE + "group g 3 w1 w2\nquorum none\n", "above 2"),
    "threshold 01": (THREE + "group g 01 w1\nquorum none\n", "decimal"),
    "threshold +1": (THREE + "group g +1 w1\nquorum none\n", "decimal"),
    "threshold -1": (THREE + "group g -1 w1\nquorum none\n", "decimal"),
    "threshold ALL": (THREE + "group g ALL w1\nquorum none\n", "decimal"),
    "witness with the log's name": (
        LOG_ROW + f"witness w {VKey(name=LOG.name, type=KeyType.COSIGNATURE_ED25519, public_key=bytes(32))}\nquorum none\n",
        "cannot witness itself",
    ),
    "witness with the log's key": (
        LOG_ROW
        + f"witness w {VKey(name='w', type=KeyType.COSIGNATURE_ED25519, public_key=LOG.vkey.public_key)}\nquorum none\n",
        "cannot witness itself",
    ),
    "the same with the log below": (
        f"witness w {VKey(name='w', type=KeyType.COSIGNATURE_ED25519, public_key=LOG.vkey.public_key)}\nquorum none\n"
        + LOG_ROW,
        "cannot witness itself",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_policy_that_is_none_is_refused_and_says_where(case: str) -> None:
    text, says = REFUSED[case]
    with pytest.raises(MalformedError) as caught:
        parse(text)
    assert says in str(caught.value)


def test_a_key_is_a_duplicate_by_its_raw_bytes() -> None:
    raw = LOG.vkey.public_key
    again = VKey(name="another.example", type=KeyType.ED25519, public_key=raw)
    with pytest.raises(MalformedError, match="listed already"):
        parse(LOG_ROW + f"log {again}\nquorum none\n")
    witnesses = [VKey(name=name, type=KeyType.COSIGNATURE_ED25519, public_key=raw) for name in ("a", "b")]
    with pytest.raises(MalformedError, match="listed already"):
        parse("".join(f"witness {each.name} {each}\n" for each in witnesses) + "quorum none\n")


@pytest.mark.parametrize("value", [*range(0x09), *range(0x0B, 0x20), 0x7F])
def test_a_control_character_is_refused_everywhere_even_in_comments(value: int) -> None:
    for data in (b"# %c\nquorum none\n", b"quorum none\n%c", b"quorum %cnone\n", b"quorum none%c\n"):
        with pytest.raises(MalformedError, match="a control character"):
            parse_policy(data % value)


def test_octets_above_ascii_are_opaque_and_separate_nothing() -> None:
    names = [b"\xff\xfe", b"\xc3\xa9", b"e\xcc\x81", b"a\xc2\xa0b", b"\xe2\x80\xa8", b"\x80"]
    rows = [b"witness %s %s" % (name, vkey(n).encode()) for n, name in enumerate(names)]
    policy = parse_policy(b"\n".join([b"# \xff", *rows, b"group g all " + b" ".join(names), b"quorum g"]))
    assert len(policy.witnesses) == len(policy.groups["g"].members) == len(names)
    require_quorum(policy, policy.groups["g"].members)
    assert policy.witnesses["\udcff\udcfe"].name.encode("ascii", "surrogateescape") == b"\xff\xfe"


def test_a_vkey_may_have_a_name_in_utf8_and_in_nothing_else() -> None:
    name = VKey(name="journal.\u00e9", type=KeyType.ED25519, public_key=LOG.vkey.public_key)
    assert parse(f"log {name}\nquorum none\n").logs[0].vkey == name
    with pytest.raises(MalformedError, match="line 1: the vkey is not UTF-8"):
        parse_policy(b"log \xff+00000000+AA==\nquorum none\n")


def test_32_logs_witnesses_and_groups_of_the_longest_keys_are_read() -> None:
    def longest(name: str, n: int) -> VKey:
        return VKey(name=name, type=KeyType.COSIGNATURE_MLDSA44, public_key=n.to_bytes(1312, "big"))

    rows = [f"log {longest('log.example', n)}" for n in range(32)]
    rows += [f"witness w{n} {longest(f'w{n}.example', 100 + n)}" for n in range(32)]
    rows += [f"group g{n} all w{n}" for n in range(31)]
    rows += [f"group g31 32 {' '.join(f'g{n}' for n in range(31))} w31", "quorum g31"]
    policy = parse("\n".join(rows))
    assert (len(policy.logs), len(policy.witnesses), len(policy.groups)) == (32, 32, 32)
    require_quorum(policy, [f"w{n}" for n in range(32)])
    with pytest.raises(QuorumError):
        require_quorum(policy, [f"w{n}" for n in range(31)])


def test_a_policy_beyond_the_limit_is_refused() -> None:
    row = b"quorum none\n"
    assert parse_policy(row + b"#" * (POLICY_BYTES_MAX - len(row))).quorum == "none"
    with pytest.raises(MalformedError, match="at most 1000000"):
        parse_policy(row + b"#" * (POLICY_BYTES_MAX - len(row) + 1))


def test_every_substring_and_change_of_a_policy_is_refused_or_trusts_no_other_key() -> None:
    """A policy is the reader's own file: a change may well give another policy, but never one with a key that was not in it,
    and never a quorum of something undefined."""
    accepted = 0
    for data in (*substrings(GOOD), *changes(GOOD)):
        try:
            policy = parse_policy(data)
        except MalformedError:
            continue
        accepted += 1
        assert {str(log.vkey) for log in policy.logs} <= {LOG_VKEY}
        assert {str(witness.vkey) for witness in policy.witnesses.values()} <= {WITNESS_VKEY}
        assert policy.quorum in {"none", *policy.witnesses, *policy.groups}
        if not policy.witnesses:
            assert policy.quorum == "none"
    assert accepted


# Quorums


def reached(policy: Policy, cosigned: tuple[str, ...]) -> bool:
    try:
        require_quorum(policy, cosigned)
    except QuorumError:
        return False
    return True


@pytest.mark.parametrize(
    ("rows", "rule"),
    [
        ("quorum none", lambda _: True),
        ("quorum w2", lambda w: "w2" in w),
        ("group g any w1 w2 w3\nquorum g", lambda w: len(w) >= 1),
        ("group g 1 w1 w2 w3\nquorum g", lambda w: len(w) >= 1),
        ("group g 2 w1 w2 w3\nquorum g", lambda w: len(w) >= 2),
        ("group g all w1 w2 w3\nquorum g", lambda w: len(w) == 3),
        ("group g 3 w1 w2 w3\nquorum g", lambda w: len(w) == 3),
        ("group g all w1 w2\nquorum w3", lambda w: "w3" in w),
        ("group g any w1 w2\ngroup h all g w3\nquorum h", lambda w: "w3" in w and len(w) >= 2),
        ("group g all w1 w2\ngroup h any g w3\nquorum h", lambda w: "w3" in w or {"w1", "w2"} <= w),
        ("group g all w1 w2\ngroup h any g w3\nquorum g", lambda w: {"w1", "w2"} <= w),
    ],
)
def test_a_quorum_is_reached_by_exactly_the_sets_that_satisfy_it(rows: str, rule: Callable[[set[str]], bool]) -> None:
    policy = parse(THREE + rows + "\n")
    for count in range(4):
        for cosigned in itertools.combinations(("w1", "w2", "w3"), count):
            assert reached(policy, cosigned) == rule(set(cosigned))
            assert reached(policy, cosigned * 3) == rule(set(cosigned))


def test_a_witness_with_two_algorithms_in_a_group_counts_once() -> None:
    policy = parse(THREE + "group both any w1 w2\ngroup g 2 both w3\nquorum g\n")
    assert not reached(policy, ("w1", "w2"))
    assert reached(policy, ("w2", "w3"))


def test_the_quorum_error_says_who_cosigned() -> None:
    policy = parse(THREE + "group g all w1 w2 w3\nquorum g\n")
    with pytest.raises(QuorumError, match=r"'g' is not reached: cosigned by w1, w3"):
        require_quorum(policy, ["w3", "w1", "stranger"])
    with pytest.raises(QuorumError, match="cosigned by no witness it lists"):
        require_quorum(policy, ["stranger"])


@given(st.lists(st.integers(min_value=1, max_value=6), min_size=1, max_size=6, unique=True), st.data())
def test_any_threshold_group_needs_exactly_that_many(members: list[int], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(min_value=1, max_value=len(members)))
    cosigned = data.draw(st.sets(st.sampled_from(range(1, 8))))
    rows = "".join(f"witness w{n} {vkey(n)}\n" for n in range(1, 8))
    policy = parse(rows + f"group g {threshold} {' '.join(f'w{n}' for n in members)}\nquorum g\n")
    assert reached(policy, tuple(f"w{n}" for n in cosigned)) == (len(cosigned & set(members)) >= threshold)


# Checkpoints

BOTH = parse(LOG_ROW + f"log {LOG_MLDSA.vkey}\nwitness w {WITNESS_VKEY}\nwitness m {WITNESS_MLDSA.vkey}\nquorum none\n")


def note_of(*skeys: SKey, text: str = TEXT) -> bytes:
    return sign_note(text, [signer(skey) for skey in skeys], time_s=TIME)


def test_our_known_checkpoint_is_accepted_and_says_by_whom() -> None:
    accepted = verify_checkpoint(CHECKPOINT, parse_policy(GOOD))
    assert accepted.checkpoint == parse_checkpoint(TEXT)
    assert [(item.name, str(item.vkey), item.time_s) for item in accepted.signed] == [("example.com/log", LOG_VKEY, None)]
    assert [(item.name, str(item.vkey), item.time_s) for item in accepted.cosigned] == [("w", WITNESS_VKEY, TIME)]


def test_any_one_listed_log_key_is_enough_and_all_that_signed_are_named() -> None:
    for skeys in ((LOG,), (LOG_MLDSA,), (LOG, LOG_MLDSA), (LOG_MLDSA, LOG, WITNESS, WITNESS_MLDSA)):
        accepted = verify_checkpoint(note_of(*skeys), BOTH)
        assert {item.vkey for item in accepted.signed} == {skey.vkey for skey in skeys if skey in (LOG, LOG_MLDSA)}
        assert {item.name for item in accepted.cosigned} == ({"w", "m"} if WITNESS in skeys else set())


def test_a_note_without_a_log_key_of_the_policy_is_refused() -> None:
    for skeys in ((WITNESS,), (WITNESS, WITNESS_MLDSA), (SKey(name=LOG.name, type=LOG.type, seed=bytes(32)),)):
        with pytest.raises(SignatureError) as caught:
            verify_checkpoint(note_of(*skeys), BOTH)
        assert caught.value.code == "unknown-key"


def test_a_key_of_one_origin_never_signs_for_another() -> None:
    other = SKey(name="other.example/log", type=KeyType.ED25519, seed=bytes(32))
    policy = parse(LOG_ROW + f"log {other.vkey}\nquorum none\n")
    text = TEXT.replace("example.com/log", other.name)
    assert verify_checkpoint(note_of(other, text=text), policy).signed[0].vkey == other.vkey
    for wrong in (note_of(LOG, text=text), note_of(other)):
        with pytest.raises(SignatureError) as caught:
            verify_checkpoint(wrong, policy)
        assert caught.value.code == "unknown-key"
    assert [item.vkey for item in verify_checkpoint(note_of(LOG, other), policy).signed] == [LOG.vkey]


def test_an_origin_that_the_policy_does_not_list_is_refused() -> None:
    for policy in (parse("quorum none"), parse(f"witness w {WITNESS_VKEY}\nquorum w\n")):
        with pytest.raises(SignatureError, match=r"lists no log 'example.com/log'") as caught:
            verify_checkpoint(CHECKPOINT, policy)
        assert caught.value.code == "unknown-log"


def test_a_listed_keys_line_that_does_not_verify_spoils_the_checkpoint() -> None:
    for line in (LOG_LINE, WITNESS_LINE):
        at = line.rindex(" ") + 40
        spoiled = line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1 :]
        verify_checkpoint(note_of(LOG_MLDSA) + line.encode(), BOTH)
        with pytest.raises(SignatureError, match="is not valid"):
            verify_checkpoint(note_of(LOG_MLDSA) + spoiled.encode(), BOTH)


def test_a_missed_quorum_is_refused() -> None:
    policy = parse(LOG_ROW + f"witness w {WITNESS_VKEY}\nwitness m {WITNESS_MLDSA.vkey}\ngroup g all w m\nquorum g\n")
    for skeys in ((LOG,), (LOG, WITNESS), (LOG, WITNESS_MLDSA)):
        with pytest.raises(QuorumError):
            verify_checkpoint(note_of(*skeys), policy)
    assert len(verify_checkpoint(note_of(LOG, WITNESS, WITNESS_MLDSA), policy).cosigned) == 2


def test_extension_lines_need_a_signature_that_covers_them() -> None:
    text = TEXT + "extension\n"
    covering: list[tuple[SKey, ...]] = [(LOG,), (LOG, LOG_MLDSA)]
    for skeys in covering:
        assert verify_checkpoint(note_of(*skeys, text=text), BOTH).checkpoint.extensions == ("extension",)
    others: list[tuple[SKey, ...]] = [(LOG_MLDSA,), (LOG_MLDSA, WITNESS), (LOG_MLDSA, WITNESS, WITNESS_MLDSA)]
    for skeys in others:
        with pytest.raises(SignatureError, match="extension lines"):
            verify_checkpoint(note_of(*skeys, text=text), BOTH)


def test_a_tree_of_size_0_with_a_root_of_something_is_refused() -> None:
    text = f"example.com/log\n0\n{TEXT.splitlines()[2]}\n"
    with pytest.raises(ConsistencyError, match="size 0"):
        verify_checkpoint(note_of(LOG, text=text), BOTH)


def test_what_is_no_note_or_no_checkpoint_is_malformed() -> None:
    for data in (b"", b"text\n", note_of(LOG, text="not a checkpoint\n"), note_of(LOG, text=TEXT + "\nmore\n")):
        with pytest.raises(MalformedError):
            verify_checkpoint(data, BOTH)


def test_every_change_of_a_checkpoint_is_refused_by_a_policy_with_a_quorum() -> None:
    policy = parse_policy(GOOD)
    for data in (*substrings(CHECKPOINT), *changes(CHECKPOINT)):
        with pytest.raises((MalformedError, SignatureError, QuorumError)):
            verify_checkpoint(data, policy)


# Writing the policy of one log


def test_the_policy_of_a_log_lists_its_ml_dsa_44_key() -> None:
    policy = parse(format_log_policy([LOG.vkey, LOG_MLDSA.vkey], url="https://log.example/"))
    assert [(log.vkey, log.url) for log in policy.logs] == [(LOG_MLDSA.vkey, "https://log.example/")]
    assert policy.quorum == "none"


def test_the_classic_policy_lists_the_ed25519_key_and_warns() -> None:
    text = format_log_policy([LOG.vkey, LOG_MLDSA.vkey], classic=True)
    assert [(log.vkey, log.url) for log in parse(text).logs] == [(LOG.vkey, None)]
    assert "# Ed25519 only" in text


def test_a_policy_of_a_log_without_the_wanted_key_lists_what_there_is_and_says_so() -> None:
    for keys, classic, label in (([LOG.vkey], False, "ML-DSA-44"), ([LOG_MLDSA.vkey], True, "Ed25519")):
        text = format_log_policy(keys, classic=classic)
        assert [log.vkey for log in parse(text).logs] == keys
        assert f"# The log has no {label} key" in text


def test_a_log_without_a_key_that_signs_has_no_policy() -> None:
    for keys in ([], [WITNESS.vkey]):
        with pytest.raises(MalformedError):
            format_log_policy(keys)


# The policy of one log and its witnesses


def test_a_publication_policy_gives_witnesses_groups_and_quorum_but_no_log() -> None:
    publication = parse(
        f"log {SKey(name='other.example', type=KeyType.ED25519, seed=bytes(32)).vkey}\n"
        f"witness w1 {vkey(1)} https://w1.example/\nwitness w2 {vkey(2)}\nwitness m {WITNESS_MLDSA.vkey}\n"
        "group g all w1 w2\ngroup h 2 g m\nquorum h\n"
    )
    text = format_log_policy([LOG.vkey, LOG_MLDSA.vkey], publication=publication)
    policy = parse(text)
    assert [log.vkey for log in policy.logs] == [LOG_MLDSA.vkey]
    assert (policy.witnesses, policy.groups, policy.quorum) == (publication.witnesses, publication.groups, "h")
    assert "# Ed25519 only, so that a quantum computer could forge their cosignatures: w1, w2\n" in text
    assert "No witnesses" not in text


def test_of_a_witness_with_both_keys_the_policy_lists_the_stronger_one_unless_told_otherwise() -> None:
    both = f"witness e {WITNESS_VKEY}\nwitness m {WITNESS_MLDSA.vkey}\ngroup w any e m\nquorum w\n"
    text = format_log_policy([LOG.vkey, LOG_MLDSA.vkey], publication=parse(both))
    assert [witness.vkey for witness in parse(text).witnesses.values()] == [WITNESS_MLDSA.vkey]
    assert "# Ed25519 only" not in text
    text = format_log_policy([LOG.vkey, LOG_MLDSA.vkey], classic=True, publication=parse(both))
    assert [str(witness.vkey) for witness in parse(text).witnesses.values()] == [WITNESS_VKEY]
    assert "known here" not in text
    alone = parse(f"witness m {WITNESS_MLDSA.vkey}\nquorum m\n")
    text = format_log_policy([LOG.vkey], classic=True, publication=alone)
    assert "# Without an Ed25519 key that is known here: m\n" in text


def test_a_publication_policy_that_asks_for_nobody_keeps_the_warning() -> None:
    text = format_log_policy([LOG_MLDSA.vkey], publication=parse(f"witness w {WITNESS_VKEY}\nquorum none\n"))
    assert text.splitlines()[1] == "# No witnesses: the log's operator alone could show different people different trees."
    assert parse(text).quorum == "none"


@pytest.mark.parametrize(
    "witness", [VKey(name="w", type=KeyType.COSIGNATURE_MLDSA44, public_key=LOG_MLDSA.vkey.public_key), LOG_MLDSA.vkey]
)
def test_a_publication_policy_in_which_the_log_witnesses_itself_is_refused(witness: VKey) -> None:
    with pytest.raises(MalformedError, match="a log cannot witness itself"):
        format_log_policy([LOG_MLDSA.vkey], publication=parse(f"witness w {witness}\nquorum w\n"))


def test_a_publication_policy_with_names_that_are_no_text_is_refused() -> None:
    publication = parse_policy(b"witness \xff " + WITNESS_VKEY.encode() + b"\nquorum \xff\n")
    with pytest.raises(MalformedError, match="not UTF-8"):
        format_log_policy([LOG_MLDSA.vkey], publication=publication)
    publication = parse_policy("witness \u00e9 ".encode() + WITNESS_VKEY.encode() + "\nquorum \u00e9\n".encode())
    assert parse(format_log_policy([LOG_MLDSA.vkey], publication=publication)).witnesses == publication.witnesses


def test_a_url_of_two_words_makes_no_policy() -> None:
    with pytest.raises(MalformedError):
        format_log_policy([LOG_MLDSA.vkey], url="https://log.example/ x")
    with pytest.raises(MalformedError):
        format_log_policy([LOG_MLDSA.vkey], url=f"https://log.example/\nlog {LOG.vkey} x y")


# Writing any policy


def test_a_policy_is_written_in_one_form() -> None:
    text = (
        f"log {LOG_VKEY} https://log.example/\nlog {LOG_MLDSA.vkey}\n"
        f"witness w1 {vkey(1)} https://w1.example/\nwitness w2 {vkey(2)}\nwitness w3 {vkey(3)}\n"
        "group one any w1\ngroup g all one w2\ngroup h any g w3\nquorum h\n"
    )
    assert format_policy(parse(text)) == text
    messy = "# hello\n\n" + text.replace(" ", " \t ").replace("group one any w1", "group one 1 w1").replace("all", "2")
    assert format_policy(parse(messy)) == text
    three = THREE + "group g 2 w1 w2 w3\nquorum g\n"
    assert format_policy(parse(three)) == three


_NAME = st.binary(min_size=1, max_size=6).map(
    lambda name: bytes(octet if octet > 0x20 and octet != 0x7F else 0x23 for octet in name)
)


@given(st.lists(_NAME.filter(lambda name: name != b"none"), min_size=3, max_size=8, unique=True), st.data())
def test_what_was_written_reads_back_as_the_same_whatever_the_names(names: list[bytes], data: st.DataObject) -> None:
    *witnesses, group, outer = names
    urls = data.draw(st.lists(st.one_of(st.just(b""), _NAME), min_size=len(witnesses), max_size=len(witnesses)))
    rows = [
        b" ".join((b"witness", name, vkey(n).encode(), url)) for n, (name, url) in enumerate(zip(witnesses, urls, strict=True))
    ]
    threshold = data.draw(st.integers(1, len(witnesses)))
    rows += [b"group %s %d %s" % (group, threshold, b" ".join(witnesses)), b"group %s all %s" % (outer, group)]
    quorum = data.draw(st.sampled_from([*names, b"none"]))
    policy = parse_policy(LOG_ROW.encode() + b"\n".join([*rows, b"quorum " + quorum]))
    text = format_policy(policy)
    assert parse_policy(text.encode("utf-8", "surrogateescape")) == policy
    assert format_policy(parse_policy(text.encode("utf-8", "surrogateescape"))) == text
