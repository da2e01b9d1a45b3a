"""GitHub's webhook deliveries: who signed a body, and what becomes of one that nobody here did."""

import gzip
import hmac
from hashlib import sha256
from typing import Any

import pytest

from translog.errors import SettingsError
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import JSON, by, dumps, entries, event, member
from .harness import Answer, Running

PATH = "/v1/sources/github/repo"
SECRET, OTHER = b"It's a Secret to Everybody", b"another secret of another member"
BODY = dumps({"action": "created", "sender": {"login": "alice", "id": 1}, "repository": {"full_name": "acme/web", "id": 2}})
DELIVERY = {"X-GitHub-Event": "repository", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
MEMBERS = (
    member("acme", webhook_secret_file="acme.secret"),
    member("other", webhook_secret_file="other.secret", streams=("repo",)),
    member("mute", webhook_secret_file="mute.secret", may_append=False),
    member("plain"),
)
SECRETS = {"acme.secret": SECRET + b"\n", "other.secret": OTHER, "mute.secret": b"a secret of who may not write"}


def signature(body: bytes, secret: bytes = SECRET) -> str:
    return "sha256=" + hmac.new(secret, body, sha256).hexdigest()


async def served(serve: Serve, **settings: Any) -> Running:
    return await serve(profile=Profile.EVENTS, members=MEMBERS, secrets=SECRETS, **settings)


async def deliver(log: Running, body: bytes = BODY, *, signed: str | None = None, path: str = PATH, **headers: str) -> Answer:
    headers = {**DELIVERY, "X-Hub-Signature-256": signature(body) if signed is None else signed, **headers}
    return await log.post(path, body, JSON, **headers)


def test_the_signature_is_githubs() -> None:
    """The example of GitHub's documentation, "Validating webhook deliveries"."""
    known = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert signature(b"Hello, World!", b"It's a Secret to Everybody") == known


async def test_a_signed_delivery_needs_no_token(serve: Serve) -> None:
    log = await served(serve)
    answer = (await deliver(log)).require_ok().json
    (entry,) = await entries(log)
    assert (entry.member, entry.stream) == ("acme", "repo")
    found = await event(log, answer["results"][0]["index"], **by("acme"))
    assert found["metadata"]["uid"] == DELIVERY["X-GitHub-Delivery"]
    assert found["api"]["operation"] == "repository.created"
    assert found["raw_data"] == BODY.decode()


async def test_the_secret_says_which_member_it_is(serve: Serve) -> None:
    log = await served(serve)
    (await deliver(log, signed=signature(BODY, OTHER))).require_ok()
    (await deliver(log)).require_ok()
    assert [entry.member for entry in await entries(log)] == ["other", "acme"]


async def test_a_delivery_made_again_is_a_duplicate(serve: Serve) -> None:
    log = await served(serve)
    first = (await deliver(log)).require_ok().json["results"][0]
    again = (await deliver(log)).require_ok().json["results"][0]
    assert (again["index"], again["duplicate"]) == (first["index"], True)
    assert len(await entries(log)) == 1


BAD = {
    "empty": "",
    "no digest": "sha256=",
    "of another body": signature(BODY + b" "),
    "of an unknown secret": signature(BODY, b"not a secret of this log"),
    "with the newline of the file": signature(BODY, SECRET + b"\n"),
    "sha1": "sha1=" + hmac.new(SECRET, BODY, "sha1").hexdigest(),
    "without its name": signature(BODY).removeprefix("sha256="),
    "upper case": "sha256=" + signature(BODY)[7:].upper(),
    "upper case name": signature(BODY).replace("sha256", "SHA256"),
    "cut short": signature(BODY)[:-1],
    "too long": signature(BODY) + "0",
    "not ASCII": "sha256=" + "ä" * 64,
    "two": signature(BODY) + "," + signature(BODY),
    "of nothing": signature(b""),
    "of an empty secret": signature(BODY, b""),
}


@pytest.mark.parametrize("bad", BAD)
async def test_what_nobody_signed_is_401_and_not_logged(serve: Serve, bad: str) -> None:
    log = await served(serve)
    (await deliver(log, signed=BAD[bad])).problem(401, "bad-webhook-signature")
    assert await entries(log) == []


async def test_without_a_signature_a_token_is_needed(serve: Serve) -> None:
    log = await served(serve)
    (await log.post(PATH, BODY, JSON, **DELIVERY)).problem(401, "unauthenticated")
    (await log.post(PATH, BODY, JSON, **{"X-Hub-Signature": "sha1=" + "0" * 40})).problem(401, "unauthenticated")
    (await log.post(PATH, BODY, JSON, **DELIVERY, **by("plain"))).require_ok()
    assert [entry.member for entry in await entries(log)] == ["plain"]


async def test_one_changed_byte_of_a_signed_body_is_not_taken(serve: Serve) -> None:
    log = await served(serve)
    (await deliver(log, BODY.replace(b"alice", b"malic"), signed=signature(BODY))).problem(401, "bad-webhook-signature")
    assert await entries(log) == []


async def test_a_token_that_is_not_known_is_401_though_the_body_is_signed(serve: Serve) -> None:
    log = await served(serve)
    (await deliver(log, Authorization="Bearer nobody")).problem(401, "unauthenticated")
    assert await entries(log) == []


async def test_a_member_who_may_not_append_may_not_by_signing_either(serve: Serve) -> None:
    log = await served(serve)
    (await deliver(log, signed=signature(BODY, SECRETS["mute.secret"]))).problem(403, "permission-denied")
    assert await entries(log) == []


async def test_who_signs_writes_to_streams_of_their_own_only(serve: Serve) -> None:
    log = await served(serve)
    answer = await deliver(log, signed=signature(BODY, OTHER), path="/v1/sources/github/elsewhere")
    answer.problem(403, "stream-not-allowed")
    assert await entries(log) == []


async def test_the_signature_counts_at_the_sources_only(serve: Serve) -> None:
    log = await served(serve)
    for path in ("/v1/events", "/v1/logs", "/services/collector", "/v1/streams/repo"):
        answer = await log.post(path, BODY, JSON, **DELIVERY, **{"X-Hub-Signature-256": signature(BODY)})
        assert answer.status == 401
    for path in ("/v1/streams", "/v1/events/0"):
        assert (await log.get(path, **{"X-Hub-Signature-256": signature(b"")})).status == 401
    assert await entries(log) == []


async def test_what_is_signed_is_the_body_without_its_compression(serve: Serve) -> None:
    """As GitHub sends none, a proxy that compresses must not break it."""

    log = await served(serve)
    packed = gzip.compress(BODY)
    answer = await log.post(PATH, packed, JSON, Content_Encoding="gzip", **DELIVERY, **{"X-Hub-Signature-256": signature(BODY)})
    answer.require_ok()
    answer = await log.post(
        PATH, packed, JSON, Content_Encoding="gzip", **DELIVERY, **{"X-Hub-Signature-256": signature(packed)}
    )
    answer.problem(401, "bad-webhook-signature")


async def test_trouble_while_a_signed_delivery_comes_is_503(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await served(serve)

    def fail(*_: Any) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("translog.events.normalize.find_missing", fail)
    (await deliver(log)).problem(503, "try-again")


@pytest.mark.parametrize("value", [b"\xff", b"\xed\xa0\x80", "ä".encode(), b"a\tb", b"x" * 4_000])
@pytest.mark.parametrize("name", ["X-GitHub-Event", "X-GitHub-Delivery", "X-GitHub-Hook-ID"])
async def test_headers_of_any_bytes_are_kept_with_the_event(serve: Serve, name: str, value: bytes) -> None:
    """A record is never refused for what comes with it."""
    log = await served(serve)
    lines = {**DELIVERY, "X-Hub-Signature-256": signature(BODY), name: value.decode("latin-1")}
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n" % (PATH.encode(), len(BODY))
    head += b"".join(f"{key}: {said}\r\n".encode("latin-1") for key, said in lines.items())
    for _ in range(2):
        (await log.raw(head + b"\r\n" + BODY)).require_ok()
    every = await entries(log)
    is_id = len(value) <= 1_024 or name != "X-GitHub-Delivery"
    assert len(every) == (1 if is_id else 2)
    found = await event(log, 1, **by("acme"))
    assert found["raw_data"] == BODY.decode()
    assert name.lower() in found["fed"]["raw_context"]


@pytest.mark.parametrize(
    ("secret", "mode"), [(b"x" * 15, 0o600), (b"", 0o600), (b"x" * 4_097, 0o600), (b"x" * 32, 0o644), (None, 0o600)]
)
async def test_a_log_does_not_start_with_a_secret_that_is_none(serve: Serve, secret: bytes | None, mode: int) -> None:
    log = await serve(profile=Profile.EVENTS)
    await log.server.stop()
    path = log.directory / "hook"
    if secret is not None:
        path.write_bytes(secret)
        path.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        await serve(directory=log.directory, members=(member("acme", webhook_secret_file="hook"),))
    assert "hook" in caught.value.detail
    assert "xxxx" not in str(caught.value)
    path.write_bytes(b"x" * 16)
    path.chmod(0o600)
    log = await serve(directory=log.directory, members=(member("acme", webhook_secret_file="hook"),))
    (await deliver(log, signed=signature(BODY, b"x" * 16))).require_ok()


async def test_no_other_source_takes_a_signature_for_a_token(serve: Serve) -> None:
    """What one source signed says nothing of another's records."""
    log = await served(serve)
    for source in ("cloudtrail", "events", "kubernetes"):
        (await deliver(log, path=f"/v1/sources/{source}/repo")).problem(401, "unauthenticated")
    assert await entries(log) == []
