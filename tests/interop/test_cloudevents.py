"""Requests that the CloudEvents SDK makes, structured and binary, and batches of its events, against our log.

The SDK (2.2) makes no batches: a batch here is a JSON array of what it writes for each event, as the specification has it.
"""

import datetime
import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v03.event import CloudEvent as OldCloudEvent
from cloudevents.core.v1.event import CloudEvent

from .events_log import EventsLog, RefusedError, ServedLog

BATCH = "application/cloudevents-batch+json"


def attributes(number: object, **more: Any) -> dict[str, Any]:
    return {
        "id": f"order-{number}",
        "source": "/shop/orders",
        "type": "com.example.order.paid",
        "time": datetime.datetime(2026, 11, 22, 1, 2, 3, 456_000, datetime.UTC),
        "specversion": "1.0",
        **more,
    }


EVENTS: dict[str, BaseCloudEvent] = {
    "an object": CloudEvent(attributes("object", datacontenttype="application/json"), {"amount": 3, "to": ["a", None]}),
    "no data": CloudEvent(attributes("nothing"), None),
    "text": CloudEvent(attributes("text", datacontenttype="text/plain"), "three €\nand a bit"),
    "bytes": CloudEvent(attributes("bytes", datacontenttype="application/octet-stream"), b"\x00\xff\xfe"),
    "extensions": CloudEvent(
        attributes(
            "extensions", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", authid="u-17", stage="prod"
        ),
        {"a": 1},
    ),
    "a subject of any letters": CloudEvent(attributes("subject", subject='Größe "3", 100 % – ✓'), {"a": 1}),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    with EventsLog(tmp_path_factory.mktemp("cloudevents")).serving() as log:
        yield log


def post(log: ServedLog, message: HTTPMessage, *, stream: str) -> list[dict[str, Any]]:
    """The results of each event in the request."""
    results: list[dict[str, Any]] = log.ask(f"/v1/sources/cloudevents/{stream}", message.body, message.headers)["results"]
    return results


def batch(*events: BaseCloudEvent) -> HTTPMessage:
    return HTTPMessage({"content-type": BATCH}, b"[" + b",".join(JSONFormat().write(event) for event in events) + b"]")


def assert_is(event: dict[str, Any], sent: BaseCloudEvent) -> None:
    """The log's event is mapped: id, source, type, time, subject and data are those that were sent."""
    assert "error" not in event["fed"], event["fed"]
    assert event["metadata"]["uid"] == f"{sent.get_source()} {sent.get_id()}"
    assert event["api"]["operation"] == sent.get_type()
    assert event["time"] == 1_795_309_323_456
    assert event["metadata"]["original_time"].startswith("2026-11-22T01:02:03.456")
    assert event.get("resources", [{}])[0].get("name") == sent.get_subject()
    data = sent.get_data()
    if isinstance(data, bytes):
        assert b64decode(event["unmapped"]["data_base64"]) == data
    else:
        assert event.get("unmapped", {}).get("data") == data


@pytest.mark.parametrize("name", EVENTS)
def test_a_structured_request_is_logged_and_sent_again_found_to_be_a_duplicate(name: str, served: ServedLog) -> None:
    message = to_structured_event(EVENTS[name])
    [first] = post(served, message, stream="structured")
    [again] = post(served, message, stream="structured")
    assert (first["duplicate"], first["error"]) == (False, None)
    assert (again["duplicate"], again["index"]) == (True, first["index"])
    event = served.event(first["index"])
    assert_is(event, EVENTS[name])
    assert json.loads(event["raw_data"]) == json.loads(message.body)


@pytest.mark.parametrize("name", EVENTS)
def test_a_binary_request_is_logged_and_sent_again_found_to_be_a_duplicate(name: str, served: ServedLog) -> None:
    message = to_binary_event(EVENTS[name])
    [first] = post(served, message, stream="binary")
    [again] = post(served, message, stream="binary")
    assert (first["duplicate"], first["error"]) == (False, None)
    assert (again["duplicate"], again["index"]) == (True, first["index"])
    assert_is(served.event(first["index"]), EVENTS[name])


def test_a_batch_is_logged_in_order_and_its_events_are_those_of_structured_requests(served: ServedLog) -> None:
    results = post(served, batch(*EVENTS.values()), stream="batch")
    assert [result["index"] for result in results] == list(range(results[0]["index"], results[0]["index"] + len(EVENTS)))
    for result, (name, sent) in zip(results, EVENTS.items(), strict=True):
        assert (result["duplicate"], result["error"]) == (False, None), name
        assert_is(served.event(result["index"]), sent)
        [alone] = post(served, to_structured_event(sent), stream="batch")
        assert (alone["duplicate"], alone["index"]) == (True, result["index"])


def test_an_event_of_the_old_version_is_kept_as_it_came(served: ServedLog) -> None:
    message = to_structured_event(OldCloudEvent(attributes("old", specversion="0.3"), {"a": 1}))
    [result] = post(served, message, stream="old")
    assert "1.0" in result["error"]
    event = served.event(result["index"])
    assert event["class_uid"] == 0
    assert event["raw_data"].encode() == message.body


def test_an_event_twice_in_a_batch_is_logged_once(served: ServedLog) -> None:
    event = CloudEvent(attributes("twice"), {"a": 1})
    first, second = post(served, batch(event, event), stream="twice")
    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert first["index"] == second["index"]


def test_an_empty_batch_is_legal(served: ServedLog) -> None:
    assert post(served, batch(), stream="empty") == []


def test_other_content_under_the_same_id_is_logged_and_marked(served: ServedLog) -> None:
    [first] = post(served, to_structured_event(CloudEvent(attributes("same"), {"amount": 3})), stream="conflict")
    [other] = post(served, to_structured_event(CloudEvent(attributes("same"), {"amount": 300})), stream="conflict")
    assert other["index"] != first["index"]
    assert (other["duplicate"], other["conflicts_with"]) == (False, first["index"])
    assert served.event(other["index"])["fed"]["conflicts_with"] == first["index"]


def test_one_event_in_two_modes_is_logged_twice_and_marked(served: ServedLog) -> None:
    event = CloudEvent(attributes("modes", datacontenttype="application/json"), {"a": 1})
    [first] = post(served, to_structured_event(event), stream="modes")
    [second] = post(served, to_binary_event(event), stream="modes")
    assert second["conflicts_with"] == first["index"]


def test_extensions_are_kept(served: ServedLog) -> None:
    found = {}
    for make in (to_structured_event, to_binary_event):
        [result] = post(served, make(EVENTS["extensions"]), stream=f"extensions-{make.__name__.split('_')[1]}")
        found[make] = served.event(result["index"])
    for event in found.values():
        assert event["trace"]["uid"] == "0af7651916cd43dd8448eb211c80319c"
        assert event["actor"]["user"]["uid"] == "u-17"
        assert event["unmapped"]["stage"] == "prod"


def test_other_event_formats_are_refused(served: ServedLog) -> None:
    message = HTTPMessage({"content-type": "application/cloudevents+avro"}, b"\x00")
    with pytest.raises(RefusedError) as caught:
        post(served, message, stream="avro")
    assert caught.value.status == 400


def test_the_same_id_of_another_source_is_another_event(served: ServedLog) -> None:
    [first] = post(served, to_structured_event(CloudEvent(attributes("shared"), {"a": 1})), stream="sources")
    [other] = post(
        served, to_structured_event(CloudEvent(attributes("shared", source="/shop/returns"), {"a": 1})), stream="sources"
    )
    assert (other["duplicate"], other["conflicts_with"]) == (False, None)
    assert other["index"] != first["index"]
