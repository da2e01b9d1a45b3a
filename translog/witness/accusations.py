"""Accusations: what a witness keeps when a log contradicts what it showed before, so that others can look at it.

    DIR/accusations/<origin hash, 16 digits>-<hash of the newer text, 16 digits>.json
    {"translog":"accusation/1","origin":…,"problem":…,"cosigned":…,"shown":…,"proof":[…]}

Rules: both notes are kept whole, as text, with the log's signatures; a file is written once, durably; the number of files per
log is bounded, since a log that shows two trees may show a thousand.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import structlog

from translog.core.note import parse_note
from translog.core.wire import encode_base64
from translog.storage.files import make_directory, write_file
from translog.witness.protocol import origin_hash

ACCUSATIONS_MAX = 16
"""Of one log; the first ones are the ones to look at."""
_TOLD_MAX = 256

_logger = structlog.get_logger()


class Accusations:
    """The folder of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told: set[str] = set()
        """What could not be kept and is in the log lines, whole."""

    def keep(self, *, origin: str, problem: str, cosigned: bytes, shown: bytes, proof: Sequence[bytes] = ()) -> None:
        """Says and keeps what a log did. Both notes are signed by it. Never fails: what cannot be written is logged."""
        _logger.critical("a log contradicts what it showed before", origin=origin, problem=problem)
        log_name = origin_hash(origin)[:16]
        text_hash = sha256(parse_note(shown).text.encode()).hexdigest()
        path = self._directory / f"{log_name}-{text_hash[:16]}.json"
        document = {
            "translog": "accusation/1",
            "origin": origin,
            "problem": problem,
            "cosigned": cosigned.decode(),
            "shown": shown.decode(),
            "proof": [encode_base64(value) for value in proof],
        }
        try:
            make_directory(self._directory)
            if not path.exists() and len(list(self._directory.glob(f"{log_name}-*.json"))) < ACCUSATIONS_MAX:
                write_file(path, json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
        except OSError as error:
            whole: Mapping[str, object] = {}  # once: whoever has the two notes can send them all day
            if path.name not in self._told and len(self._told) < _TOLD_MAX:
                self._told.add(path.name)
                whole = document
            _logger.error("an accusation could not be kept", path=str(path), reason=error.strerror, **whole)
