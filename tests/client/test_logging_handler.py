"""AuditHandler: records become events, and nothing of it disturbs the program that logs."""

import json
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from client.event_stub import EventStub, Fault
from translog.client.blocking import SyncEventSubmitter
from translog.client.delivery import Unsent
from translog.client.events import EventSubmitter
from translog.client.logging_handler import AuditHandler
from translog.client.pending import Limits
from translog.client.trace import TraceContext, current
from translog.errors import MalformedError


class Watched(AuditHandler):
    """Keeps the records that handleError is called with."""

    failed: list[logging.LogRecord]

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        self.failed.append(record)


class Audited:
    """A logger of its own with a handler that sends to a stub."""

    def __init__(self, stub: EventStub, url: str) -> None:
        self.stub = stub
        self.url = url
        self.logger = logging.Logger(f"audit.{uuid.uuid4().hex}")  # noqa: LOG001  # without anybody else's handlers
        self.handlers: list[AuditHandler] = []
        self.failed: list[logging.LogRecord] = []

    def handler(self, **options: Any) -> AuditHandler:
        handler = Watched(self.url, **options)
        handler.failed = self.failed
        self.handlers.append(handler)
        self.logger.addHandler(handler)
        return handler

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(data) for _, data in self.stub.stored]


@pytest.fixture
def audited() -> Iterator[Audited]:
    stub = EventStub()
    with stub.serving_aside() as url:
        made = Audited(stub, url)
        yield made
        for handler in made.handlers:
            handler.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_record_becomes_an_event_of_the_short_form(audited: Audited) -> None:
    handler = audited.handler(token="secret", stream="billing")
    extra = {
        "actor": {"uid": "7", "name": "alice"},
        "action": "invoice.approve",
        "resource": "INV-7",
        "outcome": "success",
        "reason": "CHG-1234",
        "context": {"amount": 12},
        "src_ip": "192.0.2.1",
        "id": 42,
        "unrelated": "x",
    }
    audited.logger.warning("approved %s", "INV-7", extra=extra)
    handler.flush()
    (event,) = audited.events
    del extra["unrelated"]
    context = event.pop("context")
    when = datetime.fromisoformat(event.pop("time"))
    assert abs((datetime.now(UTC) - when).total_seconds()) < 60
    assert event == {
        **{k: v for k, v in extra.items() if k != "context"},
        "id": "42",
        "message": "approved INV-7",
        "severity": "medium",
    }
    assert (context["amount"], context["logger"], context["level"]) == (12, audited.logger.name, "WARNING")
    assert context["source"].startswith("test_logging_handler.test_a_record_becomes")
    request = audited.stub.requests[0]
    assert (request.headers["Translog-Stream"], request.headers["Authorization"]) == ("billing", "Bearer secret")


def test_a_plain_record_says_what_it_can(audited: Audited) -> None:
    handler = audited.handler()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, 1, 25):
        audited.logger.log(level, "m")
    handler.flush()
    severities = ["debug", "informational", "medium", "high", "critical", "debug", "informational"]
    assert [event["severity"] for event in audited.events] == severities
    assert {event["action"] for event in audited.events} == {audited.logger.name}
    assert len({event["id"] for event in audited.events}) == 7
    assert all("actor" not in event and "outcome" not in event for event in audited.events)


def test_exceptions_are_failures_and_their_text_is_context(audited: Audited) -> None:
    handler = audited.handler()
    try:
        raise KeyError("gone")
    except KeyError:
        audited.logger.exception("it failed")
        audited.logger.error("known", exc_info=True, extra={"outcome": "unknown"})
    handler.flush()
    first, second = audited.events
    assert (first["outcome"], second["outcome"]) == ("failure", "unknown")
    assert first["context"]["exception"].endswith("KeyError: 'gone'")


def test_the_current_span_is_named_unless_the_record_names_one(audited: Audited) -> None:
    handler = audited.handler()
    token = current.set(TraceContext(trace_id="1" * 32, span_id="2" * 16))
    audited.logger.info("m")
    audited.logger.info("m", extra={"trace_id": "3" * 32})
    current.reset(token)
    audited.logger.info("m")
    handler.flush()
    assert [event.get("trace_id") for event in audited.events] == ["1" * 32, "3" * 32, None]
    assert [event.get("span_id") for event in audited.events] == ["2" * 16, "2" * 16, None]


def test_no_odd_value_loses_a_record(audited: Audited) -> None:
    handler = audited.handler()
    loop: list[Any] = []
    loop.append(loop)
    odd = {
        "nan": float("nan"),
        "set": {1},
        "bytes": b"\xff",
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        3: "key",
        "surrogate": "\ud800",
        "loop": loop,
    }
    audited.logger.info("\udcff", extra={"context": odd, "actor": object()})
    audited.logger.info("x" * 100_000, extra={"context": ["a", 1]})
    handler.flush()
    first, second = audited.events
    assert (first["message"], first["context"]["nan"], first["context"]["set"]) == ("\\udcff", "nan", [1])
    assert (first["context"]["3"], first["context"]["when"]) == ("key", "2026-01-02 00:00:00+00:00")
    assert first["actor"].startswith("<object object")
    assert (len(second["message"]), second["context"]["context"]) == (64 * 1024 + len("… (34464 more)"), ["a", 1])
    assert (handler.lost, audited.failed) == (0, [])


def test_nothing_is_raised_into_the_program(audited: Audited) -> None:
    class Bad:
        def __str__(self) -> str:
            raise ZeroDivisionError

    handler = audited.handler()
    audited.logger.info("%d", "no number")
    audited.logger.info("m", extra={"actor": Bad()})
    handler.flush()
    assert (handler.lost, len(audited.failed), audited.events) == (2, 2, [])
    with pytest.raises(MalformedError):
        AuditHandler("no url")
    with pytest.raises(MalformedError):
        AuditHandler(audited.url, stream="No Stream")


def test_a_full_queue_is_told_at_once_and_counted(audited: Audited) -> None:
    audited.stub.plan.append(Fault.SLOW_BEFORE)
    limits = Limits(queue_events_max=2, request_timeout_ms=500, batch_age_ms=0)
    handler = audited.handler(limits=limits)
    for number in range(5):
        audited.logger.info("m", extra={"id": f"e{number}"})
    assert (handler.lost, [record.__dict__["id"] for record in audited.failed]) == (3, ["e2", "e3", "e4"])
    assert "there is no room for more" in handler.last_error
    handler.flush()
    assert [event["id"] for event in audited.events] == ["e0", "e1"]


def test_room_is_waited_for_as_long_as_set(audited: Audited) -> None:
    audited.stub.plan.append(Fault.SLOW_BEFORE)
    limits = Limits(queue_events_max=1, request_timeout_ms=200, batch_age_ms=0)
    handler = audited.handler(limits=limits, block_ms=10_000)
    for number in range(3):
        audited.logger.info("m", extra={"id": f"e{number}"})
    handler.flush()
    assert ([event["id"] for event in audited.events], handler.lost) == (["e0", "e1", "e2"], 0)


def test_what_the_log_refuses_is_kept_and_counted_or_told(audited: Audited) -> None:
    audited.stub.status = 403
    told: list[Unsent] = []
    kept, telling = audited.handler(), audited.handler(on_unsent=told.append)
    audited.logger.info("m", extra={"id": "e"})
    for handler in (kept, telling):
        handler.flush()
    assert ([one.event["id"] for one in kept.unsent], kept.lost) == (["e"], 1)
    assert ([one.event["id"] for one in told], telling.lost, telling.unsent) == (["e"], 1, ())
    assert audited.failed == []


def test_close_delivers_or_tells_and_may_be_called_again(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    handler = audited.handler()
    audited.logger.info("m", extra={"id": "e1"})
    handler.close()
    assert [event["id"] for event in audited.events] == ["e1"]
    assert capsys.readouterr().err == ""
    audited.logger.info("late")
    handler.close()
    assert (len(audited.failed), handler.lost) == (1, 1)
    audited.stub.plan.extend([Fault.SLOW_BEFORE] * 9)
    slow = audited.handler(flush_timeout_ms=50)
    audited.logger.removeHandler(handler)
    audited.logger.info("m", extra={"id": "e2"})
    slow.flush()
    slow.close()
    assert ([one.event["id"] for one in slow.unsent], slow.lost) == (["e2"], 1)
    said = "translog: 1 log records were not delivered to the audit log: the connection"
    assert capsys.readouterr().err.startswith(said) or slow.last_error.startswith("the log was not reached yet")


def test_records_of_the_client_and_of_its_thread_make_no_events(audited: Audited) -> None:
    seen: list[str] = []

    def tell(unsent: Unsent) -> None:
        audited.logger.error("from the sender's thread")
        seen.append(unsent.event["id"])

    handler = audited.handler(on_unsent=tell)
    for name in ("translog.client", "translog.client.events"):
        handler.handle(logging.LogRecord(name, logging.ERROR, "f", 1, "own", None, None))
    audited.stub.status = 403
    audited.logger.info("m", extra={"id": "e1"})
    handler.flush()
    assert (seen, handler.lost) == (["e1"], 1)
    audited.stub.status = None
    handler.handle(logging.LogRecord("translog.clients", logging.ERROR, "f", 1, "another's", None, None))
    handler.flush()
    assert [event["message"] for event in audited.events] == ["another's"]


def finishes(work: Callable[[], None]) -> bool:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=4)
    return not thread.is_alive()


def test_what_is_logged_while_the_sender_starts_does_not_wait_for_it(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio logs, at DEBUG, that it makes a loop; with the handler on the root logger that is a record within a record."""
    handler = audited.handler()
    enter = EventSubmitter.__aenter__
    threads: list[int] = []

    async def enter_and_log(log: EventSubmitter) -> EventSubmitter:
        threads.append(threading.get_ident())
        audited.logger.error("from the sender's thread")
        return await enter(log)

    monkeypatch.setattr(EventSubmitter, "__aenter__", enter_and_log)
    asyncio_logger = logging.getLogger("asyncio")
    level = asyncio_logger.level
    asyncio_logger.setLevel(logging.DEBUG)
    asyncio_logger.addHandler(handler)
    try:
        assert finishes(lambda: audited.logger.info("first"))
    finally:
        asyncio_logger.removeHandler(handler)
        asyncio_logger.setLevel(level)
    audited.logger.info("second")
    handler.flush()
    assert [event["message"] for event in audited.events] == ["first", "second"]
    assert (len(threads), threads[0] != threading.get_ident(), handler.lost) == (1, True, 0)


def test_a_start_that_fails_leaves_the_handler_usable(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(log: SyncEventSubmitter) -> SyncEventSubmitter:
        audited.logger.info("within")
        raise OSError("no more files")

    handler = audited.handler()
    with monkeypatch.context() as patched:
        patched.setattr(SyncEventSubmitter, "open", fail)
        assert finishes(lambda: audited.logger.info("lost"))
    assert (handler.lost, handler.last_error) == (1, "no more files")
    audited.logger.info("kept")
    handler.flush()
    assert [event["message"] for event in audited.events] == ["kept"]


def test_records_count_without_logging_s_thread_ids(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "logThreads", False)
    handler = audited.handler()
    audited.logger.info("m")
    handler.flush()
    assert [event["message"] for event in audited.events] == ["m"]


def test_a_signal_s_handler_may_log_in_the_midst_of_a_record(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = audited.handler()
    audited.logger.info("first")
    until(lambda: handler._log is not None)
    assert handler._log is not None
    loop = handler._log._loop
    assert loop is not None
    schedule = loop.call_soon_threadsafe
    interrupted: list[bool] = []

    def interrupt(*args: Any) -> Any:
        if not interrupted:
            interrupted.append(True)
            audited.logger.info("signal")
        return schedule(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupt)
    assert finishes(lambda: audited.logger.info("second"))
    monkeypatch.undo()
    handler.flush()
    assert [event["message"] for event in audited.events] == ["first", "signal", "second"]


def test_the_sender_may_log_to_the_handler_while_it_is_closed(audited: Audited) -> None:
    """logging.shutdown holds a handler's lock while it waits for the sender, whose thread must not wait for that lock."""
    handler = audited.handler(flush_timeout_ms=5_000, on_unsent=lambda unsent: audited.logger.error("on my way"))
    audited.stub.status = 403
    audited.logger.info("m")

    def close() -> None:
        handler.acquire()
        handler.close()
        handler.release()

    closing = threading.Thread(target=close)
    closing.start()
    closing.join(timeout=4)
    assert not closing.is_alive()
    assert handler.lost == 1


def test_many_threads_log_at_once(audited: Audited) -> None:
    handler = audited.handler()

    def work(worker: int) -> None:
        for number in range(50):
            audited.logger.info("m", extra={"id": f"{worker}-{number}"})

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    ids = [event["id"] for event in audited.events]
    assert sorted(ids) == sorted(f"{worker}-{number}" for worker in range(4) for number in range(50))
    for worker in range(4):
        assert [uid for uid in ids if uid.startswith(f"{worker}-")] == [f"{worker}-{number}" for number in range(50)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # of Python 3.12 and later
def test_records_of_a_child_are_sent_by_the_child_and_the_parents_once(audited: Audited) -> None:
    handler = audited.handler(limits=Limits(batch_age_ms=300))
    audited.logger.info("parent", extra={"id": "parent"})
    until(lambda: handler._log is not None)
    child = os.fork()
    if child == 0:
        try:
            audited.logger.info("child", extra={"id": "child"})
            handler.close()
            os._exit(handler.lost)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    handler.flush()
    assert sorted(event["id"] for event in audited.events) == ["child", "parent"]
    assert handler.lost == 0


def test_an_overflow_is_printed_as_logging_does(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    audited.stub.plan.append(Fault.SLOW_BEFORE)
    handler = AuditHandler(audited.url, limits=Limits(queue_events_max=1, request_timeout_ms=100))
    audited.logger.addHandler(handler)
    audited.logger.info("one")
    audited.logger.info("two")
    handler.close()
    err = capsys.readouterr().err
    assert "--- Logging error ---" in err
    assert "there is no room for more" in err
    assert sys.stderr is not None


async def test_a_handler_on_a_program_with_a_loop_does_not_block_it(audited: Audited) -> None:
    handler = audited.handler()
    async with EventSubmitter(audited.url) as log:
        audited.logger.info("m", extra={"id": "handler"})
        await log.submit({"id": "loop", "action": "x"})
    handler.flush()
    assert sorted(event["id"] for event in audited.events) == ["handler", "loop"]
