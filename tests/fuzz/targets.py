"""Every parser of the core, with good values to start from.

A target takes bytes, parses them and returns what the result formats back to; parsers of text get bytes that are no UTF-8 as
lone surrogates, as they would come from a path or an argument.
"""

from collections.abc import Callable
from typing import NamedTuple

from translog.core.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey, format_skey, parse_skey, parse_vkey
from translog.core.note import format_note, format_signature, parse_note, parse_signature, sign_note
from translog.core.policy import format_policy, parse_policy
from translog.core.proof import Receipt, format_receipt, parse_receipt
from translog.core.tile import decode_bundle, encode_bundle, format_tile_path, parse_tile_path
from translog.core.wire import decode_base64, decode_text, encode_base64, parse_decimal
from translog.errors import MalformedError, TranslogError
from translog.witness.loglist import parse_log_list, require_log
from translog.witness.protocol import (
    format_add_checkpoint,
    format_cosignatures,
    format_size,
    parse_add_checkpoint,
    parse_cosignatures,
    parse_size,
)


class Parser(NamedTuple):
    """`run` returns the bytes that its result formats back to. `refuses` is all that hostile bytes may make it raise."""

    run: Callable[[bytes], bytes]
    seeds: tuple[bytes, ...]
    refuses: tuple[type[TranslogError], ...] = (MalformedError,)


def _of_text(run: Callable[[str], str]) -> Callable[[bytes], bytes]:
    return lambda data: run(data.decode(errors="surrogateescape")).encode(errors="surrogateescape")


def _note(data: bytes) -> bytes:
    note = parse_note(data)
    return format_note(note.text, note.signatures)


def _checkpoint(data: bytes) -> bytes:
    return format_checkpoint(parse_checkpoint(decode_text(data, what="the text"))).encode()


def _policy(data: bytes) -> bytes:
    """Policies have comments and free spacing and so no one form; what is defined must hang together."""
    policy = parse_policy(data)
    names = {*policy.witnesses, *policy.groups}
    assert policy.quorum in names | {"none"}
    for group in policy.groups.values():
        assert 1 <= group.threshold <= len(group.members) == len(set(group.members) & names)
    assert parse_policy(format_policy(policy).encode("utf-8", "surrogateescape")) == policy
    return data


def _log_list(data: bytes) -> bytes:
    """Lists have comments and lines for others, and so no one form; what is read, listed again, is read as the same."""
    logs = parse_log_list(data)
    assert len({log.origin for log in logs}) == len(logs)
    for log in logs:
        require_log(log)
    again = "".join(
        f"vkey {log.vkeys[0]}\norigin {log.origin}\nqpd {log.queries_per_day}\ncontact {log.contact}\n" for log in logs
    )
    assert parse_log_list(f"logs/v0\n{again}".encode()) == logs
    skipped: list[MalformedError] = []
    assert parse_log_list(data, skip=skipped.append) == logs
    assert skipped == []
    return data


def _log(key_type: KeyType) -> SKey:
    return SKey(name="example.com/log", type=key_type, seed=bytes(range(32)))


_LOG = _log(KeyType.ED25519)
_WITNESS = SKey(name="w", type=KeyType.COSIGNATURE_ED25519, seed=bytes(32))
_KEYS = (_LOG, _WITNESS, _log(KeyType.COSIGNATURE_MLDSA44))
_TEXT = format_checkpoint(Checkpoint(origin="example.com/log", size=5, root=bytes(range(32))))
_NOTE = sign_note(_TEXT, [KeySigner(_LOG), KeySigner(_WITNESS)], time_s=1)

PARSERS = {
    "parse_note": Parser(_note, (_NOTE, b"a\n\n" + _NOTE, sign_note("\n\n", [KeySigner(_LOG)], time_s=1))),
    "parse_signature": Parser(
        _of_text(lambda text: format_signature(parse_signature(text)).removesuffix("\n")),
        (_NOTE.splitlines()[-1], _NOTE.splitlines()[-2], "\u2014 n AAAAAAA=".encode()),
    ),
    "parse_vkey": Parser(_of_text(lambda text: str(parse_vkey(text))), tuple(str(key.vkey).encode() for key in _KEYS)),
    "parse_skey": Parser(
        _of_text(lambda text: format_skey(parse_skey(text))), tuple(format_skey(key).encode() for key in _KEYS)
    ),
    "parse_checkpoint": Parser(_checkpoint, (_TEXT.encode(), _TEXT.encode() + b"extension\n")),
    "parse_policy": Parser(
        _policy,
        (
            b"quorum none",
            f"# c\nlog {_LOG.vkey} https://log.example/\nwitness w {_WITNESS.vkey}\ngroup g 1 w\nquorum g\n".encode(),
        ),
    ),
    "parse_receipt": Parser(
        lambda data: format_receipt(parse_receipt(data)),
        (
            format_receipt(Receipt(index=0, proof=(), checkpoint=_NOTE)),
            format_receipt(Receipt(index=2, proof=(bytes(32), bytes(range(32))), checkpoint=_NOTE, extra=b"extra")),
        ),
    ),
    "parse_tile_path": Parser(
        _of_text(lambda text: format_tile_path(parse_tile_path(text))),
        (b"tile/0/x001/x234/067.p/8", b"tile/entries/000", b"tile/63/x001/000.p/255"),
    ),
    "decode_bundle": Parser(
        lambda data: encode_bundle(decode_bundle(data)), (encode_bundle([b"", b"one", bytes(300)]), encode_bundle([b"a"] * 256))
    ),
    "parse_add_checkpoint": Parser(
        lambda data: format_add_checkpoint(parse_add_checkpoint(data)),
        (
            b"old 0\n\n" + _NOTE,
            f"old 3\n{encode_base64(bytes(32))}\n{encode_base64(bytes(range(32)))}\n\n".encode() + _NOTE,
        ),
    ),
    "parse_cosignatures": Parser(
        lambda data: format_cosignatures(parse_cosignatures(data)),
        (_NOTE.splitlines(keepends=True)[-1], b"".join(_NOTE.splitlines(keepends=True)[-2:])),
    ),
    "parse_size": Parser(lambda data: format_size(parse_size(data)), (b"0\n", b"12\n", b"9223372036854775807\n")),
    "parse_log_list": Parser(
        _log_list,
        (
            f"# c\nlogs/v0\nvkey {_LOG.vkey}\nqpd 86400\ncontact me (at) example.org\n".encode(),
            f"logs/v0\n\nvkey {_KEYS[2].vkey}\norigin go.sum database tree\nfoo bar\nvkey {_LOG.vkey}\norigin none\n".encode(),
        ),
    ),
    "parse_decimal": Parser(_of_text(lambda text: str(parse_decimal(text))), (b"0", b"17", b"9223372036854775807")),
    "decode_base64": Parser(
        _of_text(lambda text: encode_base64(decode_base64(text))),
        (b"", b"YQ==", b"YWI=", b"+/+/", encode_base64(bytes(40)).encode()),
    ),
}
