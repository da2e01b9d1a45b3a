"""Makes log records with the OpenTelemetry SDK and sends them with its exporters: OTLP over HTTP, protobuf and JSON."""

import math
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.common.http import Compression
from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter as JsonExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as ProtobufExporter
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
    SimpleLogRecordProcessor,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0xB7AD6B7169203331
RESOURCE = Resource.create({"service.name": "shop", "service.instance.id": "shop-1"})

BODIES: dict[str, Any] = {
    "none": None,
    "string": "paid — 3 €",
    "boolean": True,
    "zero": 0,
    "the largest integer": 2**63 - 1,
    "the smallest integer": -(2**63),
    "a number": 1.5,
    "not a number": math.nan,
    "infinity": math.inf,
    "bytes": b"\x00\xff",
    "a list": ["a", 1, None, [b"\x01"]],
    "a map": {"order": {"lines": [1, {"sku": "x"}]}, "": False},
    "an empty list": [],
    "an empty map": {},
}
"""A body of each kind of AnyValue."""


class Encoding(StrEnum):
    """The two bodies of OTLP over HTTP."""

    PROTOBUF = "protobuf"
    JSON = "json"


class _Kept(LogRecordExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[ReadableLogRecord] = []

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.records += batch
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing."""

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return True


def exporter(
    encoding: Encoding,
    url: str,
    *,
    gzip: bool = False,
    timeout_s: float = 10.0,
    headers: dict[str, str] | None = None,
    authority: str = "",
) -> LogRecordExporter:
    """The SDK's exporter for the log or receiver under `url`; `authority` is a file."""
    make = ProtobufExporter if encoding is Encoding.PROTOBUF else JsonExporter
    return make(
        endpoint=f"{url}/v1/logs",
        headers=headers,
        timeout=timeout_s,
        compression=Compression.GZIP if gzip else Compression.NONE,
        certificate_file=authority or None,
    )


def record(body: Any, *, uid: str = "", event_name: str = "order.paid") -> LogRecord:
    """A record inside a span, with attributes of several kinds."""
    span = NonRecordingSpan(SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    now_ns = time.time_ns()
    attributes: dict[str, Any] = {
        "user.id": "u-17",
        "amount": 3,
        "ratio": 0.25,
        "roles": ["buyer", "admin"],
        "nested": {"a": [1]},
    }
    if uid:
        attributes["log.record.uid"] = uid
    return LogRecord(
        timestamp=now_ns,
        observed_timestamp=now_ns + 1_000,
        context=set_span_in_context(span),
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        body=body,
        attributes=attributes,
        event_name=event_name,
    )


def _emit(processor: LogRecordProcessor, records: Iterable[LogRecord]) -> LoggerProvider:
    provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(processor)
    logger = provider.get_logger("shop.audit", "1.2", schema_url="https://shop.example/schema/1")
    for each in records:
        logger.emit(each)
    return provider


def through_the_sdk(records: Iterable[LogRecord]) -> Sequence[ReadableLogRecord]:
    """The records as the SDK hands them to an exporter."""
    kept = _Kept()
    _emit(SimpleLogRecordProcessor(kept), records)
    return kept.records


def through_a_batch_processor(
    sender: LogRecordExporter, records: Iterable[LogRecord], *, queue: int = 2_048, batch: int = 512
) -> None:
    """Logs the records as programs do, and shuts down, which sends what is queued."""
    _emit(BatchLogRecordProcessor(sender, max_queue_size=queue, max_export_batch_size=batch), records).shutdown()


def export(sender: LogRecordExporter, records: Iterable[LogRecord]) -> bool:
    """Sends the records as one batch, closes the exporter, and gives whether it believes that they arrived."""
    result = sender.export(through_the_sdk(records))
    sender.shutdown()  # type: ignore[no-untyped-call]  # the SDK's
    return result is LogRecordExportResult.SUCCESS
