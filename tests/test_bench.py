"""The benchmark measures what it says: its rows are there, its table is right, its load is counted, a small run works.

What the figures are is nobody's business here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import structlog

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from benchmarks import __main__ as program  # noqa: E402
from benchmarks import (  # noqa: E402
    append_rows,
    event_load,
    event_profile,
    event_records,
    event_rows,
    floors,
    litewitness,
    load,
    local_witnesses,
    processes,
    publication_rows,
    read_rows,
    store_rows,
    stores,
    table,
    verify_rows,
    witness_requests,
    witness_rows,
)
from benchmarks.figures import Figure, Target, not_available, repeat, show_number  # noqa: E402
from benchmarks.rows import ROWS, Row  # noqa: E402
from benchmarks.workshop import QUICK, Plan, Workshop  # noqa: E402

from translog.bootstrap import create_log  # noqa: E402
from translog.core.note import parse_note  # noqa: E402
from translog.core.policy import parse_policy, require_quorum  # noqa: E402
from translog.errors import QuorumError  # noqa: E402
from translog.events.normalize import normalize  # noqa: E402
from translog.events.sources.table import SOURCES  # noqa: E402
from translog.storage.store import Profile  # noqa: E402
from translog.witness.protocol import parse_add_checkpoint  # noqa: E402

TINY = replace(
    QUICK,
    syncs=3,
    lone_appends=5,
    proof_entries=600,
    receipts=20,
    cold_starts=1,
    disk_entries=2_000,
    events=3_000,
    growth_marks=(1_000, 2_000),
    witnesses=(0, 5),
    witness_requests=5,
    receipt_sizes=(10, 600),
)
MET = Figure(
    row=2, what="CPU", unit="ms", ours=(0.09, 0.06, 0.07), floor=(0.02, 0.03, 0.01), floor_name="ms: aiohttp",
    target=Target(limit=0.08, lower=True, unit="ms"), method="so",
)  # fmt: skip
MISSED = Figure(
    row=6, what="tiles", unit="/s", ours=[4_000] * 3, floor=[10_000] * 3, floor_name="/s: aiohttp", method="so|so",
    target=Target(limit=0.9, of_ratio=True),
)  # fmt: skip


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    """The program configures logging for its process, which here is everybody's."""
    config, configured = structlog.get_config(), structlog.is_configured()
    yield
    if configured:
        structlog.configure(**config)
    else:
        structlog.reset_defaults()


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(TINY, tmp_path, programs=tmp_path / "programs")


def test_rows_have_the_numbers_of_the_list_of_targets() -> None:
    assert {number: row.measure for number, row in ROWS.items()} == {
        1: append_rows.lone_append,
        2: append_rows.many_writers,
        3: append_rows.batches,
        4: event_rows.audit_events,
        5: read_rows.proofs,
        6: read_rows.tiles,
        7: verify_rows.verification,
        8: store_rows.growth,
        9: store_rows.disk,
        10: store_rows.fsck,
        14: publication_rows.publication,
        15: witness_rows.cosigning,
        16: witness_rows.receipt_sizes,
    }


def test_a_figure_is_a_median_beside_a_median() -> None:
    assert (MET.value, MET.floor_value, MET.is_met) == (0.07, 0.02, True)
    assert MET.ratio == pytest.approx(3.5)
    assert (MISSED.ratio, MISSED.is_met) == (0.4, False)
    assert replace(MISSED, floor=()).is_met is None
    assert replace(MET, target=None).is_met is None
    assert not_available(3, "x", "y").value is None


@pytest.mark.parametrize("plan", [Plan(), QUICK])
def test_no_reading_stands_alone(plan: Plan) -> None:
    assert plan.readings >= 3
    taken: list[str] = []

    def take(name: str) -> float:
        taken.append(name)
        return len(taken)

    assert repeat(1, lambda: take("ours"), lambda: take("floor")) == [[1, 3, 5], [2, 4, 6]]
    assert taken == ["ours", "floor"] * 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.04342, "0.0434"),
        (0.9, "0.9"),
        (1.0, "1"),
        (12.34, "12.3"),
        (123.4, "123"),
        (98_765.4, "98,765"),
        (100, "100"),
    ],
)
def test_numbers_are_shown_to_three_digits(value: float, shown: str) -> None:
    assert show_number(value) == shown


def test_the_table_has_every_figure_and_every_method_once() -> None:
    text = table.format_table([MET, MET, MISSED, not_available(10, "fsck", "none here")])
    lines = text.splitlines()
    assert lines[0].split() == ["row", "what", "ours", "floor", "or", "peer", "ratio", "target", "met"]
    assert lines[2].split() == ["2", "CPU", "0.07", "ms", "0.02", "ms:", "aiohttp", "3.5x", "≤", "0.08", "ms", "yes"]
    assert lines[4].split() == ["6", "tiles", "4,000", "/s", "10,000", "/s:", "aiohttp", "0.4x", "≥", "0.9x", "NO"]
    assert lines[5].split() == ["10", "fsck", "not", "available:", "none", "here"]
    assert text.count("row 2: so") == 1
    assert lines[0].index("floor") == lines[2].index("0.02") == lines[4].index("10,000")


def test_markdown_has_the_machine_the_table_and_the_methods() -> None:
    lines = table.format_markdown({"machine": "m"}, [MISSED]).splitlines()
    assert lines[0] == "- machine: m"
    assert lines[2] == "| row | what | ours | floor or peer | ratio | target | met |"
    assert lines[4] == "| 6 | tiles | 4,000 /s | 10,000 /s: aiohttp | 0.4x | ≥ 0.9x | NO |"
    assert lines[-1] == "- row 6: so|so"


def test_a_small_run_prints_its_table_and_writes_its_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "QUICK", TINY)
    written = tmp_path / "figures.json"
    assert program.main(["--quick", "7", "9", "--dir", str(tmp_path / "work"), "--json", str(written)]) == 0
    printed = capsys.readouterr().out
    document = json.loads(written.read_text("utf-8"))
    assert [figure["row"] for figure in document["figures"]] == [7, 7, 9, 9, 9, 9]
    measured = [figure for figure in document["figures"] if not figure["note"].startswith("not available: no CloudTrail")]
    assert all(len(figure["ours_readings"]) >= 3 and figure["floor"] > 0 for figure in measured)
    assert all(figure["what"] in printed for figure in document["figures"])
    assert {"machine", "filesystem", "python", "versions", "commit", "run"} == set(document["machine"]) - {"kernel"}
    incompressible = document["figures"][2]
    assert 1.0 < incompressible["ours"] < 2.0
    assert list((tmp_path / "work").iterdir()) == []


def test_a_row_that_breaks_says_so_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(shop: Workshop) -> NoReturn:
        raise RuntimeError("the disk fell out")

    rows = {1: Row(title="one", measure=break_down), 2: Row(title="two", measure=lambda shop: [MET])}
    monkeypatch.setattr(program, "ROWS", rows)
    assert program.main(["--dir", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "it broke: the disk fell out" in printed
    assert "3.5x" in printed


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["11"]) == 2
    assert "no row 11" in capsys.readouterr().err


def test_rows_whose_program_or_peer_is_missing_say_so(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot_install(programs: Path) -> NoReturn:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(append_rows, "find_pymerkle", cannot_install)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(store_rows, "COMMANDS", {})
    for row in (2, 3, 5, 6, 10):
        figures = ROWS[row].measure(shop)
        assert figures
        assert all("not available" in table.cells(figure)[2] for figure in figures), row


def fake_wrk(folder: Path, figures: str) -> None:
    path = folder / "wrk"
    path.write_text(f'#!/bin/sh\necho "$@" >{folder}/arguments\necho "FIGURES {figures}"\n', "utf-8")
    path.chmod(0o700)


def test_load_is_counted_and_an_answer_that_is_an_error_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    server = processes.Server(pid=os.getpid(), url="http://127.0.0.1:1")
    fake_wrk(tmp_path, "400 2000000 0 0 1500")
    measured = load.get_load(server, tmp_path / "paths", connections=7, seconds=2)
    assert (measured.rate, measured.p99_ms) == (200, 1.5)
    assert replace(measured, cpu_s=0.1).cpu_ms == pytest.approx(0.25)
    assert replace(measured, cpu_s=0.1).rate_per_core == pytest.approx(4_000)
    assert "-t1 -c7 -d2s" in (tmp_path / "arguments").read_text("utf-8")
    for figures in ("400 2000000 1 0 1500", "400 2000000 0 1 1500", "0 2000000 0 0 0"):
        fake_wrk(tmp_path, figures)
        with pytest.raises(RuntimeError):
            load.get_load(server, tmp_path / "paths", connections=7, seconds=2)


def test_a_lone_client_takes_only_200_and_the_server_is_stopped_in_the_end(tmp_path: Path) -> None:
    command = processes.command_of_module("constant_server", 1)
    with processes.running(command, log=tmp_path / "log") as server:
        assert len(load.lone_posts(server, "/add", b"entry", count=3)) == 3
        assert server.cpu_s() > 0
        with pytest.raises(RuntimeError, match="400"):
            load.lone_posts(server, "/a path that is none", b"entry", count=1)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


def test_a_server_that_does_not_start_is_told_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no port')"]
    with pytest.raises(RuntimeError, match="no port"), processes.running(command, log=tmp_path / "log"):
        pytest.fail("it runs")


@pytest.mark.parametrize("kind", ["text", "binary", "json"])
def test_entries_are_unlike_of_the_right_size_and_fit_their_format(kind: str) -> None:
    entries = stores.Entries(kind, 1_000).take(0, 300)
    assert {len(entry) for entry in entries} == {1_000}
    assert len(set(entries)) == 300
    if kind == "text":
        assert not any(b"\n" in entry for entry in entries)
    if kind == "json":
        assert json.loads(entries[0])["actor"]["type"] == "user"


def test_a_filled_log_is_one_the_service_opens(shop: Workshop) -> None:
    directory, _ = shop.filled_log(count=1_234, entry_bytes=40)
    assert shop.filled_log(count=1_234, entry_bytes=40)[0] == directory
    assert float(processes.run_module("growth", "open", directory)) > 0
    grown = json.loads(processes.run_module("growth", "grow", directory, 2_000, 20_000, 40))
    assert grown["size"] == 20_000
    assert 1 <= len(grown["rates"]) <= 3
    assert all(rate > 0 for rate in grown["rates"])
    assert min(grown["begin_mb"], grown["end_mb"]) > 0


def test_floors_are_taken(tmp_path: Path) -> None:
    assert floors.sync_s(tmp_path, count=3) > 0
    assert list(tmp_path.iterdir()) == []
    assert floors.hashes_on_all_cores_per_s(entry_bytes=100, count=1_000) > 0
    per_s, per_cpu_s = floors.leveldb_batches_per_s(tmp_path, entry_bytes=100, batch_entries=10, seconds=0.01)
    assert per_s > 0
    assert per_cpu_s > 0
    assert min(floors.sqlite_commit_s(tmp_path, row_bytes=100, count=10)) > 0


def test_records_are_unlike_and_the_same_again() -> None:
    for source in ("events", "kubernetes"):
        records = event_records.Records(source)
        made = records.take(0, 1_500)
        assert len(set(made)) == 1_500
        assert made == event_records.Records(source).take(0, 1_500)
        assert set(made).isdisjoint(records.take(1_500, 500))
        known = SOURCES[source].split(records.join(made), {"content-type": records.content_type}, 2_000)
        assert [one.raw for one in known] == made
        done = [normalize(SOURCES[source], one) for one in known]
        assert len({one.uid for one in done}) == 1_500
        assert {one.event["class_uid"] for one in done} == {6003}


def test_without_real_records_the_rest_is_measured(shop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(event_records, "CLOUDTRAIL", tmp_path)
    with pytest.raises(processes.UnavailableError):
        event_records.Records("cloudtrail")
    figures = event_rows.disk(shop)
    assert [figure.value is None for figure in figures] == [True, False]


def test_an_event_load_is_counted_and_an_error_ends_it(shop: Workshop) -> None:
    directory, _ = shop.new_log("events", profile=Profile.EVENTS)
    with processes.serve_log(directory) as server:
        found = event_load.event_load(server, "events", start=0, events=700, batch=300, connections=2)
        assert found.marks[-1].events == 700
        assert len(found.waits) == 3
        assert found.record_bytes == sum(map(len, event_records.Records("events").take(0, 700)))
        assert found.part(0, 700)[0] > 0
        timed = event_load.event_load(server, "events", start=10_000, events=0, batch=100, connections=1, seconds=0.2)
        assert timed.marks[-1].events >= 100
    directory, _ = shop.new_log("opaque")
    with processes.serve_log(directory) as server, pytest.raises(RuntimeError, match="answered"):
        event_load.event_load(server, "events", start=0, events=300, batch=300, connections=1)


def test_stages_are_taken(tmp_path: Path) -> None:
    taken = event_profile.profile_stages("events", tmp_path, events=1_000)
    assert tuple(taken) == event_profile.STAGES
    assert all(taken[stage] > 0 for stage in ("split", "map", "seal", "encrypt", "number", "commit"))
    assert floors.event_us(tmp_path, [b"{}"] * 100, leaves=3, entry_bytes=100, row_bytes=100) > 0


def test_percentiles_are_values_that_were_taken() -> None:
    assert load.percentile([5, 1, 2, 3, 4], 0.5) in (2, 3)
    assert load.percentile(range(1, 101), 0.99) == 99
    assert load.percentile([7], 0.99) == 7


def offered(name: str, keys: str) -> witness_requests.OfferedLog:
    types = [local_witnesses.LOG_TYPE[key] for key in local_witnesses.KEY_SETS[keys]]
    return witness_requests.OfferedLog(skeys=local_witnesses.new_skeys(name, types))


def test_a_policy_of_local_witnesses_asks_for_more_than_half_of_them() -> None:
    vkeys = [offered(local_witnesses.witness_name(number), "Ed25519").vkeys for number in range(4)]
    cosigners = [local_witnesses.new_skeys(keys[0].name, local_witnesses.WITNESS_TYPE.values()) for keys in vkeys]
    log = f"log {offered('log.example', 'Ed25519').vkeys[0]}\n"
    lines = local_witnesses.majority_lines([[skey.vkey for skey in skeys] for skeys in cosigners], ["http://a"] * 4)
    policy = parse_policy((log + lines).encode())
    assert len(policy.witnesses) == 8
    assert {witness.url for witness in policy.witnesses.values()} == {"http://a"}
    require_quorum(policy, ["w0-ed25519", "w2-ml-dsa-44", "w3-ed25519"])
    with pytest.raises(QuorumError):
        require_quorum(policy, ["w0-ed25519", "w0-ml-dsa-44", "w1-ed25519"])
    assert parse_policy((log + local_witnesses.majority_lines([])).encode()).quorum == "none"


def test_a_witness_takes_prepared_requests_once_and_in_order(shop: Workshop) -> None:
    steps = witness_requests.grow_steps(first=300, count=3)
    assert [(step.old, step.size) for step in steps] == [(0, 300), (300, 307), (307, 314)]
    logs = [offered(f"log-{number}.example", "both") for number in range(3)]
    assert len(parse_note(parse_add_checkpoint(logs[0].request(steps[1])).note).signatures) == 2
    witness = local_witnesses.make_witness(shop.new_path("w"), name="w.example", logs=[log.vkeys for log in logs])
    with local_witnesses.serve_witness(witness) as server:
        for step in steps[:2]:
            load = witness_requests.ask_load(server, [[log.request(step)] for log in logs], cpu_of=[server])
            assert load.requests == 3
            assert load.seconds > 0
        with pytest.raises(RuntimeError, match="409"):
            witness_requests.ask_load(server, [[logs[0].request(steps[1])]])
        assert len(witness_requests.ask_together([server], [logs[0].request(steps[2])], wanted=1)) == 1
        with pytest.raises(RuntimeError, match="409"):
            witness_requests.ask_together([server], [logs[0].request(steps[1])], wanted=1)


def test_cosigning_is_rated_over_http_and_in_process(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_rows, "_RATED", ("Ed25519",))
    figures = witness_rows.cosigning(shop)
    assert [figure.value is None for figure in figures] == ([False] * 4 + [True]) * 2
    assert all(len(figure.ours) == len(figure.floor) == 3 and min(figure.floor) > 0 for figure in figures if figure.value)
    assert "--peers" in figures[4].note


def test_without_go_litewitness_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(processes.UnavailableError):
        litewitness.build(tmp_path)
    assert litewitness.version().startswith("v")


def test_receipts_are_of_real_notes_and_grow_by_the_same_with_every_witness(shop: Workshop) -> None:
    found = {figure.what: figure.ours[0] for figure in witness_rows.receipt_sizes(shop)}
    assert len(found) == 2 * 3 * 2
    line = len("\u2014 witness-00.example.org \n".encode())
    for size in shop.plan.receipt_sizes:
        with_witnesses = [found[f"receipt at {size:,}, {keys}, 5 witnesses"] for keys in ("Ed25519", "ML-DSA-44", "both")]
        without = [found[f"receipt at {size:,}, {keys}, 0 witnesses"] for keys in ("Ed25519", "ML-DSA-44", "both")]
        grown = [more - less for more, less in zip(with_witnesses, without, strict=True)]
        assert grown == [5 * (line + 104), 5 * (line + 3_244), 5 * (2 * line + 104 + 3_244)]


def test_publication_waits_for_witnesses_that_are_there(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_wrk() -> NoReturn:
        raise processes.UnavailableError("no wrk")

    monkeypatch.setattr(publication_rows, "find_wrk", no_wrk)
    figures = publication_rows.publication(shop)
    assert [figure.what for figure in figures[:-1]] == [
        "lone append, published, no witnesses, p50",
        "lone append, published, no witnesses, p99",
        "lone append, published, 5 witnesses, p50",
        "lone append, published, 5 witnesses, p99",
        "5 witnesses asked at once: answer 3, p50",
        "lone append, published, 5 witnesses, one dead and one slow, p50",
        "lone append, published, 5 witnesses, one dead and one slow, p99",
    ]
    assert all(len(figure.ours) >= 3 for figure in figures[:-1])
    assert figures[5].value is not None
    assert figures[5].value < 1_000  # the slow one was not waited for
    assert "no wrk" in figures[-1].note


def test_checkpoints_published_under_load_are_counted(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fake_wrk(tmp_path, "400 2000000 0 0 1500")
    with (tmp_path / "wrk").open("a") as script:
        script.write("sleep 0.5\n")
    directory, admin = shop.new_path("loaded"), f"127.0.0.1:{processes.free_port()}"
    create_log(directory, origin="bench.example/loaded", profile=Profile.OPAQUE)
    with processes.serve_log(directory, admin=admin) as server:
        loaded = publication_rows._load(server, admin, tmp_path / "entry", 2)
    assert loaded.entries_per_s == 200
    assert loaded.published_per_s > 0
    assert len(loaded.waits_ms) >= 1


def test_the_launcher_is_there() -> None:
    assert os.access(ROOT / "scripts" / "bench", os.X_OK)
