"""add-checkpoint: each row of the specification's table, in its order, and what is stored and answered.

https://c2sp.org/tlog-witness
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from translog.core.cosignature import KeySigner, signature_time
from translog.core.keys import KeyType, SKey
from translog.core.merkle import EMPTY_ROOT
from translog.core.note import Signature, format_note
from translog.errors import (
    ConsistencyError,
    MalformedError,
    NotFoundError,
    OldSizeError,
    PushbackError,
    RateLimitedError,
    RefusedError,
    SettingsError,
    SignatureError,
    TranslogError,
)
from translog.witness.accusations import Accusations
from translog.witness.loglist import KnownLog
from translog.witness.protocol import Cosigned, monitoring_path, origin_hash, parse_cosignatures
from translog.witness.service import Witness
from translog.witness.store import WitnessStore
from witness.made_log import (
    NOW_S,
    WITNESS_KEYS,
    WITNESS_NAME,
    MadeLog,
    Time,
    make_key,
    make_witness,
    parse_note,
    require_cosigned,
)


def stored(witness: Witness, log: MadeLog) -> tuple[int, bytes] | None:
    cosigned = witness.store.find_cosigned(log.origin)
    return None if cosigned is None else (cosigned.size, cosigned.root)


def refuses(witness: Witness, log: MadeLog, body: bytes, error: type[TranslogError]) -> TranslogError:
    """What was stored stays as it is."""
    before = witness.store.find_cosigned(log.origin)
    with pytest.raises(error) as raised:
        witness.add_checkpoint(body)
    assert type(raised.value) is error
    assert witness.store.find_cosigned(log.origin) == before
    return raised.value


def test_a_log_is_cosigned_from_nothing_to_large(witness: Witness, log: MadeLog) -> None:
    old = 0
    for new in (1, 3, 4, 7, 8, 63, 64):
        body = log.request(old, new)
        note = log.note(new)
        require_cosigned(note, witness.add_checkpoint(body))
        assert stored(witness, log) == (new, log.tree.mth(0, new))
        old = new


def test_both_kinds_of_cosignature_come_under_one_name_with_the_time(witness: Witness, log: MadeLog) -> None:
    lines = parse_cosignatures(witness.add_checkpoint(log.request(0, 5)))
    assert [line.name for line in lines] == [WITNESS_NAME, WITNESS_NAME]
    assert [signature_time(skey.vkey, line.payload) for skey, line in zip(WITNESS_KEYS, lines, strict=True)] == [NOW_S, NOW_S]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0",
        b"old 0\n",
        b"old 0\n\n",
        b"\n\n",
        b"old 00\n\nNOTE",
        b"old 01\n\nNOTE",
        b"old -1\n\nNOTE",
        b"old +1\n\nNOTE",
        b"old  0\n\nNOTE",
        b"old 0 \n\nNOTE",
        b"Old 0\n\nNOTE",
        b"old 0\r\n\r\nNOTE",
        b"old 9223372036854775808\n\nNOTE",
        b"old 0x0\n\nNOTE",
        b"old \xd9\xa0\n\nNOTE",
        b"old 0\nAAAA\n\nNOTE",
        b"old 0\n" + b"A" * 43 + b"\n\nNOTE",
        b"old 0\n" + b"A" * 42 + b"B=\n\nNOTE",
        b"old 0\n" + b"A" * 43 + b"= \n\nNOTE",
        b"old 0\n\n" + b"not a note",
        b"old 0\n\nNOTE without",
        b"\nold 0\n\nNOTE",
    ],
)
def test_what_does_not_parse_is_malformed(witness: Witness, log: MadeLog, body: bytes) -> None:
    note = log.note(1)
    body = body.replace(b"NOTE without", note[:-1]).replace(b"NOTE", note)
    refuses(witness, log, body, MalformedError)


def test_a_note_that_is_no_checkpoint_is_malformed(witness: Witness, log: MadeLog) -> None:
    signers = [KeySigner(log.skeys[0])]
    for text in ("log.example/made\n", "log.example/made\n01\nAAAA\n", "log.example/made\n1\n\n"):
        signed = Signature(name=log.origin, key_id=signers[0].key_id, payload=signers[0].sign(text, time_s=1))
        refuses(witness, log, b"old 0\n\n" + format_note(text, [signed]), MalformedError)


def test_extension_lines_are_malformed(witness: Witness, log: MadeLog) -> None:
    refuses(witness, log, log.request(0, 1, note=log.note(1, extensions=("more",))), MalformedError)


def test_an_unknown_origin_is_not_found(witness: Witness, log: MadeLog) -> None:
    assert refuses(witness, log, MadeLog("log.example/other").request(0, 1), NotFoundError).code == "unknown-log"
    refuses(witness, log, log.request(0, 1, note=log.note(1, origin="log.example/made/", signers=_one(log))), NotFoundError)


def test_an_unknown_origin_costs_no_signature(log: MadeLog, witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a signature was checked")

    monkeypatch.setattr("translog.core.cosignature.verify_bytes", never)
    refuses(witness, log, MadeLog("log.example/other").request(0, 1), NotFoundError)
    with pytest.raises(AssertionError):
        witness.add_checkpoint(log.request(0, 1))


def test_no_line_of_a_trusted_key_is_a_bad_signature(witness: Witness, log: MadeLog) -> None:
    stranger = KeySigner(make_key(log.origin, KeyType.ED25519, 1))
    refuses(witness, log, log.request(0, 1, note=log.note(1, signers=[stranger])), SignatureError)


def test_a_line_of_a_trusted_key_that_does_not_verify_is_a_bad_signature(witness: Witness, log: MadeLog) -> None:
    good = parse_note(log.note(1))
    for place in (0, 1):
        lines = list(good.signatures)
        broken = bytes([lines[place].payload[-1] ^ 1])
        forged = Signature(name=lines[place].name, key_id=lines[place].key_id, payload=lines[place].payload[:-1] + broken)
        refuses(witness, log, log.request(0, 1, note=format_note(good.text, [*lines, forged])), SignatureError)
        lines[place] = forged
        refuses(witness, log, log.request(0, 1, note=format_note(good.text, lines)), SignatureError)


def test_lines_of_unknown_keys_are_ignored(witness: Witness, log: MadeLog) -> None:
    stranger = KeySigner(make_key("elsewhere", KeyType.ED25519, 1))
    note = log.note(1, signers=[stranger, KeySigner(log.skeys[0])])
    require_cosigned(note, witness.add_checkpoint(log.request(0, 1, note=note)))


def test_one_key_of_several_is_enough(tmp_path: Path, log: MadeLog) -> None:
    for number, skey in enumerate(log.skeys):
        witness = make_witness(tmp_path / f"{number}", log)
        require_cosigned(log.note(1), witness.add_checkpoint(log.request(0, 1, note=log.note(1, signers=[KeySigner(skey)]))))
        witness.store.close()


def test_an_old_size_above_the_checkpoint_is_malformed_also_where_it_is_not_the_stored_one(
    witness: Witness, log: MadeLog
) -> None:
    refuses(witness, log, log.request(2, 1, proof=()), MalformedError)
    witness.add_checkpoint(log.request(0, 5))
    refuses(witness, log, log.request(5, 4, proof=()), MalformedError)
    refuses(witness, log, log.request(6, 4, proof=()), MalformedError)


def test_another_old_size_is_a_conflict_that_says_the_stored_one(witness: Witness, log: MadeLog) -> None:
    error = refuses(witness, log, log.request(1, 3), OldSizeError)
    assert isinstance(error, OldSizeError)
    assert error.size == 0
    witness.add_checkpoint(log.request(0, 5))
    for old, new in ((0, 5), (0, 8), (0, 3), (3, 8), (6, 8), (8, 8), (4, 4)):
        error = refuses(witness, log, log.request(old, new), OldSizeError)
        assert isinstance(error, OldSizeError)
        assert error.size == 5


def test_a_conflict_comes_before_what_is_wrong_with_the_proof(witness: Witness, log: MadeLog) -> None:
    witness.add_checkpoint(log.request(0, 5))
    refuses(witness, log, log.request(0, 8, proof=[bytes(32)]), OldSizeError)
    refuses(witness, log, log.request(3, 8, proof=[]), OldSizeError)


def test_an_empty_tree_has_one_root(witness: Witness, log: MadeLog) -> None:
    refuses(witness, log, log.request(0, 0, note=log.note(0, root=bytes(32))), ConsistencyError)
    require_cosigned(log.note(0), witness.add_checkpoint(log.request(0, 0)))
    assert stored(witness, log) == (0, EMPTY_ROOT)
    refuses(witness, log, log.request(0, 0, note=log.note(0, root=bytes(32))), ConsistencyError)
    require_cosigned(log.note(3), witness.add_checkpoint(log.request(0, 3)))


def test_from_size_0_there_is_no_proof(witness: Witness, log: MadeLog) -> None:
    refuses(witness, log, log.request(0, 3, proof=log.proof(1, 3)), ConsistencyError)
    refuses(witness, log, log.request(0, 0, proof=[bytes(32)]), ConsistencyError)


def test_a_proof_must_lead_from_the_stored_root(witness: Witness, log: MadeLog) -> None:
    witness.add_checkpoint(log.request(0, 5))
    good = log.proof(5, 13)
    assert len(good) > 2
    for proof in ([], good[:-1], [*good, good[-1]], good[::-1], [bytes(32), *good[1:]], [*good[:-1], bytes(32)]):
        refuses(witness, log, log.request(5, 13, proof=proof), ConsistencyError)
    require_cosigned(log.note(13), witness.add_checkpoint(log.request(5, 13, proof=good)))


def test_a_fork_with_a_proof_of_its_own_is_refused(witness: Witness, log: MadeLog) -> None:
    witness.add_checkpoint(log.request(0, 8))
    refuses(witness, log, MadeLog(fork_at=3).request(8, 16), ConsistencyError)
    refuses(witness, log, MadeLog(fork_at=3).request(8, 9), ConsistencyError)
    require_cosigned(log.note(9), witness.add_checkpoint(log.request(8, 9)))


def test_another_root_at_the_same_size_is_inconsistent(witness: Witness, log: MadeLog) -> None:
    witness.add_checkpoint(log.request(0, 8))
    refuses(witness, log, MadeLog(fork_at=3).request(8, 8), ConsistencyError)


def test_the_same_tree_is_cosigned_anew_without_a_proof(witness: Witness, log: MadeLog, time: Time) -> None:
    first = witness.add_checkpoint(log.request(0, 4))
    time.now_s += 60
    again = witness.add_checkpoint(log.request(4, 4))
    require_cosigned(log.note(4), again)
    assert times(again) == [NOW_S + 60] * 2
    assert times(first) == [NOW_S] * 2
    refuses(witness, log, log.request(4, 4, proof=[bytes(32)]), ConsistencyError)


def times(answer: bytes) -> list[int | None]:
    lines = parse_cosignatures(answer)
    return [signature_time(skey.vkey, line.payload) for skey, line in zip(WITNESS_KEYS, lines, strict=True)]


def test_the_time_never_goes_back_and_is_never_0(tmp_path: Path, log: MadeLog) -> None:
    time = Time(0)
    witness = make_witness(tmp_path / "state", log, now_ms=time)
    assert times(witness.add_checkpoint(log.request(0, 1))) == [1, 1]
    time.now_s = 100
    assert times(witness.add_checkpoint(log.request(1, 2))) == [100, 100]
    time.now_s = -5
    assert times(witness.add_checkpoint(log.request(2, 2))) == [100, 100]
    assert times(witness.add_checkpoint(log.request(2, 3))) == [100, 100]
    witness.store.close()


def test_the_same_tree_in_the_same_second_is_answered_from_what_is_stored(witness: Witness, log: MadeLog) -> None:
    first = witness.add_checkpoint(log.request(0, 4))
    assert witness.add_checkpoint(log.request(4, 4)) == first


def test_what_is_served_has_the_logs_lines_and_ours_and_nothing_else(witness: Witness, log: MadeLog) -> None:
    others = [KeySigner(make_key(WITNESS_NAME, KeyType.COSIGNATURE_ED25519, 3)), KeySigner(make_key("w", KeyType.ED25519))]
    note = log.note(6, signers=[*others, *map(KeySigner, log.skeys)])
    answer = witness.add_checkpoint(log.request(0, 6, note=note))
    served = witness.latest(origin_hash(log.origin))
    assert served == format_note(log.text(6), parse_note(note).signatures[2:]) + answer
    assert monitoring_path(log.origin) == f"{sha256(b'log.example/made').hexdigest()}/checkpoint"


def test_a_forged_line_under_our_own_name_and_key_is_neither_stored_nor_answered(witness: Witness, log: MadeLog) -> None:
    forged = [
        Signature(
            name=WITNESS_NAME, key_id=skey.vkey.key_id, payload=bytes(8 + (64 if len(skey.vkey.public_key) < 99 else 2420))
        )
        for skey in WITNESS_KEYS
    ]
    note = parse_note(log.note(6))
    answer = witness.add_checkpoint(log.request(0, 6, note=format_note(note.text, [*forged, *note.signatures, *forged])))
    require_cosigned(log.note(6), answer)
    served = witness.latest(origin_hash(log.origin))
    assert parse_note(served).signatures == (*note.signatures, *parse_cosignatures(answer))


def test_nothing_is_served_of_what_was_never_cosigned(witness: Witness, log: MadeLog) -> None:
    for name in (origin_hash(log.origin), origin_hash("other"), "", "0" * 63, "g" * 64, "\ud800", origin_hash("").upper()):
        with pytest.raises(NotFoundError):
            witness.latest(name)
    witness.add_checkpoint(log.request(0, 1))
    with pytest.raises(NotFoundError):
        witness.latest(origin_hash(log.origin).upper())
    with pytest.raises(NotFoundError):
        witness.latest(origin_hash(log.origin) + "\n")
    assert witness.latest(origin_hash(log.origin))


def test_whoever_sends_a_checkpoint_again_takes_no_line_of_the_log_away(witness: Witness, log: MadeLog, time: Time) -> None:
    witness.add_checkpoint(log.request(0, 6))
    time.now_s += 1
    witness.add_checkpoint(log.request(6, 6, note=log.note(6, signers=_one(log))))
    names = [line.key_id for line in parse_note(witness.latest(origin_hash(log.origin))).signatures]
    assert sorted(names) == sorted([vkey.key_id for vkey in log.vkeys] + [skey.vkey.key_id for skey in WITNESS_KEYS])
    witness.remove_key(log.origin, log.vkeys[1])
    time.now_s += 1
    witness.add_checkpoint(log.request(6, 6, note=log.note(6, signers=_one(log))))
    assert log.vkeys[1].key_id not in [line.key_id for line in parse_note(witness.latest(origin_hash(log.origin))).signatures]


def _one(log: MadeLog) -> list[KeySigner]:
    return [KeySigner(log.skeys[0])]


def test_a_log_may_sign_under_another_name_than_its_origin(tmp_path: Path) -> None:
    log = MadeLog("go.sum database tree", key_name="sum.example", types=(KeyType.ED25519,))
    witness = make_witness(tmp_path / "state", log)
    require_cosigned(log.note(7), witness.add_checkpoint(log.request(0, 7)))
    witness.store.close()


def test_a_key_of_one_log_signs_for_no_other(tmp_path: Path) -> None:
    one, other = MadeLog("log.example/one"), MadeLog("log.example/two")
    witness = make_witness(tmp_path / "state", one, other)
    refuses(witness, other, other.request(0, 1, note=other.note(1, signers=[KeySigner(one.skeys[0])])), SignatureError)
    witness.store.close()


def test_a_log_without_keys_is_known_and_not_trusted(witness: Witness, log: MadeLog) -> None:
    for vkey in log.vkeys:
        witness.remove_key(log.origin, vkey)
    refuses(witness, log, log.request(0, 1), SignatureError)


def test_our_own_log_and_keys_are_never_witnessed(tmp_path: Path, log: MadeLog) -> None:
    ours = WITNESS_KEYS[0]
    host = MadeLog("log.example/host")
    witness = make_witness(tmp_path / "state", log, excluded={host.origin}, excluded_keys={host.vkeys[0].public_key})
    for refused in (
        host.known,
        KnownLog(origin="else", vkeys=host.vkeys),
        KnownLog(origin=WITNESS_NAME, vkeys=log.vkeys),
        KnownLog(origin="else", vkeys=(log.vkeys[0], make_key(WITNESS_NAME, KeyType.ED25519).vkey)),
        KnownLog(origin="else", vkeys=(SKey(name="else", type=ours.type, seed=ours.seed).vkey,)),
    ):
        with pytest.raises(RefusedError):
            witness.add_log(refused)
        witness.store.add_log(refused)  # as another process might, that does not know the host
    refuses(witness, host, host.request(0, 1), NotFoundError)
    others = MadeLog("else")
    refuses(witness, others, others.request(0, 1, note=others.note(1, signers=[KeySigner(host.skeys[0])])), SignatureError)
    witness.store.close()


def test_what_moves_a_log_counts_against_the_log_and_nothing_else_does(tmp_path: Path, log: MadeLog, time: Time) -> None:
    witness = make_witness(tmp_path / "state", now_ms=time)
    witness.store.add_log(KnownLog(origin=log.origin, vkeys=log.vkeys, queries_per_day=24))
    witness.add_checkpoint(log.request(0, 1), peer="log")
    for _ in range(50):  # what anybody may send that has the public checkpoint
        with pytest.raises(OldSizeError):
            witness.add_checkpoint(log.request(0, 1), peer="anybody")
        with pytest.raises(ConsistencyError):
            witness.add_checkpoint(log.request(1, 40, proof=()), peer="anybody")
        with pytest.raises(SignatureError):
            witness.add_checkpoint(
                log.request(0, 1, note=log.note(1, signers=[KeySigner(make_key("x", KeyType.ED25519))])), peer="anybody"
            )
    for old in range(1, 10):
        witness.add_checkpoint(log.request(old, old + 1), peer="log")
    with pytest.raises(RateLimitedError) as raised:
        witness.add_checkpoint(log.request(10, 11), peer="log")
    assert 0 < raised.value.retry_after_ms <= 3_600_000
    assert stored(witness, log) == (10, log.tree.mth(0, 10))
    time.now_s += raised.value.retry_after_ms // 1000 + 1
    witness.add_checkpoint(log.request(10, 11), peer="log")
    witness.store.close()


def test_a_peer_that_sends_what_is_no_use_is_told_to_wait_and_others_are_not(tmp_path: Path, log: MadeLog) -> None:
    witness = make_witness(tmp_path / "state", log, peer_failures_per_day=24)
    bad = log.request(0, 1, note=log.note(1, signers=[KeySigner(make_key("x", KeyType.ED25519))]))
    for _ in range(10):
        with pytest.raises(SignatureError):
            witness.add_checkpoint(bad, peer="one")
    with pytest.raises(RateLimitedError):
        witness.add_checkpoint(bad, peer="one")
    with pytest.raises(RateLimitedError):
        witness.add_checkpoint(log.request(0, 1), peer="one")
    with pytest.raises(NotFoundError):
        witness.add_checkpoint(MadeLog("log.example/other").request(0, 1), peer="one")
    witness.add_checkpoint(log.request(0, 1), peer="two")
    witness.store.close()


def test_a_peer_asks_for_the_same_tree_as_often_as_the_log_may_move(tmp_path: Path, log: MadeLog, time: Time) -> None:
    witness = make_witness(tmp_path / "state", now_ms=time)
    witness.store.add_log(KnownLog(origin=log.origin, vkeys=log.vkeys, queries_per_day=24))
    witness.add_checkpoint(log.request(0, 4), peer="log")
    for _ in range(10):
        time.now_s += 1
        witness.add_checkpoint(log.request(4, 4), peer="anybody")
    time.now_s += 1
    with pytest.raises(RateLimitedError):
        witness.add_checkpoint(log.request(4, 4), peer="anybody")
    witness.add_checkpoint(log.request(4, 4), peer="log")
    witness.add_checkpoint(log.request(4, 5), peer="log")
    witness.store.close()


def test_a_log_that_others_outrun_is_not_limited_for_it(tmp_path: Path, log: MadeLog, time: Time) -> None:
    """Another witness, to whom the log shows each checkpoint, could send it here first, each time."""
    witness = make_witness(tmp_path / "state", log, now_ms=time, peer_failures_per_day=24)
    for old in range(30):
        time.now_s += 1
        witness.add_checkpoint(log.request(old, old + 1), peer="forwarder")
        with pytest.raises(OldSizeError):
            witness.add_checkpoint(log.request(old, old + 1), peer="log")
        witness.add_checkpoint(log.request(old + 1, old + 1), peer="log")
    for _ in range(10):
        with pytest.raises(OldSizeError):
            witness.add_checkpoint(log.request(0, 1), peer="replays")
    with pytest.raises(RateLimitedError):
        witness.add_checkpoint(log.request(0, 1), peer="replays")
    witness.store.close()


def test_a_step_counts_once_however_many_ask_for_it_at_the_same_time(tmp_path: Path, log: MadeLog, time: Time) -> None:
    quick = make_witness(tmp_path / "state", now_ms=time)
    quick.store.add_log(KnownLog(origin=log.origin, vkeys=log.vkeys, queries_per_day=1))
    signer = Interrupted(KeySigner(WITNESS_KEYS[0]), lambda: None)
    slow = Witness(store=quick.store, signers=[signer], now_ms=time)
    for old in range(20):  # these come too late, and take nothing
        new = Cosigned(size=old + 1, root=log.tree.mth(0, old + 1), time_s=time.now_s, note=log.note(old + 1))
        signer.happens = partial(quick.store.update, log.origin, old=old, new=new)
        with pytest.raises(OldSizeError):
            slow.add_checkpoint(log.request(old, old + 1))
    slow.add_checkpoint(log.request(20, 21))
    quick.store.close()


def test_a_log_that_asks_too_often_is_told_so_before_anything_else(tmp_path: Path, log: MadeLog) -> None:
    witness = make_witness(tmp_path / "state")
    witness.store.add_log(KnownLog(origin=log.origin, vkeys=log.vkeys, queries_per_day=1))
    for old in range(10):
        witness.add_checkpoint(log.request(old, old + 1))
    for body in (log.request(0, 1), log.request(10, 12, proof=[]), log.request(10, 11)):
        with pytest.raises(RateLimitedError):
            witness.add_checkpoint(body)
    witness.store.close()


class Interrupted:
    """A signer during whose work something else happens, once."""

    def __init__(self, signer: KeySigner, happens: Callable[[], object]) -> None:
        self.name, self.key_id = signer.name, signer.key_id
        self._signer = signer
        self.happens: Callable[[], object] | None = happens

    def sign(self, text: str, *, time_s: int) -> bytes:
        happens, self.happens = self.happens, None
        if happens:
            happens()
        return self._signer.sign(text, time_s=time_s)


def test_of_two_requests_at_once_the_slower_is_told_the_new_size(tmp_path: Path, log: MadeLog) -> None:
    quick = make_witness(tmp_path / "state", log)
    quick.add_checkpoint(log.request(0, 4))
    slow = Interrupted(KeySigner(WITNESS_KEYS[0]), lambda: quick.add_checkpoint(log.request(4, 9)))
    witness = Witness(store=quick.store, signers=[slow], now_ms=Time())
    with pytest.raises(OldSizeError) as raised:
        witness.add_checkpoint(log.request(4, 5))
    assert raised.value.size == 9
    assert stored(quick, log) == (9, log.tree.mth(0, 9))
    quick.store.close()


def test_who_is_slower_by_a_second_at_the_same_tree_gets_the_later_lines(tmp_path: Path, log: MadeLog) -> None:
    quick = make_witness(tmp_path / "state", log, now_ms=Time(NOW_S + 7))
    make_witness(tmp_path / "state", now_ms=Time(NOW_S)).add_checkpoint(log.request(0, 4))
    slow = Interrupted(KeySigner(WITNESS_KEYS[0]), lambda: quick.add_checkpoint(log.request(4, 4)))
    witness = Witness(store=quick.store, signers=[slow, KeySigner(WITNESS_KEYS[1])], now_ms=Time(NOW_S + 3))
    assert times(witness.add_checkpoint(log.request(4, 4))) == [NOW_S + 7] * 2
    quick.store.close()


def test_who_is_always_slower_is_told_to_come_again(tmp_path: Path, log: MadeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def outdone(store: WitnessStore, origin: str, *, old: int, new: object) -> None:
        raise OldSizeError("later", size=old)

    witness = make_witness(tmp_path / "state", log)
    monkeypatch.setattr(WitnessStore, "update", outdone)
    with pytest.raises(PushbackError):
        witness.add_checkpoint(log.request(0, 4))
    witness.store.close()


@pytest.mark.parametrize("old", [0, 3, 8])
def test_two_trees_of_one_size_are_kept_whatever_old_size_is_named(tmp_path: Path, log: MadeLog, old: int) -> None:
    witness = make_witness(tmp_path / "state", log, accusations=Accusations(tmp_path / "accusations"))
    witness.add_checkpoint(log.request(0, 8))
    fork = MadeLog(fork_at=3)
    for _ in range(3):
        with pytest.raises((ConsistencyError, OldSizeError)):
            witness.add_checkpoint(fork.request(old, 8))
    [kept] = (tmp_path / "accusations").iterdir()
    text = kept.read_text("utf-8")
    for tree in (log, fork):
        assert tree.text(8).replace("\n", "\\n") in text
    witness.store.close()


def test_a_bad_proof_accuses_nobody_since_anybody_may_have_sent_it(tmp_path: Path, log: MadeLog) -> None:
    witness = make_witness(tmp_path / "state", log, accusations=Accusations(tmp_path / "accusations"))
    witness.add_checkpoint(log.request(0, 8))
    with pytest.raises(ConsistencyError):
        witness.add_checkpoint(log.request(8, 9, proof=[bytes(32)]))
    forged = parse_note(MadeLog(fork_at=3).note(8))
    lines = [Signature(name=line.name, key_id=line.key_id, payload=line.payload[:-1] + b"!") for line in forged.signatures]
    with pytest.raises(SignatureError):
        witness.add_checkpoint(log.request(8, 8, note=format_note(forged.text, lines)))
    assert not (tmp_path / "accusations").exists()
    witness.store.close()


def test_signers_and_state_belong_together(tmp_path: Path) -> None:
    store = WitnessStore.create(tmp_path / "state", name=WITNESS_NAME, vkeys=[WITNESS_KEYS[0].vkey])
    Witness(store=store, signers=[KeySigner(WITNESS_KEYS[0])], now_ms=Time())
    for signers in ([], [KeySigner(WITNESS_KEYS[1])], [KeySigner(make_key("other", KeyType.COSIGNATURE_ED25519))]):
        with pytest.raises(SettingsError) as raised:
            Witness(store=store, signers=signers, now_ms=Time())
        assert raised.value.code == "witness-other-state"
    store.close()


def test_a_witness_may_sign_with_one_of_its_keys(tmp_path: Path, log: MadeLog, time: Time) -> None:
    both = make_witness(tmp_path / "state", log, now_ms=time)
    classic = Witness(store=both.store, signers=[KeySigner(WITNESS_KEYS[1])], now_ms=time)
    require_cosigned(log.note(3), classic.add_checkpoint(log.request(0, 3)), vkeys=[WITNESS_KEYS[1].vkey])
    require_cosigned(log.note(3), both.add_checkpoint(log.request(3, 3)))
    require_cosigned(log.note(3), classic.add_checkpoint(log.request(3, 3)), vkeys=[WITNESS_KEYS[1].vkey])
    require_cosigned(log.note(3), both.add_checkpoint(log.request(3, 3)))
    assert [str(vkey) for vkey in both.vkeys] == [str(skey.vkey) for skey in WITNESS_KEYS]
    assert both.name == WITNESS_NAME
    assert [known.origin for known in both.logs()] == [log.origin]
    both.store.close()
