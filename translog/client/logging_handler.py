"""`logging` records as audit events.

    handler = AuditHandler("https://log.example", token=token, stream="billing")
    logging.getLogger("billing.audit").addHandler(handler)
    logger.info("invoice approved", extra={"actor": "alice", "action": "invoice.approve", "resource": "INV-7",
                                           "outcome": "success", "reason": "CHG-1234", "context": {"amount": 12}})

Close the handler (or call logging.shutdown) before the program ends: at the interpreter's own end names cannot be looked up.
Rules: nothing is raised into the application, and no call waits longer than `block_ms`; what does not fit the queue, or cannot
be sent, is counted in `lost` and told to handleError or to `on_unsent`; records of this client, of its thread, and of the start
of that thread are ignored, since each would make another. The first record starts the sender, in each process anew, so a
handler set up before a fork works in the children; the parent's records stay the parent's.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from translog.client.blocking import SyncEventSubmitter
from translog.client.delivery import Unsent
from translog.client.events import CLOSE_TIMEOUT_MS
from translog.client.plain import clip, plain
from translog.client.trace import current

FIELDS = (
    *("id", "actor", "action", "resource", "outcome", "reason", "trace_id", "span_id", "src_ip", "src_port", "user_agent"),
    *("decision", "policy", "http", "duration_ms", "context"),
)
"""What `extra=` may give of the short form. `context` takes anything that is JSON."""
_SEVERITIES = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "high"),
    (logging.WARNING, "medium"),
    (logging.INFO, "informational"),
)
UNSENT_MAX = 10_000
_OWN = "translog.client"
_inherited: list[SyncEventSubmitter] = []
"""Senders of a parent process: kept, since closing them here would disturb what they share with the parent."""


class AuditHandler(logging.Handler):
    """Sends each record as an event. `lost` counts the records that were not delivered, for any reason; `last_error` is the
    last such reason."""

    def __init__(
        self,
        url: str,
        *,
        level: int = logging.NOTSET,
        block_ms: float = 0,
        flush_timeout_ms: int = CLOSE_TIMEOUT_MS,
        on_unsent: Callable[[Unsent], None] | None = None,
        **options: Any,
    ) -> None:
        """`options` are those of EventSubmitter. `on_unsent` is told, on the sender's thread, of each event that was given
        up; without it, what was given up is kept in `unsent`, up to UNSENT_MAX. Raises MalformedError."""
        super().__init__(level)
        SyncEventSubmitter(url, **options)  # so that a mistake shows here, and not in a record's stead
        self._url = url
        self._options = options | {"on_unsent": self._tell}
        self._block_ms = block_ms
        self._flush_timeout_ms = flush_timeout_ms
        self._on_unsent = on_unsent
        self._start()

    def createLock(self) -> None:  # noqa: N802  # logging's name
        """None is needed, and with one the sender's thread, when it logs, would wait for whoever waits in `close` for it."""
        self.lock = None

    def _start(self) -> None:
        self._pid = os.getpid()
        self._log: SyncEventSubmitter | None = None
        self._opening: SyncEventSubmitter | None = None
        self._opener_id: int | None = None
        self._thread_id: int | None = None
        self._closed = False
        self._starting = threading.Lock()
        self._counting = threading.RLock()  # a signal's handler may log in the midst
        self._unsent: list[Unsent] = []
        self.lost = 0
        self.last_error = ""

    @property
    def unsent(self) -> tuple[Unsent, ...]:
        """Events that were given up, where no `on_unsent` is told: the first UNSENT_MAX of them; `lost` counts all."""
        return tuple(self._unsent)

    def emit(self, record: logging.LogRecord) -> None:
        """Queues the record's event. Never raises."""
        try:
            if os.getpid() != self._pid:
                _inherited.extend(log for log in (self._log, self._opening) if log is not None)
                self._start()
            if self._is_ignored(record):
                return
            self._sender().post(self.event_of(record), wait_ms=self._block_ms)
        except Exception as error:
            self._count(str(error))
            self.handleError(record)

    def _sender(self) -> SyncEventSubmitter:
        with self._starting:
            if self._log is None and not self._closed:
                self._log = self._open()
            if self._log is None:
                raise RuntimeError("the audit handler is closed")
            return self._log

    def _open(self) -> SyncEventSubmitter:
        """Starts the sender. Its thread and this one may log meanwhile (asyncio does), and must not wait for `_starting`."""
        self._opening = SyncEventSubmitter(self._url, **self._options)
        self._opener_id = threading.get_ident()
        try:
            log = self._opening.open()
            self._thread_id = log.thread_id
            return log
        finally:
            self._opener_id = self._opening = None

    def _is_ignored(self, record: logging.LogRecord) -> bool:
        """Whether the record is this client's own doing. Takes no lock. `record.thread` is another than this thread where a
        queue is between, and None where `logging.logThreads` is off."""
        if record.name == _OWN or record.name.startswith(f"{_OWN}."):
            return True
        here = threading.get_ident()
        if here == self._opener_id:
            return True
        opening = self._opening
        sender_id = self._thread_id if opening is None else opening.thread_id
        return sender_id is not None and sender_id in (here, record.thread)

    def event_of(self, record: logging.LogRecord) -> dict[str, Any]:
        """The event of a record, in the short form. Its action, where `extra` gives none, is the logger's name."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "action": record.name,
            "severity": next((name for level, name in _SEVERITIES if record.levelno >= level), "debug"),
            "message": clip(record.getMessage()),
        }
        trace = current.get()
        if trace is not None:
            event |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
        event |= {name: plain(value) for name in FIELDS if (value := record.__dict__.get(name)) is not None}
        if "id" in event:
            event["id"] = str(event["id"])
        context = event.get("context", {})
        event["context"] = {
            "logger": record.name,
            "level": record.levelname,
            "source": f"{record.module}.{record.funcName}:{record.lineno}",
            "process": record.process,
            **(context if isinstance(context, dict) else {"context": context}),
        }
        if record.exc_info or record.exc_text:
            formatter = self.formatter or logging.Formatter()
            text = record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else "")
            event["context"]["exception"] = clip(text)
            event.setdefault("outcome", "failure")
        return event

    def flush(self) -> None:
        """Waits up to `flush_timeout_ms` for all records so far; what is still open then is tried on."""
        log = self._log
        if log is not None and self._is_own(log):
            log.flush(timeout_ms=self._flush_timeout_ms)

    def close(self) -> None:
        """Delivers what is queued within `flush_timeout_ms` and tells of the rest, which `lost` counts. May be called again."""
        log = self._log
        if log is not None and self._is_own(log):
            with self._starting:
                self._log, self._closed = None, True
            log.close(timeout_ms=self._flush_timeout_ms)
            if self.lost and logging.raiseExceptions and sys.stderr is not None:
                sys.stderr.write(f"translog: {self.lost} log records were not delivered to the audit log: {self.last_error}\n")
        self._closed = True
        super().close()

    def _is_own(self, log: SyncEventSubmitter) -> bool:
        """Whether the sender runs in this process, and this is not its own thread, which cannot wait for itself."""
        return os.getpid() == self._pid and threading.get_ident() != log.thread_id

    def _count(self, error: str) -> None:
        with self._counting:
            self.lost += 1
            self.last_error = error

    def _tell(self, unsent: Unsent) -> None:
        self._count(str(unsent.error))
        if self._on_unsent is not None:
            self._on_unsent(unsent)
        elif len(self._unsent) < UNSENT_MAX:
            self._unsent.append(unsent)
