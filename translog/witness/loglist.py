"""The logs a witness knows, and lists of them as the witness network publishes them.

    logs/v0
    vkey <vkey>                 begins a log
    origin <origin>             where it is not the key's name; `none` says that it is
    qpd <requests per day>
    contact <anything>

Rules: empty lines and lines that begin with `#` mean nothing; lines that begin with another word are for others; the first
log of an origin counts, since a list only adds. https://witness-network.org/log-list-format
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from translog.core.checkpoint import ORIGIN_BYTES_MAX
from translog.core.keys import KeyType, VKey, parse_vkey
from translog.core.wire import clip, decode_text, parse_decimal
from translog.errors import MalformedError

LIST_BYTES_MAX = 64 * 1024 * 1024
"""Largest list read; one of 100,000 logs with Ed25519 keys takes about 10 MB."""
LOGS_MAX = 100_000
"""Most logs of one witness: a gigabyte of state."""
KEYS_MAX = 8
"""Most keys of one log: two of each kind while they change, and some more."""
CONTACT_CHARS_MAX = 1_000
URL_CHARS_MAX = 2_000
QUERIES_PER_DAY = 172_800
"""Requests a day where nothing is said: two a second, for a log that publishes every second and asks again at times."""
QUERIES_PER_DAY_MAX = 1_000_000_000

_HEADER = "logs/v0"
_NO_ORIGIN = "none"
_WORDS = ("vkey", "origin", "qpd", "contact")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownLog:
    """A log whose checkpoints are cosigned. `source` says who made it known: "command", "settings" or "list"; `poll_url` is
    where to fetch its checkpoints, empty if it submits them itself."""

    origin: str
    vkeys: tuple[VKey, ...]
    queries_per_day: int = QUERIES_PER_DAY
    contact: str = ""
    source: str = "command"
    poll_url: str = ""


def require_log(log: KnownLog) -> None:
    """Raises MalformedError for what can be no log: an origin no checkpoint has, no keys or too many, keys of a kind that
    signs no checkpoints, a rate out of range."""
    try:
        size = len(log.origin.encode())
    except UnicodeEncodeError:
        raise MalformedError(f"not an origin: {clip(log.origin)} is not Unicode") from None
    if not 1 <= size <= ORIGIN_BYTES_MAX or any(char < " " for char in log.origin):
        raise MalformedError(f"not an origin: {clip(log.origin)}", hint=f"one line of 1 to {ORIGIN_BYTES_MAX} bytes")
    if not 1 <= len(log.vkeys) <= KEYS_MAX:
        raise MalformedError(f"the log {clip(log.origin)} has {len(log.vkeys)} keys, not 1 to {KEYS_MAX}")
    if any(vkey.type is KeyType.COSIGNATURE_ED25519 for vkey in log.vkeys):
        raise MalformedError(f"a key of the log {clip(log.origin)} is of type 0x04, which is for witnesses")
    if not 1 <= log.queries_per_day <= QUERIES_PER_DAY_MAX:
        raise MalformedError(f"{log.queries_per_day} requests a day: not 1 to {QUERIES_PER_DAY_MAX}")
    for what, value, most in (("contact", log.contact, CONTACT_CHARS_MAX), ("URL", log.poll_url, URL_CHARS_MAX)):
        if len(value) > most:
            raise MalformedError(f"the {what} of the log {clip(log.origin)} is longer than {most} characters")


def parse_log_list(
    data: bytes, *, queries_per_day: int = QUERIES_PER_DAY, skip: Callable[[MalformedError], None] | None = None
) -> list[KnownLog]:
    """The logs of a list, in its order, one per origin; `queries_per_day` is for logs without a `qpd` line.

    Raises MalformedError naming the line. With `skip`, a log with a line that cannot be read is told to it and left out: one
    key of an unknown type in a public list must not keep all new logs out. What is no list at all is raised in any case.
    """
    if len(data) > LIST_BYTES_MAX:
        raise MalformedError(f"a list of {len(data)} bytes: at most {LIST_BYTES_MAX} are read")
    found: dict[str, KnownLog] = {}
    for block in _read_blocks(_text_of(data)):
        try:
            log = _log_of(block, queries_per_day)
            if log.origin in found:
                raise MalformedError(f"log list line {block[0][0]}: the log {clip(log.origin)} is listed above")
        except MalformedError as error:
            if skip is None:
                raise
            skip(error)
            continue
        found[log.origin] = log
        if len(found) > LOGS_MAX:
            raise MalformedError(f"more than {LOGS_MAX} logs in one list")
    return list(found.values())


_Line = tuple[int, str, str]
"""Number, first word, the rest."""


def _text_of(data: bytes) -> str:
    text = decode_text(data.replace(b"\t", b" ").replace(b"\r\n", b"\n"), what="the log list")
    return text.removeprefix("\ufeff")


def _read_blocks(text: str) -> Iterator[list[_Line]]:
    """The lines of each log that are for us; the first of them is its vkey. One log at a time, and no more of it than shows
    that it cannot be read: what a list from elsewhere takes must not depend on what is in it."""
    block: list[_Line] = []
    header = False
    for number, raw in enumerate(_lines(text), start=1):
        line = raw.strip(" ")
        if not line or line.startswith("#"):
            continue
        if not header:
            if line != _HEADER:
                raise MalformedError(f"log list line {number}: expected {_HEADER}, not {clip(line)}")
            header = True
            continue
        word, _, rest = line.partition(" ")
        if word == "vkey":
            if block:
                yield block
            block = []
        elif not block:
            raise MalformedError(f"log list line {number}: expected vkey, not {clip(line)}")
        if word in _WORDS and len(block) <= len(_WORDS):  # one more than there are words: one of them is there twice
            block.append((number, word, rest.strip(" ")))
    if not header:
        raise MalformedError(f"not a log list: there is no line {_HEADER}")
    if block:
        yield block


def _lines(text: str) -> Iterator[str]:
    """`text.split("\\n")`, one by one: a list of short lines takes twenty times its text."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _log_of(block: list[_Line], queries_per_day: int) -> KnownLog:
    said: dict[str, str] = {}
    number = block[0][0]
    try:
        for line_number, word, rest in block:
            if word in said:
                number = line_number
                raise MalformedError(f"a second {word} line")
            said[word] = rest
        vkey = parse_vkey(said["vkey"])
        origin = said.get("origin", _NO_ORIGIN)
        log = KnownLog(
            origin=vkey.name if origin == _NO_ORIGIN else origin,
            vkeys=(vkey,),
            queries_per_day=parse_decimal(said["qpd"]) if "qpd" in said else queries_per_day,
            contact=said.get("contact", "")[:CONTACT_CHARS_MAX],
            source="list",
        )
        require_log(log)
    except MalformedError as error:
        raise MalformedError(f"log list line {number}: {error.detail}", hint=error.hint) from None
    return log
