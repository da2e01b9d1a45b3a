"""Changes of keys as entries: one spelling, signed by a key from before, and only the next one counts."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import pytest

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey, VKey
from translog.core.note import Signature, format_note, parse_note, sign_note
from translog.errors import MalformedError, SignatureError, VerificationError
from translog.events.keychain import (
    Action,
    KeyChain,
    Role,
    keys_before,
    looks_like_key_change,
    parse_key_change,
    sign_key_change,
)

NAME = "log.example/keys-test"
TIME_S = 1_700_000_000


def skey(number: int, kind: KeyType = KeyType.COSIGNATURE_MLDSA44, name: str = NAME) -> SKey:
    return SKey(name=name, type=kind, seed=bytes([number]) * 32)


M1, M2, M3 = skey(1), skey(2), skey(3)
E1, E2 = skey(1, KeyType.ED25519), skey(2, KeyType.ED25519)
CHAIN = KeyChain(name=NAME, active=(M1.vkey, E1.vkey))


def change(
    key: SKey, number: int, *signers: SKey, action: Action = Action.ADD, role: Role = Role.LOG, time_s: int = TIME_S
) -> bytes:
    return sign_key_change(
        role=role,
        name=key.name,
        vkey=key.vkey,
        action=action,
        number=number,
        signers=[KeySigner(signer) for signer in signers],
        time_s=time_s,
    )


ADD_M2 = change(M2, 1, M1, E1)


def test_the_entry_is_the_one_that_the_formats_fix() -> None:
    document = json.loads(ADD_M2)
    assert list(document) == ["translog", "role", "name", "vkey", "action", "note"]
    note = document.pop("note")
    assert document == {"translog": "key/1", "role": "log", "name": NAME, "vkey": str(M2.vkey), "action": "add"}
    without = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    checkpoint = Checkpoint(origin=f"{NAME}/keys", size=1, root=sha256(without).digest())
    parsed = parse_note(note.encode())
    assert parsed.text == format_checkpoint(checkpoint)
    assert [(line.name, line.key_id) for line in parsed.signatures] == [(NAME, M1.vkey.key_id), (NAME, E1.vkey.key_id)]
    assert json.dumps({**document, "note": note}, separators=(",", ":"), ensure_ascii=False).encode() == ADD_M2
    assert looks_like_key_change(ADD_M2)


def test_what_is_parsed_is_what_was_said() -> None:
    found = parse_key_change(change(E2, 7, M1, action=Action.RETIRE, role=Role.STREAM))
    assert (found.role, found.name, found.vkey, found.action, found.number) == (
        Role.STREAM,
        NAME,
        E2.vkey,
        Action.RETIRE,
        7,
    )


def respelled(**members: object) -> bytes:
    return json.dumps({**json.loads(ADD_M2), **members}, separators=(",", ":"), ensure_ascii=False).encode()


def with_note(text: str) -> bytes:
    return respelled(note=sign_note(text, [KeySigner(E1)], time_s=TIME_S).decode())


_TEXT = parse_note(json.loads(ADD_M2)["note"].encode()).text
OTHERS = {
    "nothing": b"",
    "an opaque entry": b"hello",
    "another kind": ADD_M2.replace(b"key/1", b"key/2"),
    "a space": ADD_M2.replace(b'":"', b'": "', 1),
    "a space behind": ADD_M2 + b" ",
    "an escape": ADD_M2.replace(b'"role"', b'"\\u0072ole"'),
    "an escaped slash": ADD_M2.replace(b"log.example/keys-test", rb"log.example\/keys-test"),
    "a member more": respelled(more=1),
    "a member twice": ADD_M2[:-1] + b',"role":"log"}',
    "a member less": ADD_M2.replace(b',"action":"add"', b""),
    "members exchanged": ADD_M2.replace(
        b'"role":"log","name":"' + NAME.encode() + b'"', f'"name":"{NAME}","role":"log"'.encode()
    ),
    "an unknown role": respelled(role="witness"),
    "an unknown action": respelled(action="replace"),
    "a number for a name": respelled(name=5),
    "no note": respelled(note=""),
    "a note that is none": respelled(note="hello\n"),
    "half of a pair": ADD_M2.replace(b'"role":"log"', b'"role":"\\ud800"'),
    "not UTF-8": ADD_M2.replace(b'"role":"log"', b'"role":"\xff"'),
    "a key that is none": respelled(vkey="x"),
    "a key of another name": respelled(vkey=str(skey(2, name="log.example/other").vkey)),
    "a name that is not the key's": respelled(name="log.example/other"),
    "a witness's key": respelled(vkey=str(skey(2, KeyType.COSIGNATURE_ED25519).vkey)),
    "another key than the note says": respelled(vkey=str(M3.vkey)),
    "another action than the note says": respelled(action="retire"),
    "another role than the note says": respelled(role="stream"),
    "an origin of another name": with_note(_TEXT.replace(f"{NAME}/keys", "log.example/other/keys")),
    "a checkpoint's origin": with_note(_TEXT.replace(f"{NAME}/keys", NAME)),
    "number 0": with_note(_TEXT.replace("\n1\n", "\n0\n")),
    "an extension line": with_note(_TEXT + "more\n"),
    "too long": ADD_M2[:-2] + b"x" * 70_000 + b'"}',
    "deep": b'{"translog":"key/1","role":' + b"[" * 30_000,
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_entry_is_malformed_and_nothing_else(name: str) -> None:
    assert OTHERS[name] != ADD_M2
    with pytest.raises(MalformedError):
        parse_key_change(OTHERS[name])


def test_what_was_parsed_is_one_spelling_for_every_byte() -> None:
    for at in range(len(ADD_M2)):
        flipped = ADD_M2[:at] + bytes([ADD_M2[at] ^ 1]) + ADD_M2[at + 1 :]
        try:
            found = parse_key_change(flipped)
        except MalformedError:
            continue
        # What is left is the signatures, which parsing does not look at: one of two that is not known any more does no harm.
        assert replace(found, note=b"") == replace(parse_key_change(ADD_M2), note=b"")
        with suppress(SignatureError):
            assert CHAIN.follow(flipped) == CHAIN.follow(ADD_M2)


def test_one_that_cannot_be_read_back_is_not_signed() -> None:
    witness = skey(5, KeyType.COSIGNATURE_ED25519)
    with pytest.raises(MalformedError):
        change(witness, 1, M1)
    with pytest.raises(MalformedError, match="is named"):
        sign_key_change(
            role=Role.LOG,
            name="log.example/other",
            vkey=M2.vkey,
            action=Action.ADD,
            number=1,
            signers=[KeySigner(skey(1, name="log.example/other"))],
            time_s=TIME_S,
        )


def test_a_key_is_added_and_an_old_one_retired() -> None:
    both = CHAIN.follow(ADD_M2)
    assert (both.active, both.number, both.retired) == ((M1.vkey, E1.vkey, M2.vkey), 1, ())
    new = both.follow(change(M1, 2, M1, M2, E1, action=Action.RETIRE))
    assert (new.active, new.number, new.retired) == ((E1.vkey, M2.vkey), 2, (M1.vkey,))


@pytest.mark.parametrize("signer", [M1, E1], ids=["ML-DSA-44", "Ed25519"])
def test_one_key_from_before_is_enough(signer: SKey) -> None:
    assert CHAIN.follow(change(M2, 1, signer)).number == 1


def test_lines_of_keys_that_nobody_knows_are_ignored() -> None:
    assert CHAIN.follow(change(M2, 1, M3, M1)).number == 1


def spoilt(entry: bytes, key: SKey) -> bytes:
    """With one more line in the name of that key, which it never made."""
    document = json.loads(entry)
    note = parse_note(document["note"].encode())
    line = Signature(name=NAME, key_id=key.vkey.key_id, payload=bytes(64 if key.type is KeyType.ED25519 else 2428))
    document["note"] = format_note(note.text, [line, *note.signatures]).decode()
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


NOT_NEXT: dict[str, Callable[[], bytes]] = {
    "signed by the key that it adds": lambda: change(M2, 1, M2),
    "signed by a stranger": lambda: change(M2, 1, M3),
    "with a line of a key of ours that does not verify": lambda: spoilt(change(M2, 1, M1), E1),
    "of the number after": lambda: change(M2, 2, M1),
    "of a key that is there": lambda: change(E1, 1, M1),
    "retiring a key that is not there": lambda: change(M3, 1, M1, action=Action.RETIRE),
    "of a stream": lambda: change(M2, 1, M1, role=Role.STREAM),
    "of another log": lambda: change(skey(2, name="log.example/other"), 1, skey(1, name="log.example/other")),
    "signed at another number": lambda: change(M2, 2, M1).replace(rb"/keys\n2\n", rb"/keys\n1\n"),
}


@pytest.mark.parametrize("name", NOT_NEXT)
def test_what_is_not_the_next_change_changes_nothing(name: str) -> None:
    with pytest.raises(VerificationError):
        CHAIN.follow(NOT_NEXT[name]())


def test_a_change_is_not_followed_twice_and_none_is_left_out() -> None:
    once = CHAIN.follow(ADD_M2)
    with pytest.raises(VerificationError, match="change 1"):
        once.follow(ADD_M2)
    with pytest.raises(VerificationError, match="does not follow 1"):
        once.follow(change(M3, 3, M1))


def test_a_retired_key_signs_no_more_changes_and_does_not_come_back() -> None:
    new = CHAIN.follow(ADD_M2).follow(change(M1, 2, E1, action=Action.RETIRE))
    with pytest.raises(SignatureError):
        new.follow(change(M3, 3, M1))
    with pytest.raises(VerificationError, match="was there before"):
        new.follow(change(M1, 3, M2))
    with pytest.raises(VerificationError, match="not in use"):
        new.follow(change(M1, 3, M2, action=Action.RETIRE))


def test_the_last_key_stays() -> None:
    alone = KeyChain(name=NAME, active=(M1.vkey,))
    with pytest.raises(VerificationError) as caught:
        alone.follow(change(M1, 1, M1, action=Action.RETIRE))
    assert caught.value.code == "last-key"


def test_a_key_whose_id_is_taken_is_not_added(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = change(M2, 1, M1)
    monkeypatch.setattr(VKey, "key_id", property(lambda self: b"same"))
    monkeypatch.setattr(KeyChain, "require_signed", lambda self, change: None)
    monkeypatch.setattr("translog.events.keychain.parse_vkey", lambda text: M2.vkey)
    monkeypatch.setattr(VKey, "__str__", lambda self: str(json.loads(entry)["vkey"]))
    with pytest.raises(VerificationError, match="was there before"):
        CHAIN.follow(entry)


class TestSomeOfTheKeys:
    """Who holds a policy knows some of the keys only."""

    def chain(self, *keys: SKey) -> KeyChain:
        return KeyChain(name=NAME, active=tuple(key.vkey for key in keys), kinds=frozenset(key.type for key in keys))

    def test_follows_by_those(self) -> None:
        new = self.chain(M1).follow(ADD_M2).follow(change(M1, 2, M1, M2, E1, action=Action.RETIRE))
        assert (new.active, new.number) == ((M2.vkey,), 2)

    def test_takes_up_no_key_of_another_type(self) -> None:
        new = self.chain(M1).follow(change(E2, 1, M1, E1))
        assert (new.active, new.number) == ((M1.vkey,), 1)

    def test_believes_no_key_of_another_type(self) -> None:
        new = self.chain(M1).follow(change(E2, 1, M1, E1))
        with pytest.raises(SignatureError):
            new.follow(change(M2, 2, E2))

    def test_sees_keys_go_that_it_never_knew(self) -> None:
        new = self.chain(M1).follow(change(E1, 1, M1, E1, action=Action.RETIRE))
        assert (new.active, new.number) == ((M1.vkey,), 1)
        with pytest.raises(VerificationError, match="not in use"):
            new.follow(change(E1, 2, M1, action=Action.RETIRE))

    def test_is_left_with_nothing_when_the_last_that_it_knows_goes(self) -> None:
        with pytest.raises(VerificationError) as caught:
            self.chain(E1).follow(change(E1, 1, M1, E1, action=Action.RETIRE))
        assert caught.value.code == "last-key"


def test_the_keys_before_each_change_follow_from_those_of_today() -> None:
    changes = [ADD_M2, change(M1, 2, M1, action=Action.RETIRE), change(E2, 3, E1)]
    now = CHAIN.follow(changes[0]).follow(changes[1]).follow(changes[2]).active
    found = [set(keys) for keys in keys_before(now, changes)]
    assert found == [
        {M1.vkey, E1.vkey},
        {M1.vkey, E1.vkey, M2.vkey},
        {E1.vkey, M2.vkey},
        {E1.vkey, M2.vkey, E2.vkey},
    ]
    with pytest.raises(MalformedError):
        keys_before(now, [b"x"])
