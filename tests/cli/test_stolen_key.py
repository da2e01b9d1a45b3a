"""The rehearsal of the day on which a log's keys are stolen (specs/worst-day.md): real processes, real commands, a thief.

Rules: the thief has a copy of DIR/keys and can reach the witnesses; the operator, the members and those who run the witnesses
do what the page says and nothing else.
"""

import json
import random
import shutil
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from core.merkle_oracle import Oracle

from cli.harness import Result, Served, require_plain, run, serving
from cli.test_witness import ask, serving_witness, until
from translog.core.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.note import Signature, format_note, parse_note, parse_signature, sign_note
from translog.core.policy import parse_policy
from translog.core.proof import Receipt, format_receipt
from translog.events.keychain import Action, Role, parse_key_change, sign_key_change
from translog.log.keyfiles import list_key_files

ORIGIN = "log.example/stolen"
TIME_S = 1_900_000_000


def free_port() -> int:
    """A port that nothing listens on."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def done(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


class Thief:
    """Has the log's private keys, and all that is public of it."""

    def __init__(self, keys: Path, entries: Sequence[bytes]) -> None:
        self.skeys = [file.read_skey() for file in list_key_files(keys) if file.form == "skey"]
        self.entries = list(entries)

    def note(self, entries: Sequence[bytes], *skeys: SKey) -> bytes:
        root = Oracle(entries).mth(0, len(entries))
        text = format_checkpoint(Checkpoint(origin=ORIGIN, size=len(entries), root=root))
        return sign_note(text, [KeySigner(skey) for skey in skeys or self.skeys], time_s=TIME_S)

    def ask(self, url: str, entries: Sequence[bytes], *, old: int) -> tuple[int, bytes]:
        """Offers a tree to a witness, with the proof that follows from it."""
        tree = Oracle(entries)
        proof = tree.proof(old, 0, len(entries)) if 0 < old < len(entries) else []
        lines = [f"old {old}", *(b64encode(value).decode() for value in proof), ""]
        return ask(url, "POST", "/add-checkpoint", "\n".join(lines).encode() + b"\n" + self.note(entries))

    def receipt(self, entries: Sequence[bytes], answers: Sequence[bytes] = ()) -> bytes:
        """Of the last entry, with whatever the witnesses answered."""
        note = parse_note(self.note(entries))
        lines: list[Signature] = [parse_signature(line) for answer in answers for line in answer.decode().splitlines()]
        tree = Oracle(entries)
        proof = tuple(tree.path(len(entries) - 1, 0, len(entries)))
        return format_receipt(
            Receipt(index=len(entries) - 1, proof=proof, checkpoint=format_note(note.text, [*note.signatures, *lines]))
        )


@dataclass(kw_only=True)
class Scene:
    """A log in service with three witnesses, and a member who has its policy."""

    path: Path
    log: Served
    directory: Path
    witnesses: list[tuple[Path, str]]
    policy: Path

    def add(self, *entries: bytes) -> list[Path]:
        """Has the member append; the receipts."""
        files = [self.path / f"entry-{random.getrandbits(64):x}" for _ in entries]
        for file, entry in zip(files, entries, strict=True):
            file.write_bytes(entry)
        receipts = self.path / "receipts"
        before = set(receipts.glob("*")) if receipts.exists() else set()
        done(run("add", "--log", self.log.url, "--receipts", receipts, "--policy", self.policy, *files))
        return sorted(set(receipts.glob("*.tlog-proof")) - before)

    def entries(self) -> list[bytes]:
        status, body = ask(self.log.url, "GET", "/v1/entries?start=0&end=1000")
        assert status == 200, body
        return [b64decode(entry) for entry in json.loads(body)["entries"]]

    def vkeys(self) -> dict[str, str]:
        """The log's public keys in use, by ID."""
        shown: list[str] = json.loads(done(run("keys", "show", self.directory, "--json")).out)["vkeys"]
        return {vkey.split("+")[1]: vkey for vkey in shown}

    def verify(self, receipt: Path, entry: bytes, policy: Path) -> Result:
        file = self.path / "to-verify"
        file.write_bytes(entry)
        return run("verify", receipt, "--entry", file, "--policy", policy)

    def saved(self, name: str, data: bytes) -> Path:
        (self.path / name).write_bytes(data)
        return self.path / name


@contextmanager
def scene(path: Path) -> Iterator[Scene]:
    directory, port = path / "log", free_port()
    made = json.loads(done(run("init", directory, "--origin", ORIGIN, "--profile", "opaque", "--json")).out)
    options = [part for vkey in made["vkeys"] for part in ("--log", vkey)]
    with ExitStack() as stack:
        witnesses, lines = [], []
        for number in range(3):
            place = path / f"w{number}"
            witness = stack.enter_context(serving_witness(place, "--name", f"w{number}.example/w", *options))
            witnesses.append((place, witness.url))
            lines.append(json.loads(done(run("witness", "keys", place, "--url", witness.url, "--json")).out)["policy"])
        names = " ".join(f"w{number}.example/w" for number in range(3))
        (directory / "publication.policy").write_text("".join(lines) + f"group all-three 2 {names}\nquorum all-three\n")
        settings = (directory / "translog.toml").read_text()
        settings = settings.replace("[server]\n", f'[server]\nadmin_listen = "127.0.0.1:{port}"\n')
        settings += '\n[log.witnessing]\npolicy_file = "publication.policy"\nmin_interval_ms = 0\n'
        (directory / "translog.toml").write_text(settings)
        log = stack.enter_context(serving(directory, "--admin-listen", f"127.0.0.1:{port}"))
        policy = path / "policy"
        done(run("policy", "--log", log.url, "-o", policy))
        yield Scene(path=path, log=log, directory=directory, witnesses=witnesses, policy=policy)


def test_stolen_keys_are_replaced_and_what_the_thief_signs_is_worth_nothing(tmp_path: Path) -> None:
    with scene(tmp_path) as now:
        (early,) = now.add(b"before")
        done(now.verify(early, b"before", now.policy))
        shutil.copytree(now.directory / "keys", tmp_path / "loot")
        old = now.vkeys()

        # The thief signs another history. The witnesses have seen the log's, and say no.
        thief = Thief(tmp_path / "loot", now.entries())
        fork = [b"forged", *thief.entries[1:], b"forged too"]
        for _, url in now.witnesses:
            assert thief.ask(url, fork, old=len(thief.entries))[0] == 422
            assert thief.ask(url, fork[: len(thief.entries)], old=len(thief.entries))[0] in (409, 422)
            assert thief.ask(url, fork, old=0)[0] == 409
        forged = now.saved("forged.tlog-proof", thief.receipt(fork))
        assert "quorum" in require_plain(now.verify(forged, fork[-1], now.policy), 1)[0]

        # The operator adds a key of each type; the witnesses' operators take them up; then the stolen ones are retired.
        added = [
            json.loads(done(run("keys", "add", now.directory, "--type", kind, "--json")).out) for kind in ("mldsa44", "ed25519")
        ]
        assert all(change["published"] for change in added)
        for place, _ in now.witnesses:
            done(run("witness", "add-log", place, *(change["vkey"] for change in added)))
        for key_id in old:
            retired = done(run("keys", "retire", now.directory, key_id, "--operator", "carol"))
            assert "translog policy update" in retired.err
        assert set(now.vkeys()) == {change["key_id"] for change in added}
        for place, _ in now.witnesses:
            for vkey in old.values():
                done(run("witness", "remove-key", place, vkey))

        # The member follows; the file differs in the log's lines only.
        kept = now.saved("policy-of-before", now.policy.read_bytes())
        said = done(run("policy", "update", now.policy, "--log", now.log.url)).out
        assert said.startswith(f"OK: {ORIGIN}, {now.policy} is new\n")
        assert said.count("  change ") == 4
        lines = now.policy.read_text().splitlines()
        assert [line for line in lines if line.startswith("log ")] == [f"log {added[0]['vkey']} {now.log.url}"]
        rest = [
            [line for line in text.splitlines() if not line.startswith("log ")]
            for text in (kept.read_text(), now.policy.read_text())
        ]
        assert rest[0] == rest[1]
        (receipt,) = now.add(b"after")
        done(now.verify(receipt, b"after", now.policy))

        # From here on the thief's signatures are worth nothing, even on the log's own history.
        thief.entries = now.entries()
        longer = [*thief.entries, b"forged"]
        for _, url in now.witnesses:
            assert thief.ask(url, longer, old=len(thief.entries))[0] == 403
        later = now.saved("later.tlog-proof", thief.receipt(longer))
        assert "no signature by a known key" in require_plain(now.verify(later, b"forged", now.policy), 1)[0]
        for number in (1, 5):  # in the log, either could be shown to whoever has the policy of before
            change = sign_key_change(
                role=Role.LOG,
                name=ORIGIN,
                vkey=SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32)).vkey,
                action=Action.ADD,
                number=number,
                signers=[KeySigner(skey) for skey in thief.skeys],
                time_s=TIME_S,
            )
            entry = now.saved("change", change)
            refused = run("add", "--log", now.log.url, "--receipts", tmp_path / "none", "--policy", now.policy, entry)
            assert "changes of this log's keys are made by its operator" in require_plain(refused, 3)[0]
        assert "nothing to change" in done(run("policy", "update", now.policy, "--log", now.log.url)).out

        # Receipts from before hold under the policy of before, and a new one can be had.
        done(now.verify(early, b"before", kept))
        require_plain(now.verify(early, b"before", now.policy), 1)
        anew = tmp_path / "anew"
        done(run("receipt", "0", "--log", now.log.url, "--policy", now.policy, "-o", anew))
        done(now.verify(anew, b"before", now.policy))
        assert now.log.stop() == 0


def test_a_thief_who_is_first_at_the_witnesses_stops_the_log(tmp_path: Path) -> None:
    """With a larger tree of their own. The log does not go on then, and no key that is added helps."""
    with scene(tmp_path) as now:
        now.add(b"before")
        shutil.copytree(now.directory / "keys", tmp_path / "loot")
        thief = Thief(tmp_path / "loot", now.entries())
        longer = [*thief.entries, b"the thief's", b"own"]
        answers = []
        for _, url in now.witnesses[:2]:
            status, answer = thief.ask(url, longer, old=len(thief.entries))
            assert status == 200
            answers.append(answer)
        # Two of three have signed the thief's tree: under the policy of today it is the log's.
        taken = now.saved("taken.tlog-proof", thief.receipt(longer, answers))
        done(now.verify(taken, b"own", now.policy))
        # The log finds out with the next entry, and says so.
        port = now.directory.joinpath("translog.toml").read_text().partition('admin_listen = "')[2].partition('"')[0]
        assert ask(now.log.url, "POST", "/add?ack=durable", b"mine")[0] == 202

        def held() -> bool:
            status, body = ask(f"http://{port}", "GET", "/readyz")
            return status == 503 and json.loads(body)["code"] == "witness-ahead"

        until(held)
        assert "the log is held" in require_plain(run("keys", "add", now.directory), 3)[0]
        shown = ask(now.log.url, "GET", "/checkpoint")[1]
        assert parse_checkpoint(parse_note(shown).text).size == len(thief.entries)
        # What the page says: the witnesses drop the keys, so that the thief gets no further.
        for place, _ in now.witnesses:
            for vkey in now.vkeys().values():
                done(run("witness", "remove-key", place, vkey))
        further = [*longer, b"more"]
        for _, url in now.witnesses:
            assert thief.ask(url, further, old=len(longer))[0] == 403


@pytest.mark.parametrize("profile", ["opaque", "events"])
def test_after_a_change_of_keys_everything_else_works_as_before(tmp_path: Path, profile: str) -> None:
    directory, address = tmp_path / "log", f"127.0.0.1:{free_port()}"
    made = json.loads(done(run("init", directory, "--origin", ORIGIN, "--profile", profile, "--json")).out)
    settings = directory / "translog.toml"
    settings.write_text(settings.read_text().replace("[server]\n", f'[server]\nadmin_listen = "{address}"\n'))
    first = [vkey.split("+")[1] for vkey in made["vkeys"]]
    with serving(directory, "--admin-listen", address) as served:
        done(run("policy", "--log", served.url, "-o", tmp_path / "old"))
        for kind in ("mldsa44", "ed25519"):
            done(run("keys", "add", directory, "--type", kind))
        for key_id in first:
            done(run("keys", "retire", directory, key_id))
        done(run("policy", "--log", served.url, "-o", tmp_path / "new"))
        keys = json.loads(ask(served.url, "GET", "/v1/keys")[1])
        assert [parse_key_change(b64decode(change["entry"])).number for change in keys["changes"]] == [1, 2, 3, 4]
        done(run("fsck", served.url, "--policy", _policy_of(tmp_path / "both", [*made["vkeys"], *keys["keys"]])))
        assert served.stop() == 0
    shown = done(run("keys", "show", directory))
    assert sorted(shown.out.splitlines()) == sorted(keys["keys"])
    assert sorted(line.removeprefix("retired: ") for line in shown.err.splitlines()) == sorted(made["vkeys"])
    done(run("fsck", directory))
    (private,) = (directory / "keys").glob("log-mldsa44-*.skey")
    private.with_suffix(".vkey").write_text(run("keys", "show", private).out)  # as a retirement that was cut off leaves it
    done(run("fsck", directory))
    private.with_suffix(".vkey").unlink()
    vault = ["--vault", tmp_path / "vault"] if profile == "events" else []
    done(run("backup", directory, tmp_path / "backup", *vault))
    restored = done(
        run(
            "restore",
            tmp_path / "backup",
            tmp_path / "again",
            "--keys",
            directory / "keys",
            "--head",
            directory / "head",
            *vault,
        )
    )
    assert "it may sign" in restored.out + restored.err
    done(run("fsck", tmp_path / "again"))
    with serving(tmp_path / "again") as served:
        until(lambda: ask(served.url, "GET", "/v1/keys")[0] == 200)
        assert json.loads(ask(served.url, "GET", "/v1/keys")[1]) == keys
        done(run("checkpoint", "--log", served.url, "--policy", tmp_path / "new"))
        require_plain(run("checkpoint", "--log", served.url, "--policy", tmp_path / "old"), 1)
        assert served.stop() == 0


def _policy_of(path: Path, vkeys: Sequence[str]) -> Path:
    path.write_text("".join(f"log {vkey}\n" for vkey in vkeys) + "quorum none\n")
    parse_policy(path.read_bytes())
    return path
