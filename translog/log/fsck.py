"""Checks a whole log from its entries alone: every tile, every kept checkpoint, every tree head stated elsewhere.

Rules: nothing of the code that writes a tree is used here, only hashing and formats; the check always ends, and one damaged
thing hides no other. Where the entries and the tile of a bundle disagree, judge.py finds out which is right. What is named is
a resource and what is wrong with it. The work is spread over processes by spans of bundles; only hashes come back.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice

from translog.core.checkpoint import parse_checkpoint
from translog.core.note import parse_note
from translog.core.policy import Policy
from translog.core.tile import TILE_WIDTH, Bundle, Tile, format_tile_path
from translog.core.wire import HASH_BYTES
from translog.errors import MalformedError, TranslogError
from translog.log.eventcheck import EventCheck
from translog.log.eventspan import EventTask
from translog.log.judge import Verdict, compare, judge
from translog.log.payloads import FindKey
from translog.log.recompute import Pyramid, Span, Suspect
from translog.log.workers import OpenKeys, Workers
from translog.storage.source import Contents, Damage, DerivedSource, EventSource, TreeSource
from translog.storage.store import Profile, StoredCheckpoint

_SPAN_BUNDLES = 64
"""16,384 entries: enough to be worth a message between processes, few enough for two cores to end together."""
_GIVE_UP_SPANS = 8
"""A log that has nothing to read in this many spans running, and in more than could be read before, is not read to its stated
end, which may be 2^63 entries away."""
_NOTES_AT_ONCE = 256
_CHECKPOINTS_MAX = 4_000_000
"""One a minute for seven years; about 1 GB of what they state."""
_DAMAGES_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Somebody's word that the first `size` entries have this root."""

    resource: str
    size: int
    root: bytes
    origin: str = ""
    """Of which log; empty where that is not said."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found. `good` and `bad` count resources by kind, `excepted` payloads that are neither, by why; `damages` names
    the bad ones, the first 10,000 of them."""

    origin: str = ""
    size: int = 0
    root: bytes | None = None
    entry_bytes: int = 0
    good: dict[str, int] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)
    excepted: dict[str, int] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing bad was found."""
        return not any(self.bad.values())

    def found(self, kind: str, damage: Damage, *, count: int = 1) -> None:
        """Records `count` bad resources of a kind."""
        self.bad[kind] = self.bad.get(kind, 0) + count
        if len(self.damages) < _DAMAGES_MAX:
            self.damages.append(damage)

    def passed(self, kind: str, count: int = 1) -> None:
        """Records good ones."""
        self.good[kind] = self.good.get(kind, 0) + count


class Checker:
    """One check of one source. `open_source` is called once in every process, so it must be picklable."""

    def __init__(
        self,
        open_source: Callable[[], TreeSource],
        *,
        policy: Policy | None,
        claims: Sequence[Claim] = (),
        damages: Sequence[Damage] = (),
        processes: int,
        progress: Callable[[int, int], None],
        open_keys: Callable[[str], FindKey] | None = None,
    ) -> None:
        """`claims` and `damages` are what the caller knows beside the source; `progress` is told entries done and of how
        many. `open_keys` opens the vault of the events log with that origin, once in every process, so it must be
        picklable; without it no payload is opened."""
        self._open_source = open_source
        self._policy = policy
        self._claims = list(claims)
        self._known = damages
        self._processes = processes
        self._progress = progress
        self._open_keys = open_keys
        self._report = Report()

    def run(self) -> Report:
        """Reads everything. Raises TranslogError only if there is nothing to check or the source is gone."""
        report = self._report
        for damage in self._known:
            report.found("files", damage)
        source = self._open_source()
        try:
            self._check(source)
        finally:
            source.close()
        return report

    def _check(self, source: TreeSource) -> None:
        report = self._report
        contents = source.contents()
        for damage in contents.damages:
            report.found("keys", damage)
        expected = max((tree.size for tree in (contents.state, contents.latest) if tree is not None), default=0)
        parallel = self._processes if expected > _SPAN_BUNDLES * TILE_WIDTH else 1
        with Workers(self._open_source, source, parallel, open_keys=self._usable_keys(source, contents)) as workers:
            claims = self._stated(workers, source, contents)
            report.size = size = _size(contents, claims)
            self._remark_on_uncovered(claims)
            task = self._event_task(source, contents)
            events = None if task is None else EventCheck(report, by_bundle=source.resource_of_entries == "bundle")
            end, bad_entries = self._read_through(workers, source, _spans(size, claims), claims, task, events)
        if events is not None and task is not None:
            time_ms = 0 if contents.state is None else contents.state.received_at_ms
            events.finish(source, bad_entries, derived=task.derived and end == size, size=size, time_ms=time_ms)
        for damage in source.strays(size=size):
            report.found("strays", damage)

    # --- what is stated about the tree ----------------------------------------------------------------------------------

    def _checkpoints(self, source: TreeSource, contents: Contents) -> Iterator[StoredCheckpoint]:
        """The kept ones and the latest, each once."""
        last: StoredCheckpoint | None = None
        for count, kept in enumerate(source.checkpoints()):
            if count == _CHECKPOINTS_MAX:
                problem = f"are more than {_CHECKPOINTS_MAX}; those from size {last.size if last else 0} on were not checked"
                self._report.found("checkpoints", Damage(resource="kept checkpoints", problem=problem))
                break
            if isinstance(kept, Damage):
                self._report.found("checkpoints", kept)
            else:
                last = kept
                yield kept
        if contents.latest is not None and contents.latest != last:
            yield contents.latest

    def _stated(self, workers: Workers, source: TreeSource, contents: Contents) -> list[Claim]:
        """The tree heads to be checked, the checkpoints' first. Their signatures are checked in passing, group by group: the
        notes of years are not held in memory."""
        claims: list[Claim] = []
        origin = contents.meta.origin if contents.meta is not None else None
        waiting: deque[list[int]] = deque()

        def groups() -> Iterator[list[StoredCheckpoint]]:
            nonlocal origin
            rest = self._checkpoints(source, contents)
            while group := list(islice(rest, _NOTES_AT_ONCE)):
                for checkpoint in group:
                    origin = self._claim(checkpoint, origin, claims)
                waiting.append([checkpoint.size for checkpoint in group])
                yield group

        if self._policy is None:
            self._report.remarks.append("who signed the checkpoints was not checked, for want of a policy or keys")
            for _ in groups():
                pass
        else:
            for problems in workers.check_notes(self._policy, groups()):
                for size, problem in zip(waiting.popleft(), problems, strict=True):
                    if problem:
                        self._report.found("signatures", Damage(resource=_checkpoint_name(size), problem=problem))
                    else:
                        self._report.passed("signatures")
        self._report.origin = origin or ""
        if contents.state is not None:
            claims.append(Claim(resource="the tree state", size=contents.state.size, root=contents.state.root))
        return claims + self._claims

    def _claim(self, checkpoint: StoredCheckpoint, origin: str | None, claims: list[Claim]) -> str | None:
        """Adds what a checkpoint states. Returns the log's origin, as far as that is known."""
        resource = _checkpoint_name(checkpoint.size)
        try:
            parsed = parse_checkpoint(parse_note(checkpoint.note).text)
        except MalformedError as error:
            self._report.found("checkpoints", Damage(resource=resource, problem=error.detail))
            return origin
        origin = parsed.origin if origin is None else origin
        if parsed.size != checkpoint.size or parsed.origin != origin:
            problem = f"is stored in the wrong place: it is of size {parsed.size} of {parsed.origin!r}"
            self._report.found("checkpoints", Damage(resource=resource, problem=problem))
        else:
            claims.append(Claim(resource=resource, size=parsed.size, root=parsed.root))
        return origin

    def _remark_on_uncovered(self, claims: Sequence[Claim]) -> None:
        """Entries behind the last checkpoint are vouched for by nobody's signature."""
        covered = max((claim.size for claim in claims if claim.resource.startswith("checkpoint")), default=0)
        if covered < self._report.size:
            which = f"entries {covered} to {self._report.size - 1}"
            self._report.remarks.append(f"{which} are covered by no checkpoint: nobody has signed for them")
        heads = [claim.size for claim in claims if claim.resource.startswith("DIR/head")]
        if heads and max(heads) < covered:
            self._report.remarks.append(
                f"DIR/head knows of {max(heads)} entries only, and a checkpoint of size {covered} was published: it is older, "
                "and the log would serve and not sign"
            )

    def _usable_keys(self, source: TreeSource, contents: Contents) -> OpenKeys | None:
        """How to open the vault of an events log. One that does not open is named once, and then no payload is opened."""
        if self._open_keys is None or not isinstance(source, EventSource) or source.payloads_end() is None:
            return None
        open_keys = partial(self._open_keys, _origin(contents))
        try:
            open_keys()
        except TranslogError as error:
            self._report.found("data keys", Damage(resource="the key store", problem=error.detail))
            return None
        return open_keys

    def _event_task(self, source: TreeSource, contents: Contents) -> EventTask | None:
        """What to check of the events; None where the log is not one of events, as far as that is known."""
        size = self._report.size
        end = source.payloads_end() if isinstance(source, EventSource) else None
        if end is None and (contents.meta is None or contents.meta.profile is not Profile.EVENTS):
            return None
        end = min(end or 0, size)
        if isinstance(source, EventSource) and end < size:
            which = f"entries {end} to {size - 1}" if size - end > 1 else f"entry {end}"
            self._report.remarks.append(f"the payloads of {which} are not here: they were copied from a log over HTTP")
        derived = isinstance(source, DerivedSource)
        return EventTask(origin=self._report.origin, payloads_end=end, derived=derived)

    # --- the tree -------------------------------------------------------------------------------------------------------

    def _read_through(
        self,
        workers: Workers,
        source: TreeSource,
        spans: Iterator[Span],
        claims: Sequence[Claim],
        task: EventTask | None,
        events: EventCheck | None,
    ) -> tuple[int, set[int]]:
        """Up to where the log was read, and which entries of it are bad."""
        size = self._report.size
        roots: list[bytes | None] = []
        folds: dict[int, bytes] = {}
        suspects: list[Suspect] = []
        read = unread = 0
        for result, found in workers.check_spans(spans, task):
            if events is not None and found is not None:
                events.take(found)
            roots += result.roots
            folds |= result.folds
            suspects += result.suspects
            self._report.entry_bytes += result.entry_bytes
            self._progress(min(result.span.end * TILE_WIDTH, size), size)
            read += result.readable
            unread = 0 if result.readable else unread + 1
            begin = result.span.end * TILE_WIDTH
            if unread >= max(_GIVE_UP_SPANS, read) and begin < size:
                problem = f"were not looked for: nothing could be read of the {unread * _SPAN_BUNDLES * TILE_WIDTH} before"
                damage = Damage(resource=f"entries {begin} to {size - 1}", problem=problem)
                self._report.found("entries", damage, count=size - begin)
                break
        above = _HashesAbove(source, size)
        verdicts = [compare(suspect, above.of(suspect.index)) for suspect in suspects]
        for verdict in verdicts:
            roots[verdict.suspect.index] = verdict.root
        tree = Pyramid(roots, size)
        judge(verdicts, tree, folds, [(claim.size, claim.root) for claim in claims])
        self._name_suspects(verdicts, by_bundle=source.resource_of_entries == "bundle")
        self._report.passed("entries", tree.end - sum(len(verdict.bad_entries) for verdict in verdicts))
        self._report.passed("tiles", len(roots) - sum(verdict.tile_is_bad for verdict in verdicts))
        if tree.end == size:
            self._check_upper_tiles(source, tree)
            self._report.root = tree.root(size, folds)
        self._check_claims(claims, tree, folds)
        return tree.end, {verdict.suspect.index * TILE_WIDTH + n for verdict in verdicts for n in verdict.bad_entries}

    def _name_suspects(self, verdicts: Sequence[Verdict], *, by_bundle: bool) -> None:
        for verdict in verdicts:
            suspect = verdict.suspect
            if suspect.entries_problem and not suspect.unreadable:
                bundle = format_tile_path(Bundle(index=suspect.index, width=suspect.width))
                self._report.found("strays", Damage(resource=bundle, problem=suspect.entries_problem))
            self._name_entries(verdict, by_bundle=by_bundle)
            if verdict.tile_is_bad:
                path = format_tile_path(Tile(level=0, index=suspect.index, width=suspect.width))
                self._report.found("tiles", Damage(resource=path, problem=suspect.tile_problem))

    def _name_entries(self, verdict: Verdict, *, by_bundle: bool) -> None:
        suspect = verdict.suspect
        base = suspect.index * TILE_WIDTH
        for first, last, problem in _runs([(position, verdict.entry_problem(position)) for position in verdict.bad_entries]):
            name = f"entry {base + first}" if first == last else f"entries {base + first} to {base + last}"
            if by_bundle:
                problem = f"{name}: {problem}"
                name = format_tile_path(Bundle(index=suspect.index, width=suspect.width))
            self._report.found("entries", Damage(resource=name, problem=problem), count=last - first + 1)

    def _check_upper_tiles(self, source: TreeSource, tree: Pyramid) -> None:
        tiles = list(_upper_tiles(self._report.size))
        for tile, data in zip(tiles, source.tiles(tiles), strict=True):
            path = format_tile_path(tile)
            expected = tree.tile(tile)
            if isinstance(data, Damage):
                self._report.found("tiles", data)
            elif len(data) != len(expected) * HASH_BYTES:
                problem = f"has {len(data)} bytes, not {len(expected) * HASH_BYTES}"
                self._report.found("tiles", Damage(resource=path, problem=problem))
            elif any(
                value is not None and data[n * HASH_BYTES : (n + 1) * HASH_BYTES] != value for n, value in enumerate(expected)
            ):
                self._report.found("tiles", Damage(resource=path, problem="does not match the tiles below it"))
            else:
                self._report.passed("tiles")

    def _check_claims(self, claims: Sequence[Claim], tree: Pyramid, folds: Mapping[int, bytes]) -> None:
        size, origin = self._report.size, self._report.origin
        for claim in claims:
            kind = "checkpoints" if claim.resource.startswith("checkpoint") else "tree heads"
            if claim.origin and origin and claim.origin != origin:
                problem = f"is of another log, {claim.origin!r}"
                self._report.found(kind, Damage(resource=claim.resource, problem=problem))
                continue
            if claim.size > size:
                problem = f"states {claim.size} entries, of which {size} are here"
                self._report.found(kind, Damage(resource=claim.resource, problem=problem))
                continue
            root = tree.root(claim.size, folds)
            if root is None:
                problem = "cannot be checked, since entries below it are lost"
                self._report.found(kind, Damage(resource=claim.resource, problem=problem))
            elif root != claim.root:
                problem = f"is not of this tree: the first {claim.size} entries have another root"
                self._report.found(kind, Damage(resource=claim.resource, problem=problem))
            else:
                self._report.passed(kind)


def _checkpoint_name(size: int) -> str:
    return f"checkpoint of size {size}"


def _origin(contents: Contents) -> str:
    """Whose log it says that it is; empty where it does not."""
    if contents.meta is not None:
        return contents.meta.origin
    try:
        return "" if contents.latest is None else parse_checkpoint(parse_note(contents.latest.note).text).origin
    except MalformedError:
        return ""


def _size(contents: Contents, claims: Sequence[Claim]) -> int:
    """The size to check: the committed one, or where that is lost the largest that anybody states."""
    if contents.state is not None:
        return contents.state.size
    return max((claim.size for claim in claims), default=0)


def _spans(size: int, claims: Sequence[Claim]) -> Iterator[Span]:
    stated = deque(sorted({claim.size for claim in claims if claim.size % TILE_WIDTH and claim.size <= size}))
    bundles = -(-size // TILE_WIDTH)
    for first in range(0, bundles, _SPAN_BUNDLES):
        end = min(first + _SPAN_BUNDLES, bundles)
        inside = []
        while stated and stated[0] < end * TILE_WIDTH:
            inside.append(stated.popleft())
        yield Span(first=first, end=end, size=size, stated=tuple(inside))


def _upper_tiles(size: int) -> Iterator[Tile]:
    level = 1
    while hashes := size >> (8 * level):
        for index in range(-(-hashes // TILE_WIDTH)):
            yield Tile(level=level, index=index, width=min(TILE_WIDTH, hashes - index * TILE_WIDTH))
        level += 1


def _runs(problems: Iterable[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """Ascending positions as first and last of each run without gaps that has one problem."""
    for _, group in groupby(enumerate(problems), key=lambda item: (item[1][0] - item[0], item[1][1])):
        run = [position for _, position in group]
        yield run[0][0], run[-1][0], run[0][1]


class _HashesAbove:
    """Level-1 tiles as stored, read when asked for."""

    def __init__(self, source: TreeSource, size: int) -> None:
        self._source = source
        self._full = size // TILE_WIDTH
        self._tiles: dict[int, bytes] = {}

    def of(self, index: int) -> bytes | None:
        """What the tile above says bundle `index` hashes to; None where it says nothing."""
        if index >= self._full:
            return None
        above = index // TILE_WIDTH
        if above not in self._tiles:
            width = min(TILE_WIDTH, self._full - above * TILE_WIDTH)
            data = next(iter(self._source.tiles([Tile(level=1, index=above, width=width)])))
            self._tiles[above] = b"" if isinstance(data, Damage) else data
        at = index % TILE_WIDTH * HASH_BYTES
        return self._tiles[above][at : at + HASH_BYTES] or None
