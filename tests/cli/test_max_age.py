"""`translog verify --max-age`: where a policy asks for witnesses, an operator who signs anew does not make a tree younger."""

import json
import time
from pathlib import Path

import pytest
from client.simulator import ED25519, MLDSA44, ORIGIN

from cli.harness import Result, require_plain
from cli.test_verify import Case
from translog.cli import verify
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.merkle import EMPTY_ROOT
from translog.core.note import Signature, format_note
from translog.core.policy import Cosigned, VerifiedCheckpoint, parse_policy
from translog.core.proof import Receipt, format_receipt
from translog.errors import VerificationError

DAY_S = 86_400
WITNESSES = {
    name: SKey(name=f"{name}.example", type=KeyType.COSIGNATURE_ED25519, seed=bytes([number]) * 32)
    for number, name in enumerate("abc", start=1)
}
POLICY = (
    f"log {MLDSA44.vkey}\nlog {ED25519.vkey}\n"
    + "".join(f"witness {name} {skey.vkey}\n" for name, skey in WITNESSES.items())
    + "group two 2 a b c\n"
)


class Aged(Case):
    """The receipt's checkpoint is signed by the log and cosigned, each some seconds ago."""

    def check(self, quorum: str, **ago_s: int) -> Result:
        now_s = int(time.time())
        text = format_checkpoint(Checkpoint(origin=ORIGIN, size=7, root=self.log.root(7)))
        signed = []
        for name, seconds in ago_s.items():
            skey = MLDSA44 if name == "log" else WITNESSES[name]
            payload = KeySigner(skey).sign(text, time_s=now_s - seconds)
            signed.append(Signature(name=skey.name, key_id=skey.vkey.key_id, payload=payload))
        proof = tuple(self.log.oracle.path(5, 0, 7))
        self.receipt.write_bytes(format_receipt(Receipt(index=5, proof=proof, checkpoint=format_note(text, signed))))
        self.policy.write_text(f"{POLICY}quorum {quorum}\n")
        return self.verify("--max-age", "1d", "--json")


@pytest.fixture
def aged(tmp_path: Path) -> Aged:
    return Aged(tmp_path)


@pytest.mark.parametrize(
    ("quorum", "ago_s"),
    [
        ("a", {"log": 0, "a": 90 * DAY_S}),
        ("a", {"log": 0, "a": 90 * DAY_S, "b": 0, "c": 0}),
        ("two", {"log": 0, "a": 0, "b": 90 * DAY_S}),
        ("two", {"log": 0, "a": 0, "b": 90 * DAY_S, "c": 2 * DAY_S}),
        ("none", {"log": 90 * DAY_S}),
    ],
)
def test_a_quorum_that_is_not_fresh_is_too_old(aged: Aged, quorum: str, ago_s: dict[str, int]) -> None:
    result = aged.check(quorum, **ago_s)
    line = require_plain(result, 1)[0]
    assert json.loads(result.out)["code"] == "too-old"
    oldest_needed = sorted(seconds for name, seconds in ago_s.items() if name in (("a",) if quorum == "a" else "abc"))
    expected = oldest_needed[{"a": 0, "two": 1}[quorum]] if quorum != "none" else 90 * DAY_S
    assert any(f"was signed {expected + late} s ago, at 20" in line for late in range(20))


def test_a_witness_that_the_policy_calls_by_the_logs_name_is_not_made_younger_by_the_log(aged: Aged) -> None:
    renamed = POLICY.replace("witness a ", f"witness {ORIGIN} ").replace("group two 2 a ", f"group two 2 {ORIGIN} ")
    aged.check("a", log=0, a=90 * DAY_S)  # writes the receipt
    aged.policy.write_text(f"{renamed}quorum {ORIGIN}\n")
    result = aged.verify("--max-age", "1d", "--json")
    assert (result.code, json.loads(result.out)["code"]) == (1, "too-old")
    assert aged.verify("--max-age", "91d").code == 0


@pytest.mark.parametrize(
    ("quorum", "ago_s"),
    [
        ("a", {"log": 90 * DAY_S, "a": 0}),
        ("two", {"log": 0, "a": 90 * DAY_S, "b": 0, "c": DAY_S - 60}),
        ("two", {"log": 0, "a": -9_000, "b": 0, "c": 0}),  # the one from the future is not needed
        ("two", {"log": 0, "a": -200, "b": 0}),
        ("none", {"log": 0, "a": 90 * DAY_S}),
    ],
)
def test_a_quorum_that_is_fresh_is_enough(aged: Aged, quorum: str, ago_s: dict[str, int]) -> None:
    assert aged.check(quorum, **ago_s).code == 0


@pytest.mark.parametrize(
    ("quorum", "ago_s", "code"),
    [
        ("a", {"log": 0, "a": -1_000}, "future-time"),
        ("two", {"log": 0, "a": 0, "b": -1_000}, "future-time"),
        ("two", {"log": 0, "a": 0, "b": -1_000, "c": 90 * DAY_S}, "future-time"),
        ("two", {"log": 0, "a": -1_000, "b": 90 * DAY_S, "c": 90 * DAY_S}, "too-old"),
    ],
)
def test_times_that_are_needed_may_not_be_from_the_future(aged: Aged, quorum: str, ago_s: dict[str, int], code: str) -> None:
    result = aged.check(quorum, **ago_s)
    require_plain(result, 1)
    assert json.loads(result.out)["code"] == code


@pytest.mark.parametrize("quorum", ["a", "two"])
def test_a_witness_that_states_no_time_does_not_count(quorum: str) -> None:
    signed = Cosigned(name=ORIGIN, vkey=MLDSA44.vkey, time_s=int(time.time()))
    fresh, timeless = (
        Cosigned(name=name, vkey=WITNESSES[name].vkey, time_s=time_s) for name, time_s in (("b", signed.time_s), ("a", None))
    )
    checkpoint = VerifiedCheckpoint(
        checkpoint=Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT), signed=(signed,), cosigned=(fresh, timeless)
    )
    with pytest.raises(VerificationError) as caught:
        verify._require_age(checkpoint, parse_policy(f"{POLICY}quorum {quorum}\n".encode()), DAY_S)
    assert caught.value.code == "no-time"
