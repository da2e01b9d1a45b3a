"""The rows by the number they have in the list of targets (specs/performance.md). 11 to 13 are about what this version does not
have yet: an index, alerts, more than one node."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks import append_rows, event_rows, publication_rows, read_rows, store_rows, verify_rows, witness_rows
from benchmarks.figures import Figure
from benchmarks.workshop import Workshop


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What it is about, and what measures it."""

    title: str
    measure: Callable[[Workshop], list[Figure]]


ROWS: Mapping[int, Row] = {
    1: Row(title="a lone append, published", measure=append_rows.lone_append),
    2: Row(title="single appends, many writers", measure=append_rows.many_writers),
    3: Row(title="batches of opaque entries", measure=append_rows.batches),
    4: Row(title="audit events, the whole way", measure=event_rows.audit_events),
    5: Row(title="proofs served", measure=read_rows.proofs),
    6: Row(title="tiles served", measure=read_rows.tiles),
    7: Row(title="offline verification", measure=verify_rows.verification),
    8: Row(title="growth", measure=store_rows.growth),
    9: Row(title="disk", measure=store_rows.disk),
    10: Row(title="fsck", measure=store_rows.fsck),
    14: Row(title="publication with witnesses", measure=publication_rows.publication),
    15: Row(title="checkpoints cosigned", measure=witness_rows.cosigning),
    16: Row(title="receipts with cosignatures", measure=witness_rows.receipt_sizes),
}
