"""A witness's directory: made once, whole or not at all, and opened.

    DIR/witness.toml                      settings
    DIR/keys/witness-mldsa44.skey         private keys, mode 0600; also witness-ed25519.skey
    DIR/state.sqlite                      what it cosigned; never to be replaced by an older copy
    DIR/accusations/                      what logs did wrong

Rules: keys without their state sign nothing; a state belongs to the keys it was made with.
"""

from collections.abc import Callable, Collection, Container
from pathlib import Path

from translog.core.checkpoint import ORIGIN_BYTES_MAX
from translog.core.cosignature import KeySigner
from translog.core.keys import SEED_BYTES, KeyType, SKey
from translog.core.note import is_key_name
from translog.core.policy import NO_QUORUM
from translog.core.wire import clip
from translog.errors import MalformedError, SettingsError
from translog.log.directory import new_directory
from translog.log.keyfiles import read_skey, write_skey
from translog.witness.accusations import Accusations
from translog.witness.service import Witness
from translog.witness.settings import (
    FILE_NAME,
    WitnessSettings,
    cosignature_type,
    read_witness_settings,
    write_witness_settings,
)
from translog.witness.store import WitnessStore

KEY_FILES = {
    KeyType.COSIGNATURE_MLDSA44: "witness-mldsa44.skey",
    KeyType.COSIGNATURE_ED25519: "witness-ed25519.skey",
}
STATE_FILE = "state.sqlite"
ACCUSATIONS = "accusations"


def create_witness(directory: Path, *, name: str, random_bytes: Callable[[int], bytes]) -> None:
    """Makes a witness in a new directory, durable when it returns. Raises SettingsError for a name that no key can have, or
    if there is something in the directory; StorageError."""
    if not is_key_name(name) or name == NO_QUORUM or len(name.encode()) > ORIGIN_BYTES_MAX:
        raise SettingsError(
            f"not a witness's name: {clip(name)}",
            hint=f"1 to {ORIGIN_BYTES_MAX} bytes without spaces and +, best a URL without its scheme, as witness.example.org",
            code="bad-name",
        )
    skeys = [SKey(name=name, type=key_type, seed=random_bytes(SEED_BYTES)) for key_type in KEY_FILES]
    try:
        with new_directory(directory, last=FILE_NAME) as building:
            (building / "keys").mkdir(mode=0o700)
            for skey in skeys:
                write_skey(building / "keys" / KEY_FILES[skey.type], skey)
            WitnessStore.create(building / STATE_FILE, name=name, vkeys=[skey.vkey for skey in skeys]).close()
            write_witness_settings(building, name=name)
    except SettingsError as error:
        raise SettingsError(error.detail, hint="a witness is created once, in a new directory", code=error.code) from None


def open_witness(
    directory: Path,
    *,
    now_ms: Callable[[], int],
    settings: WitnessSettings | None = None,
    excluded: Container[str] = (),
    excluded_keys: Collection[bytes] = (),
) -> Witness:
    """The witness in `directory`, with the logs of its settings (by default those in DIR/witness.toml) and lists added.

    Raises SettingsError: code `witness-state-lost` for keys without a state, `witness-other-state` for the state of others,
    `no-keys` and others for keys; RefusedError for a log in the settings that must not be witnessed; CorruptionError,
    StorageError.
    """
    settings = settings or read_witness_settings(directory)
    skeys = _read_keys(directory / "keys", settings)
    store = WitnessStore.open(directory / STATE_FILE)
    try:
        if settings.name not in ("", store.name):
            raise SettingsError(
                f"{directory / FILE_NAME} names the witness {settings.name!r}, its state {store.name!r}",
                hint="a name is for life: put the old one back, or create a new witness",
                code="witness-other-state",
            )
        witness = Witness(
            store=store,
            signers=[KeySigner(skey) for skey in skeys],
            now_ms=now_ms,
            excluded=excluded,
            excluded_keys=excluded_keys,
            log_lists=[directory / path for path in settings.log_lists],
            queries_per_day=settings.queries_per_day,
            peer_failures_per_day=settings.peer_failures_per_day,
            accusations=Accusations(directory / ACCUSATIONS),
        )
        for log in settings.logs:
            try:
                witness.add_log(log.known(queries_per_day=settings.queries_per_day))
            except MalformedError as error:
                raise SettingsError(f"{directory / FILE_NAME}: logs: {error}", code="bad-settings") from None
        witness.reload_lists()
    except BaseException:
        store.close()
        raise
    return witness


def _read_keys(directory: Path, settings: WitnessSettings) -> list[SKey]:
    skeys = []
    for key in settings.sign_with:
        path = directory / KEY_FILES[cosignature_type(key)]
        if not path.exists():
            raise SettingsError(
                f"{path.name} is missing in {directory}",
                hint="bring it back from its backup; or, to sign without it from now on, take it out of sign_with",
                code="no-keys",
            )
        skey = read_skey(path)
        if skey.type is not cosignature_type(key):
            raise SettingsError(f"{path} holds a key of another type than its name says", code="bad-key")
        skeys.append(skey)
    return skeys
