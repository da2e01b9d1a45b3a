"""Reading an event back: as it was sealed, or damage that names it. Nothing that was moved, swapped or changed is shown."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from log.harness import EVENTS_META, ORIGIN, NumberedLog, World, until
from translog.errors import CorruptionError, HeldError, NotFoundError, StorageError
from translog.events.cipher import BLOB, seal_record
from translog.events.entry import Numbered, StreamCheckpoint, format_stream_checkpoint
from translog.events.seal import Field, Payload, Sealed, encode_plain, find_blobs, seal, take_blobs
from translog.log.drafts import Draft, Note
from translog.log.events import Content, EventStore, OpenedEvent, open_event
from translog.log.lifecycle import Mode
from translog.log.vault import FileKeyWrapper, Vault
from translog.storage.memory import MemoryDisk, MemoryStore
from translog.storage.store import PayloadRow, StreamName

ACME = StreamName("acme", "k8s-prod")
AGENT = StreamName("acme", "agent")
SMALL: dict[str, Any] = {
    "metadata": {"uid": "1", "version": "1.8.0"},
    "time": 1_763_750_000_000,
    "message": "gr\u00f6\u00dfe \U0001f332",
    "none": None,
}
LARGE: dict[str, Any] = {
    "message": "x" * 2_000,
    "unmapped": {"list": list(range(1_000))},
    "small": {"$blob": "not one of ours"},
    "raw_data": "\u00e4" * 3_000,
}
BLOB_BYTES_MIN = 1_024


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    Vault.create(tmp_path / "vault")
    wrapper = FileKeyWrapper(bytes(32), origin=ORIGIN, random_bytes=os.urandom)
    return Vault.open(tmp_path / "vault", wrapper=wrapper, random_bytes=os.urandom, now_ms=lambda: 1)


def draft_of(
    event: Mapping[str, Any], vault: Vault, *, stream: StreamName = ACME, sealed_for: StreamName | None = None
) -> Draft:
    """What an intake makes of an event."""
    seed = os.urandom(32)
    made_for = sealed_for or stream
    kept, blobs = take_blobs(event, seed=seed, blob_bytes_min=BLOB_BYTES_MIN)
    sealed = seal(kept, origin=ORIGIN, member=made_for.member, stream=made_for.stream, seed=seed)
    return Draft(
        stream=stream,
        root=sealed.root,
        record=encrypt(encode_plain(sealed), sealed.root, vault, stream=stream),
        blobs=tuple(encrypt(blob.data, sealed.root, vault, stream=stream, label=BLOB, blob_salt=blob.salt) for blob in blobs),
    )


def encrypt(plain: bytes, root: bytes, vault: Vault, *, stream: StreamName = ACME, **options: bytes) -> bytes:
    key_id, data_key = vault.current(stream.member)
    return seal_record(plain, data_key=data_key, key_id=key_id, origin=ORIGIN, root=root, nonce=os.urandom(12), **options)


class Journal:
    """An events log that a test may spoil: four events of ACME, the last two with blobs, then one of another member."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.log = NumberedLog()
        self.disk: MemoryDisk = self.log.disk
        self.events: list[Mapping[str, Any]] = [
            SMALL,
            SMALL | {"message": "second"},
            LARGE,
            LARGE | {"message": "y" * 2_000},
            SMALL,
        ]
        streams = [ACME] * 4 + [StreamName("other", "k8s-prod")]
        drafts = [draft_of(event, vault, stream=stream) for event, stream in zip(self.events, streams, strict=True)]
        self.log.commit(drafts)

    def open(self, index: int) -> OpenedEvent:
        return open_event(self.log.store, index, origin=ORIGIN, vault=self.vault)

    def change_row(self, index: int, **changes: Any) -> None:
        self.disk.payloads[index] = replace(self.disk.payloads[index], **changes)

    def record(self, index: int) -> bytes:
        record = self.disk.payloads[index].record
        assert record is not None
        return record

    def require_damaged(self, index: int) -> CorruptionError:
        """The event is refused by its name, and the others are read as before."""
        with pytest.raises(CorruptionError) as caught:
            self.open(index)
        assert caught.value.code == "payload-mismatch"
        assert f"the payload of event {index} " in caught.value.detail
        assert caught.value.hint
        return caught.value

    def require_whole(self, *, but: int | None = None) -> None:
        for index, event in enumerate(self.events):
            if index != but:
                assert self.open(index).event == event


@pytest.fixture
def journal(vault: Vault) -> Journal:
    return Journal(vault)


class TestWhole:
    def test_an_event_comes_back_as_it_was_sealed(self, journal: Journal) -> None:
        for index, event in enumerate(journal.events):
            opened = journal.open(index)
            assert opened.content is Content.OPEN
            assert opened.event == event
            assert list(opened.event) == list(event)
            assert opened.entry_bytes == journal.disk.entries[index]
            assert (opened.index, opened.entry.seq) == (index, index % 4)
            assert opened.payload is not None
            assert opened.payload.root() == opened.entry.root
            assert opened.payload.seed is not None

    def test_the_texts_are_the_sealed_ones(self, journal: Journal) -> None:
        texts = journal.open(0).texts
        assert texts[0] is not None
        assert texts[0].startswith(
            b'["translog",{"v":1,"origin":"log.example/test","member":"acme","stream":"k8s-prod","names":["metadata"'
        )
        assert texts[3] == '["message","gr\u00f6\u00dfe \U0001f332"]'.encode()
        assert len(texts) == 5

    def test_large_fields_are_put_back_and_small_ones_that_look_like_them(self, journal: Journal) -> None:
        assert journal.disk.payloads[2].blobs == 4
        assert len(journal.record(2)) < BLOB_BYTES_MIN
        assert journal.open(2).event == LARGE

    def test_nothing_private_is_printed(self, journal: Journal) -> None:
        assert "gr\u00f6" not in repr(journal.open(0))

    def test_a_field_that_was_erased_is_not_there_and_the_rest_is(self, journal: Journal) -> None:
        payload = journal.open(1).payload
        assert payload is not None
        erased = payload.erase(3)
        journal.change_row(1, record=encrypt(encode_plain(erased), payload.root(), journal.vault))
        opened = journal.open(1)
        assert opened.event == {name: value for name, value in journal.events[1].items() if name != "message"}
        assert [text is None for text in opened.texts] == [False, False, False, True, False]


class TestWithoutContent:
    def take(self, journal: Journal, record: bytes | None) -> OpenedEvent:
        journal.log.commit([Draft(stream=AGENT, root=bytes(32), record=record, seq=0)])
        return journal.open(5)

    def test_a_payload_that_was_never_given_is_said_so(self, journal: Journal) -> None:
        opened = self.take(journal, None)
        assert (opened.content.value, opened.event, opened.payload, opened.texts) == ("never given", None, None, [])
        assert (opened.entry.stream, opened.entry.numbered) == ("agent", Numbered.SENDER)

    @pytest.mark.parametrize("record", [b"", b"\x00", b"\x02", b"\x02\x06acme/1" + bytes(50), b"\xff" * 100])
    def test_a_record_for_the_members_readers_only_is_opaque(self, journal: Journal, record: bytes) -> None:
        opened = self.take(journal, record)
        assert (opened.content.value, opened.event, opened.payload) == ("opaque record", None, None)

    def test_what_a_sender_sealed_is_opened(self, journal: Journal) -> None:
        draft = draft_of(SMALL, journal.vault, stream=AGENT)
        journal.log.commit([replace(draft, seq=0)])
        assert journal.open(5).event == SMALL

    @pytest.mark.parametrize("changes", [{"blobs": 1}, {"uid_key": bytes(16), "mac": bytes(16)}])
    @pytest.mark.parametrize("record", [None, b"\x02"])
    def test_what_the_log_cannot_have_written_beside_it_is_damage(
        self, journal: Journal, record: bytes | None, changes: dict[str, Any]
    ) -> None:
        self.take(journal, record)
        journal.change_row(5, **changes)
        journal.require_damaged(5)


class TestNoEvent:
    def test_an_entry_of_another_kind_is_no_event(self, journal: Journal) -> None:
        note = format_stream_checkpoint(StreamCheckpoint(member="acme", stream="agent", note=b"a note\n"))
        journal.log.commit([Note(entry=note), Note(entry=b"\x00 anything")])
        for index in (5, 6):
            with pytest.raises(NotFoundError) as caught:
                journal.open(index)
            assert caught.value.code == "not-an-event"

    @pytest.mark.parametrize("index", [5, 6, 2**63 - 1])
    def test_beyond_the_log_there_is_none(self, journal: Journal, index: int) -> None:
        with pytest.raises(NotFoundError):
            journal.open(index)


class TestMoved:
    def test_a_payload_at_another_entry_is_damage(self, journal: Journal) -> None:
        journal.disk.payloads[0] = journal.disk.payloads[1]
        journal.require_damaged(0)
        journal.require_whole(but=0)

    def test_payloads_that_were_swapped_are_damage_both(self, journal: Journal) -> None:
        payloads = journal.disk.payloads
        payloads[0], payloads[1] = payloads[1], payloads[0]
        for index in (0, 1):
            journal.require_damaged(index)
        assert journal.open(2).event == LARGE

    def test_a_record_of_another_members_event_is_damage(self, journal: Journal) -> None:
        journal.change_row(0, record=journal.record(4))
        journal.require_damaged(0)

    @pytest.mark.parametrize(
        "sealed_for", [StreamName("acme", "k8s-test"), StreamName("other", "k8s-prod"), StreamName("a", "b")]
    )
    def test_a_payload_sealed_for_another_stream_is_damage(self, journal: Journal, sealed_for: StreamName) -> None:
        """It hashes to the entry's root, and opens; only its header tells."""
        journal.log.commit([draft_of(SMALL, journal.vault, sealed_for=sealed_for)])
        assert "another log, member or stream" in journal.require_damaged(5).detail

    def test_a_payload_under_another_members_key_is_damage(self, journal: Journal) -> None:
        payload = journal.open(0).payload
        assert payload is not None
        record = encrypt(encode_plain(payload), payload.root(), journal.vault, stream=StreamName("other", "k8s-prod"))
        journal.change_row(0, record=record)
        journal.require_damaged(0)

    def test_a_whole_log_under_another_origin_is_damage(self, journal: Journal) -> None:
        with pytest.raises(CorruptionError):
            open_event(journal.log.store, 0, origin="log.example/other", vault=journal.vault)

    def test_a_payload_sealed_for_another_log_is_damage(self, journal: Journal) -> None:
        sealed = seal(SMALL, origin="log.example/other", member="acme", stream="k8s-prod", seed=bytes(32))
        record = encrypt(encode_plain(sealed), sealed.root, journal.vault)
        journal.log.commit([Draft(stream=ACME, root=sealed.root, record=record)])
        assert "another log, member or stream" in journal.require_damaged(5).detail


def other_seed(payload: Payload) -> bytes:
    return encode_plain(Sealed(texts=tuple(texts_of(payload)), seed=bytes(32), root=b""))


def changed_value(payload: Payload) -> bytes:
    assert payload.seed is not None
    texts = [text.replace(b"1.8.0", b"1.8.1") for text in texts_of(payload)]
    return encode_plain(Sealed(texts=tuple(texts), seed=payload.seed, root=b""))


def lost_field(payload: Payload) -> bytes:
    assert payload.seed is not None
    return encode_plain(Sealed(texts=tuple(texts_of(payload)[:-1]), seed=payload.seed, root=b""))


def no_payload(payload: Payload) -> bytes:
    return b"\x03" + encode_plain(payload)[1:]


def cut_short(payload: Payload) -> bytes:
    return encode_plain(payload)[:-1]


def texts_of(payload: Payload) -> list[bytes]:
    return [item.text for item in payload.fields if isinstance(item, Field)]


OF_THE_ID = range(2 + len("acme/"), 2 + len("acme/") + 8)
"""Where a record names which key of its member it is under."""


class TestChanged:
    def test_every_changed_byte_of_a_record_is_noticed(self, journal: Journal) -> None:
        record = journal.record(0)
        unknown = []
        for at in range(len(record)):
            for bit in (0, 7):
                changed = bytearray(record)
                changed[at] ^= 1 << bit
                journal.change_row(0, record=bytes(changed))
                try:
                    journal.open(0)
                except CorruptionError as error:
                    assert error.code == "payload-mismatch"  # noqa: PT017  one of two outcomes
                except NotFoundError as error:
                    assert error.code == "key-unknown"  # noqa: PT017
                    unknown.append(at)
                else:
                    pytest.fail(f"byte {at} was changed, and nobody noticed")
        assert set(OF_THE_ID) <= set(unknown) <= {1, *OF_THE_ID}  # and the id's length; between them is the member
        journal.change_row(0, record=record)
        journal.require_whole()

    def test_every_cut_of_a_record_is_noticed(self, journal: Journal) -> None:
        record = journal.record(0)
        for end in range(len(record)):
            journal.change_row(0, record=record[:end])
            journal.require_damaged(0)
        journal.change_row(0, record=record + b"\x00")
        journal.require_damaged(0)

    @pytest.mark.parametrize(
        "forge", [other_seed, changed_value, lost_field, no_payload, cut_short], ids=lambda made: made.__name__
    )
    def test_a_payload_that_opens_and_is_not_the_one_sealed_is_damage(
        self, journal: Journal, forge: Callable[[Payload], bytes]
    ) -> None:
        """By somebody who has the keys."""
        opened = journal.open(0)
        assert opened.payload is not None
        journal.change_row(0, record=encrypt(forge(opened.payload), opened.entry.root, journal.vault))
        journal.require_damaged(0)

    @pytest.mark.parametrize(
        "texts",
        [
            lambda header: [header, b'["b",1]'],
            lambda header: [header],
            lambda header: [header, b'["a",1]', b'["b",1]'],
            lambda header: [header, b'["a",1'],
            lambda header: [b'["a",1]', header],
            lambda header: [header, b'["a",{"$blob":{"salt":"","sha256":"","size":1}}]'],
        ],
    )
    def test_texts_that_are_not_as_the_header_says_are_damage(
        self, journal: Journal, texts: Callable[[bytes], list[bytes]]
    ) -> None:
        header = seal({"a": 1}, origin=ORIGIN, member="acme", stream="k8s-prod", seed=bytes(32)).texts[0]
        payload = Payload(fields=tuple(Field(bytes([n]) * 16, text) for n, text in enumerate(texts(header))), seed=None)
        salted = encode_plain(payload)
        journal.log.commit([Draft(stream=ACME, root=payload.root(), record=encrypt(salted, payload.root(), journal.vault))])
        journal.require_damaged(5)

    @pytest.mark.parametrize("change", [b'"seq":0', b'"root":"'])
    def test_an_entry_that_was_changed_has_no_payload(self, journal: Journal, change: bytes) -> None:
        """The tree tells too, but nobody has asked it here."""
        entry = journal.disk.entries[0]
        at = entry.index(change) + len(change)
        swapped = b"/" if entry[at : at + 1] != b"/" else b"+"
        journal.disk.entries[0] = entry[:at] + (b"x" if change == b'"seq":0' else swapped) + entry[at + 1 :]
        journal.require_damaged(0)


class TestLost:
    def test_a_lost_payload_row_is_damage(self, journal: Journal) -> None:
        del journal.disk.payloads[1]
        journal.require_damaged(1)
        journal.require_whole(but=1)

    def test_a_lost_record_of_what_the_log_sealed_is_damage(self, journal: Journal) -> None:
        journal.disk.payloads[1] = PayloadRow(record=None)
        journal.require_damaged(1)

    @pytest.mark.parametrize("number", range(4))
    def test_a_lost_blob_is_damage(self, journal: Journal, number: int) -> None:
        del journal.disk.blobs[2, number]
        journal.require_damaged(2)
        journal.require_whole(but=2)

    def test_all_blobs_lost_and_none_counted_is_damage(self, journal: Journal) -> None:
        for number in range(4):
            del journal.disk.blobs[2, number]
        journal.change_row(2, blobs=0)
        journal.require_damaged(2)

    @pytest.mark.parametrize("count", [0, 3, 5])
    def test_a_count_that_is_not_that_of_the_blobs_is_damage(self, journal: Journal, count: int) -> None:
        journal.change_row(2, blobs=count)
        journal.require_damaged(2)
        journal.change_row(2, blobs=4)
        journal.require_whole()

    @pytest.mark.parametrize("index", [0, 2])
    def test_a_blob_too_many_is_damage(self, journal: Journal, index: int) -> None:
        count = journal.disk.payloads[index].blobs
        journal.disk.blobs[index, count] = journal.disk.blobs[2, 0]
        journal.require_damaged(index)
        journal.change_row(index, blobs=count + 1)
        journal.require_damaged(index)

    def test_a_key_that_the_vault_has_lost_is_named(self, journal: Journal, tmp_path: Path) -> None:
        Vault.create(tmp_path / "empty")
        wrapper = FileKeyWrapper(bytes(32), origin=ORIGIN, random_bytes=os.urandom)
        empty = Vault.open(tmp_path / "empty", wrapper=wrapper, random_bytes=os.urandom, now_ms=lambda: 1)
        with pytest.raises(NotFoundError) as caught:
            open_event(journal.log.store, 0, origin=ORIGIN, vault=empty)
        assert caught.value.code == "key-unknown"
        assert "'acme/" in caught.value.detail


class TestBlobs:
    def test_blobs_of_one_event_that_were_swapped_are_damage(self, journal: Journal) -> None:
        blobs = journal.disk.blobs
        blobs[2, 0], blobs[2, 1] = blobs[2, 1], blobs[2, 0]
        journal.require_damaged(2)
        journal.require_whole(but=2)

    def test_a_blob_of_another_event_is_damage(self, journal: Journal) -> None:
        journal.disk.blobs[2, 1] = journal.disk.blobs[3, 1]
        journal.require_damaged(2)

    def test_a_record_in_the_place_of_a_blob_is_damage(self, journal: Journal) -> None:
        journal.disk.blobs[2, 1] = journal.record(2)
        journal.require_damaged(2)

    def test_every_changed_byte_of_a_blob_is_noticed(self, journal: Journal) -> None:
        blob = journal.disk.blobs[2, 2]
        for at in range(len(blob)):
            changed = bytearray(blob)
            changed[at] ^= 1
            journal.disk.blobs[2, 2] = bytes(changed)
            with pytest.raises((CorruptionError, NotFoundError)) as caught:
                journal.open(2)
            assert caught.value.code == "payload-mismatch" or at in (1, *OF_THE_ID)

    @pytest.mark.parametrize("data", [b'{"$blob":"not one of ourz"}', b'{"$blob":"not one of ours"} ', b"", b'{"$blob":1}'])
    def test_a_blob_that_opens_and_is_not_the_one_sealed_is_damage(self, journal: Journal, data: bytes) -> None:
        """By somebody who has the keys."""
        opened = journal.open(2)
        assert opened.payload is not None
        reference = find_blobs(opened.payload.event())[2]
        record = encrypt(data, opened.entry.root, journal.vault, label=BLOB, blob_salt=reference.salt)
        journal.disk.blobs[2, 2] = record
        journal.require_damaged(2)


class TestOfARunningLog:
    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        return World(tmp_path, meta=EVENTS_META)

    async def test_events_are_read_as_soon_as_they_are_committed(self, world: World, vault: Vault) -> None:
        async with world.running() as service:
            events = EventStore(service, vault)
            for index, event in enumerate([SMALL, LARGE]):
                sequenced = await service.append_events([draft_of(event, vault)])
                assert sequenced.first == index
                assert (await events.read_event(index)).event == event
            with pytest.raises(NotFoundError):
                await events.read_event(2)
            assert service.mode is Mode.OPEN

    async def test_they_are_there_after_a_restart(self, world: World, vault: Vault) -> None:
        async with world.running() as service:
            await service.append_events([draft_of(SMALL, vault), draft_of(LARGE, vault)])
        async with world.running() as service:
            events = EventStore(service, vault)
            assert [(await events.read_event(index)).event for index in (0, 1)] == [SMALL, LARGE]

    async def test_damage_of_one_event_is_told_once_and_holds_nothing(self, world: World, vault: Vault) -> None:
        async with world.running() as service:
            await service.append_events([draft_of(SMALL, vault), draft_of(SMALL, vault)])
            world.disk.payloads[1] = world.disk.payloads[0]
            events = EventStore(service, vault)
            with capture_logs() as lines:
                for _ in range(3):
                    with pytest.raises(CorruptionError, match="event 1 ") as caught:
                        await events.read_event(1)
                    assert caught.value.code == "payload-mismatch"
            assert [(line["log_level"], line["index"]) for line in lines] == [("critical", 1)]
            assert service.mode is Mode.OPEN
            await service.append_events([draft_of(SMALL, vault)])
            assert (await events.read_event(0)).event == SMALL

    async def test_damage_of_the_store_holds_the_log(self, world: World, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise CorruptionError("the store is damaged")

        async with world.running() as service:
            await service.append_events([draft_of(SMALL, vault)])
            monkeypatch.setattr(MemoryStore, "read_payloads", fail)
            with pytest.raises(CorruptionError):
                await EventStore(service, vault).read_event(0)
            assert service.mode is Mode.HELD
            with pytest.raises(HeldError):
                await service.append_events([draft_of(SMALL, vault)])

    async def test_what_is_not_found_holds_nothing(self, world: World, vault: Vault, tmp_path: Path) -> None:
        async with world.running() as service:
            await service.append_events([draft_of(SMALL, vault)])
            Vault.create(tmp_path / "empty")
            wrapper = FileKeyWrapper(bytes(32), origin=ORIGIN, random_bytes=os.urandom)
            empty = Vault.open(tmp_path / "empty", wrapper=wrapper, random_bytes=os.urandom, now_ms=lambda: 1)
            with pytest.raises(NotFoundError):
                await EventStore(service, empty).read_event(0)
            assert service.mode is Mode.OPEN

    async def test_while_the_log_is_opened_anew_reading_is_a_storage_error(self, world: World, vault: Vault) -> None:
        service = world.service()
        with pytest.raises(StorageError):
            await EventStore(service, vault).read_event(0)
        await service.start()
        await until(lambda: service.mode is Mode.OPEN)
        await service.stop(drain_ms=0)
        with pytest.raises(StorageError):
            await EventStore(service, vault).read_event(0)
