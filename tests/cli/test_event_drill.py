"""The restore drill of a log of events, by the commands of the guide: real records in, everything lost, everything back.

Rules: the log is served by a process of its own, as its members know it; what is compared is what they read.
"""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cli.harness import Result, require_plain, run, serving

ORIGIN = "log.example/drill"
RESUME = "--nothing-newer-was-signed"


def done(result: Result) -> Any:
    assert result.code == 0, result.err
    return json.loads(result.out)


def submit(url: str, policy: Path, *files: Path) -> Any:
    """Sends delivery files; what became of the records."""
    return done(
        run("submit", "--log", url, "--source", "cloudtrail", "--stream", "trail", "--policy", policy, "--json", *files)
    )


def read(url: str, path: str) -> Any:
    with urllib.request.urlopen(f"{url}{path}") as answer:
        return json.load(answer)


def events(url: str, indexes: list[int]) -> list[Any]:
    """The events, once the newest of them is published."""
    while read(url, "/v1/log")["published_size"] <= max(indexes):
        pass
    return [read(url, f"/v1/events/{index}")["event"] for index in indexes]


class Drill:
    """A log that was served, its backup and its key store; then it is gone."""

    def __init__(self, home: Path, files: list[Path]) -> None:
        self.home, self.files = home, files
        self.log, self.out, self.vault, self.safe, self.new = (home / name for name in ("log", "out", "vault", "safe", "new"))
        self.policy = home / "policy"
        assert run("init", self.log, "--origin", ORIGIN).code == 0

    def fill(self) -> None:
        with serving(self.log) as server:
            assert run("policy", "--log", server.url, "-o", self.policy).code == 0
            report = submit(server.url, self.policy, *self.files)
            assert report["duplicates"] == 0
            self.indexes = report["indexes"]
            self.events = events(server.url, self.indexes)
            self.streams = self.streams_at(server.url)
            assert server.stop() == 0
        self.size = done(run("fsck", self.log, "--json"))["size"]

    def streams_at(self, url: str) -> list[Any]:
        """Where the members' streams are; the log's own goes on by itself."""
        found: list[Any] = read(url, "/v1/streams")["streams"]
        names = ("member", "stream", "numbered", "count", "last_index", "last_received_at")
        return [{name: stream[name] for name in names} for stream in found if stream["member"] != "log"]

    def back_up(self) -> Any:
        return done(run("backup", self.log, self.out, "--vault", self.vault, "--json"))

    def lose(self) -> None:
        """What the owner keeps elsewhere stays: keys, settings, and the last head."""
        self.safe.mkdir()
        for name in ("keys", "head", "translog.toml"):
            (self.log / name).rename(self.safe / name)
        shutil.rmtree(self.log)


@pytest.fixture
def drill(tmp_path: Path, shared: Path) -> Drill:
    files = sorted((shared / "data" / "cloudtrail").glob("*.json"), key=lambda path: path.stat().st_size)[20:26]
    drill = Drill(tmp_path, files)
    drill.fill()
    return drill


def test_everything_lost_comes_back(drill: Drill) -> None:
    report = done(run("fsck", drill.log, "--json"))
    assert report["good"]["payloads"] == report["good"]["events"] > 20
    document = drill.back_up()
    assert (document["ok"], document["payloads"]) == (True, drill.size)
    drill.lose()
    report = done(run("fsck", drill.out, "--policy", drill.policy, "--json"))
    assert report["excepted"] == {"not opened": drill.size}
    keys = ["--keys", drill.safe / "keys", "--vault", drill.vault]
    report = done(run("fsck", drill.out, "--policy", drill.policy, *keys, "--json"))
    assert (report["good"]["payloads"], report["excepted"]) == (drill.size, {})
    restored = done(run("restore", drill.out, drill.new, *keys, "--head", drill.safe / "head", "--json"))
    assert (restored["may_sign"], restored["unreadable"], restored["damages"]) == (True, 0, [])
    shutil.copy(drill.safe / "translog.toml", drill.new)
    assert done(run("fsck", drill.new, "--json"))["good"]["payloads"] == drill.size
    with serving(drill.new) as server:
        assert events(server.url, drill.indexes) == drill.events
        assert drill.streams_at(server.url) == drill.streams
        again = submit(server.url, drill.policy, *drill.files)
        assert (again["logged"], again["duplicates"]) == (0, len(drill.indexes))
        assert again["indexes"] == drill.indexes
        assert drill.streams_at(server.url) == drill.streams
        assert server.stop() == 0


def test_without_the_key_store_it_says_what_will_be_lost_and_then_what_is(drill: Drill) -> None:
    drill.back_up()
    drill.lose()
    refused = run("restore", drill.out, drill.new, "--keys", drill.safe / "keys")
    lines = require_plain(refused, 4)
    assert f"the payloads of {drill.size} entries" in lines[0]
    assert "--without-vault" in lines[1]
    assert not drill.new.exists()
    both = run("restore", drill.out, drill.new, "--vault", drill.vault, "--without-vault")
    assert (both.code, both.raw) == (2, b"")
    assert "contradict each other" in both.err
    options = ["--keys", drill.safe / "keys", "--head", drill.safe / "head", "--without-vault"]
    result = run("restore", drill.out, drill.new, *options)
    assert result.code == 0, result.err
    assert f"{drill.size} payloads are under keys that are not here: nobody can read them" in result.out
    shutil.copy(drill.safe / "translog.toml", drill.new)
    with serving(drill.new) as server:
        again = submit(server.url, drill.policy, *drill.files)
        assert (again["logged"], again["duplicates"]) == (0, len(drill.indexes))
        with pytest.raises(urllib.error.HTTPError) as caught:
            read(server.url, f"/v1/events/{drill.indexes[0]}")
        with caught.value as answer:
            assert answer.code == 404
        assert read(server.url, "/readyz")["status"] == "open"
        assert server.stop() == 0


def test_a_backup_over_http_has_no_payloads_and_says_so(drill: Drill) -> None:
    with serving(drill.log) as server:
        result = run("backup", server.url, drill.out, "--policy", drill.policy)
        assert result.code == 0, result.err
        assert f"the payloads of {drill.size} entries are not in it" in result.out
        refused = run("backup", server.url, drill.out, "--policy", drill.policy, "--vault", drill.vault)
        assert "has no key store to be copied" in require_plain(refused, 4)[0]
        assert server.stop() == 0
    assert not (drill.out / "private").exists()
    document = drill.back_up()
    assert document["payloads"] == drill.size
    assert document["new_entries"] == 0


def test_a_backup_says_whether_the_key_store_went_along(drill: Drill) -> None:
    result = run("backup", drill.log, drill.out)
    assert "the key store is not in it" in result.out
    result = run("backup", drill.log, drill.out, "--vault", drill.vault)
    assert f"the key store is in {drill.vault}" in result.out
