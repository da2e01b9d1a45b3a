"""A witness's directory: made whole or not at all, and opened only if all of it belongs together."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from translog.core.keys import KeyType, SKey
from translog.errors import CorruptionError, RefusedError, SettingsError, StorageError
from translog.log.keyfiles import write_skey
from translog.witness.opening import KEY_FILES, STATE_FILE, create_witness, open_witness
from translog.witness.service import Witness
from translog.witness.settings import read_witness_settings
from translog.witness.store import WitnessStore
from witness.made_log import WITNESS_NAME, MadeLog, Time, require_cosigned


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create_witness(tmp_path / "witness", name=WITNESS_NAME, random_bytes=os.urandom)
    return tmp_path / "witness"


def opened(directory: Path, **options: object) -> Witness:
    return open_witness(directory, now_ms=Time(), **options)  # type: ignore[arg-type]


def refuses(directory: Path, code: str) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        opened(directory)
    assert raised.value.code == code
    return raised.value


def test_a_new_witness_has_keys_a_state_and_settings_and_cosigns(directory: Path, log: MadeLog) -> None:
    assert sorted(str(path.relative_to(directory)) for path in directory.rglob("*")) == [
        "keys",
        "keys/witness-ed25519.skey",
        "keys/witness-mldsa44.skey",
        "state.sqlite",
        "witness.toml",
    ]
    assert (directory / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (directory / "keys").iterdir()} == {0o600}
    witness = opened(directory)
    assert [vkey.type for vkey in witness.vkeys] == list(KEY_FILES)
    assert {vkey.name for vkey in witness.vkeys} == {witness.name} == {WITNESS_NAME}
    witness.add_log(log.known)
    require_cosigned(log.note(3), witness.add_checkpoint(log.request(0, 3)), vkeys=witness.vkeys)
    witness.store.close()
    again = opened(directory)
    assert again.vkeys == witness.vkeys
    require_cosigned(log.note(5), again.add_checkpoint(log.request(3, 5)), vkeys=witness.vkeys)
    again.store.close()


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "\u00e9" * 128, "\ud800", "none"])
def test_a_name_that_no_key_can_have_makes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError):
        create_witness(tmp_path / "witness", name=name, random_bytes=os.urandom)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["witness.example", 'w"\\\u007f\u00e9\u2028', "x" * 255])
def test_any_other_name_is_written_into_the_settings(tmp_path: Path, name: str) -> None:
    if "\u2028" in name:
        name = name.replace("\u2028", "")
    create_witness(tmp_path / "witness", name=name, random_bytes=os.urandom)
    assert read_witness_settings(tmp_path / "witness").name == name
    witness = opened(tmp_path / "witness")
    assert witness.name == name
    witness.store.close()


def test_a_witness_is_made_once(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError):
        create_witness(directory, name=WITNESS_NAME, random_bytes=os.urandom)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("fails_at", range(1, 4))
def test_what_fails_half_way_leaves_nothing(tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0

    def failing(make: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps == fails_at:
                raise OSError(28, "No space left on device")
            return make(*args, **options)

        return step

    monkeypatch.setattr("translog.witness.opening.write_skey", failing(write_skey))
    monkeypatch.setattr(WitnessStore, "create", failing(WitnessStore.create))
    with pytest.raises(StorageError):
        create_witness(tmp_path / "witness", name=WITNESS_NAME, random_bytes=os.urandom)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_keys_without_their_state_sign_nothing(directory: Path, how: str) -> None:
    if how == "deleted":
        (directory / STATE_FILE).unlink()
    else:
        (directory / STATE_FILE).write_bytes(b"")
    error = refuses(directory, "witness-state-lost")
    assert "create a new one" in error.hint
    refuses(directory, "witness-state-lost")


def test_the_state_of_another_witness_is_refused(directory: Path, tmp_path: Path) -> None:
    """Also one of the same name: it knows nothing of what these keys signed."""
    for number, name in enumerate((WITNESS_NAME, "witness.example/other")):
        create_witness(tmp_path / str(number), name=name, random_bytes=os.urandom)
        (tmp_path / str(number) / STATE_FILE).replace(directory / STATE_FILE)
        refuses(directory, "witness-other-state")


def test_settings_of_another_name_are_refused(directory: Path) -> None:
    (directory / "witness.toml").write_text('name = "witness.example/other"\n')
    refuses(directory, "witness-other-state")


def test_keys_that_are_not_as_they_should_be_are_refused(directory: Path) -> None:
    mldsa, ed25519 = (directory / "keys" / name for name in KEY_FILES.values())
    ed25519.chmod(0o640)
    refuses(directory, "key-mode")
    ed25519.chmod(0o600)
    kept = mldsa.read_bytes()
    mldsa.write_bytes(ed25519.read_bytes())
    refuses(directory, "bad-key")
    mldsa.write_bytes(b"nonsense")
    refuses(directory, "bad-key")
    mldsa.unlink()
    refuses(directory, "no-keys")
    write_skey(mldsa, SKey(name=WITNESS_NAME, type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(32)))
    refuses(directory, "witness-other-state")
    mldsa.write_bytes(kept)
    opened(directory).store.close()


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("nonsense", "not TOML"),
        ("unknown = 1", "unknown"),
        ("sign_with = []", "sign_with"),
        ('[[logs]]\nvkeys = ["nonsense"]', "logs"),
        ("[[logs]]\nvkeys = []", "logs"),
        ('[[logs]]\nvkeys = ["VKEY"]\nqueries_per_day = -1', "queries_per_day"),
        ('[[logs]]\nvkeys = ["VKEY", "OTHER"]', "several names"),
        ('[server]\nlisten = "x"\n[others]\nx = 1', "others"),
    ],
)
def test_settings_that_are_wrong_are_named(directory: Path, log: MadeLog, toml: str, says: str) -> None:
    other = MadeLog("log.example/other").vkeys[0]
    text = toml.replace("VKEY", str(log.vkeys[0])).replace("OTHER", str(other))
    (directory / "witness.toml").write_text(text)
    assert says in refuses(directory, "bad-settings").detail
    (directory / "witness.toml").unlink()
    refuses(directory, "no-settings")


def test_logs_of_the_settings_are_known_and_stay_so(directory: Path, log: MadeLog) -> None:
    other = MadeLog("go.sum database tree", key_name="sum.example")
    (directory / "witness.toml").write_text(
        f"""queries_per_day = 500
        [[logs]]
        vkeys = ["{log.vkeys[0]}", "{log.vkeys[1]}"]
        contact = "me"
        [[logs]]
        origin = "go.sum database tree"
        vkeys = ["{other.vkeys[0]}"]
        queries_per_day = 7
        poll_url = "https://sum.example"
        [server]
        listen = "of no concern"
        """
    )
    witness = opened(directory)
    known = witness.logs()
    assert [(log.origin, log.queries_per_day, log.contact, log.poll_url, log.source) for log in known] == [
        ("go.sum database tree", 7, "", "https://sum.example", "settings"),
        ("log.example/made", 500, "me", "", "settings"),
    ]
    assert [log.vkeys for log in known] == [other.vkeys[:1], log.vkeys]
    witness.store.close()
    (directory / "witness.toml").write_text("")
    witness = opened(directory)
    assert witness.logs() == known
    witness.store.close()


def test_a_log_of_the_settings_that_is_our_own_is_refused_and_the_state_is_closed(directory: Path, log: MadeLog) -> None:
    (directory / "witness.toml").write_text(f'[[logs]]\nvkeys = ["{log.vkeys[0]}"]\n')
    with pytest.raises(RefusedError):
        opened(directory, excluded={log.origin})
    with pytest.raises(RefusedError):
        opened(directory, excluded_keys={log.vkeys[0].public_key})
    opened(directory).store.close()
    assert not list(directory.glob("state.sqlite-*"))


def test_lists_are_read_at_the_start_and_again_and_only_add(directory: Path, log: MadeLog) -> None:
    other = MadeLog("log.example/other")
    (directory / "witness.toml").write_text('log_lists = ["list", "/nowhere"]\nqueries_per_day = 9\n')
    witness = opened(directory)
    assert witness.logs() == []
    (directory / "list").write_text(f"logs/v0\nvkey {log.vkeys[0]}\nqpd 5\nvkey of no kind we know\n")
    assert witness.reload_lists() == 1
    assert witness.reload_lists() == 0
    assert [(known.origin, known.queries_per_day, known.source) for known in witness.logs()] == [(log.origin, 5, "list")]
    (directory / "list").write_text(
        f"logs/v0\nvkey {log.vkeys[1]}\nvkey {other.vkeys[0]}\nvkey {MadeLog(WITNESS_NAME).vkeys[0]}\nvkey {log.vkeys[1]}\n"
    )
    assert witness.reload_lists() == 1
    assert [known.vkeys for known in witness.logs()] == [log.vkeys[:1], other.vkeys[:1]]
    assert [known.queries_per_day for known in witness.logs()] == [5, 9]
    for broken in (b"", b"\xff", b"logs/v9\n", b"logs/v0\norigin x\n"):
        (directory / "list").write_bytes(broken)
        assert witness.reload_lists() == 0
    assert len(witness.logs()) == 2
    witness.store.close()
    assert len(opened(directory).logs()) == 2


def test_a_list_of_nonsense_fills_no_log_and_a_path_that_is_none_stops_nothing(directory: Path, log: MadeLog) -> None:
    (directory / "witness.toml").write_text('log_lists = ["a\\u0000b", "list"]\n')
    (directory / "list").write_text("logs/v0\n" + "vkey x\n" * 1_000 + f"vkey {log.vkeys[0]}\n")
    with capture_logs() as said:
        witness = opened(directory)
    assert [known.origin for known in witness.logs()] == [log.origin]
    assert len(said) < 30
    assert [line["count"] for line in said if line["event"] == "more logs of a list are left out"] == [980]
    witness.store.close()


def test_a_list_that_is_too_large_as_a_whole_adds_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [MadeLog(f"log.example/{number}", types=(KeyType.ED25519,)) for number in range(4)]
    (directory / "witness.toml").write_text('log_lists = ["list"]\n')
    (directory / "list").write_text("logs/v0\n" + "".join(f"vkey {log.vkeys[0]}\n" for log in logs))
    monkeypatch.setattr("translog.witness.store.LOGS_MAX", 3)
    witness = opened(directory)
    assert witness.logs() == []
    witness.store.close()


def test_a_damaged_state_is_no_lost_one(directory: Path) -> None:
    path = directory / STATE_FILE
    data = bytearray(path.read_bytes())
    data[100:4096] = b"\xff" * 3996
    path.write_bytes(data)
    with pytest.raises(CorruptionError):
        opened(directory)
