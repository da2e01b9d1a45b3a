"""Rows 15 and 16: what a witness takes to cosign, and what receipts weigh with cosignatures in them.

Durable means here: the checkpoint is in SQLite's log, written and fsynced, before the answer, one transaction each.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import floors, litewitness
from benchmarks.figures import Figure, not_available
from benchmarks.load import Load
from benchmarks.local_witnesses import (
    KEY_SETS,
    LOG_TYPE,
    WITNESS_TYPE,
    majority_lines,
    make_witness,
    new_skeys,
    serve_witness,
    witness_name,
)
from benchmarks.processes import UnavailableError
from benchmarks.witness_requests import GrowingTree, OfferedLog, Step, ask_load, grow_steps
from benchmarks.workshop import Workshop
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import SIGNATURE_BYTES, SKey
from translog.core.merkle import hash_leaf
from translog.core.note import sign_note
from translog.core.policy import parse_policy
from translog.core.proof import Receipt, format_receipt, parse_receipt, verify_receipt
from translog.core.wire import HASH_BYTES
from translog.log.settings import SigningKey
from translog.witness.opening import open_witness

_CONNECTIONS = 8
_RATED = ("Ed25519", "both")
_PEER = "litewitness"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Requests:
    """Prepared requests of logs with one set of keys: `turns[n]` are queues, to be asked side by side, that build on those of
    the turns before."""

    keys: str
    crowd: str
    logs: tuple[OfferedLog, ...]
    turns: list[list[list[bytes]]]

    @property
    def what(self) -> str:
        return f"add-checkpoint, {self.keys}{' keys' if self.keys == 'both' else ''}, {self.crowd}"

    @property
    def sign_with(self) -> tuple[SigningKey, ...]:
        return KEY_SETS[self.keys]


def cosigning(shop: Workshop) -> list[Figure]:
    """Row 15."""
    plan = shop.plan
    count, turns = plan.witness_requests, max(plan.readings, 3) + 1
    steps = grow_steps(first=plan.proof_entries, count=count * turns)
    figures: list[Figure] = []
    for keys in _RATED:
        for requests in (_many_logs(keys, steps[:turns], count), _one_log(keys, steps, count)):
            found, loads = _rate(shop, requests)
            figures += found
            if keys == "Ed25519":
                figures += _beside_litewitness(shop, requests, loads)
    return figures


def _many_logs(keys: str, steps: Sequence[Step], count: int) -> _Requests:
    logs = tuple(_offered(f"log-{number:04d}.example.org", keys) for number in range(count))
    turns = [[[log.request(step) for log in logs[start::_CONNECTIONS]] for start in range(_CONNECTIONS)] for step in steps]
    return _Requests(keys=keys, crowd=f"{count:,} logs", logs=logs, turns=turns)


def _one_log(keys: str, steps: Sequence[Step], count: int) -> _Requests:
    log = _offered("log.example.org", keys)
    bodies = [log.request(step) for step in steps]
    turns = [[bodies[start : start + count]] for start in range(0, len(bodies), count)]
    return _Requests(keys=keys, crowd="one log", logs=(log,), turns=turns)


def _offered(name: str, keys: str) -> OfferedLog:
    return OfferedLog(skeys=new_skeys(name, [LOG_TYPE[key] for key in KEY_SETS[keys]]))


def _rate(shop: Workshop, requests: _Requests) -> tuple[list[Figure], list[Load]]:
    """Its lines, and the readings over HTTP."""
    plan = shop.plan
    vkeys = [log.vkeys for log in requests.logs]
    witnesses = [
        make_witness(shop.new_path(f"witness-{what}"), name=witness_name(0), logs=vkeys, sign_with=requests.sign_with)
        for what in ("served", "called")
    ]
    served: list[Load] = []
    called: list[Load] = []
    floor: list[tuple[float, float]] = []
    warm, *turns = requests.turns
    call = _caller(witnesses[1].directory)
    with serve_witness(witnesses[0]) as server:
        ask_load(server, warm)
        call(warm)
        for queues in turns:
            floor.append(_floor_s(shop, requests))
            served.append(ask_load(server, queues))
            called.append(call(queues))
    for witness in witnesses:
        shop.forget(witness.directory)
    kinds = "Ed25519 and ML-DSA-44" if requests.keys == "both" else "Ed25519"
    each = round(median(map(len, turns[0][0])))
    wall_s, cpu_s = (median(taken[part] for taken in floor) for part in (0, 1))
    method = (
        f"{len(served)} x {served[0].requests} prepared requests of {each:,} bytes and so, each moving its log on by one "
        f"checkpoint at {plan.proof_entries:,} entries and more; log and witness sign with {kinds}; each answered after a "
        f"transaction of SQLite (WAL, synchronous=FULL). Over HTTP: `translog witness serve`, {len(warm)} at a time; in "
        "process: Witness.add_checkpoint on one thread. A core is a second of processor time, all threads. Floor: the same "
        "verifications and signatures in Python, and one such transaction: "
        f"{1e3 * wall_s:.2f} ms of which {1e3 * cpu_s:.2f} are processor time"
    )
    name = "/s: signatures, SQLite"
    figures = [
        Figure(
            row=15,
            what=f"{requests.what}, {how}: {what}",
            unit="/s",
            ours=[value(load) for load in loads],
            floor=[1 / taken[part] for taken in floor],
            floor_name=name,
            method=method,
        )
        for how, loads in (("over HTTP", served), ("in process", called))
        for what, value, part in (("cosigned/s", _per_s, 0), ("cosigned/s per core", _per_core, 1))
    ]
    return figures, served


def _per_s(load: Load) -> float:
    return load.rate


def _per_core(load: Load) -> float:
    return load.rate_per_core


def _caller(directory: Path) -> Callable[[list[list[bytes]]], Load]:
    """What asks the witness there in this process, one request after the other."""
    witness = open_witness(directory, now_ms=lambda: time.time_ns() // 1_000_000)

    def call(queues: list[list[bytes]]) -> Load:
        bodies = [body for queue in queues for body in queue]
        begin, begin_cpu = time.perf_counter(), time.process_time()
        for body in bodies:
            witness.add_checkpoint(body, peer="127.0.0.1")
        seconds, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
        return Load(requests=len(bodies), seconds=seconds, cpu_s=cpu_s, p99_ms=0.0)

    return call


def _floor_s(shop: Workshop, requests: _Requests) -> tuple[float, float]:
    """Seconds, and processor seconds, of what a request cannot go below."""
    count = shop.plan.syncs
    crypto = sum(floors.verify_s(LOG_TYPE[key], count=count) for key in requests.sign_with)
    crypto += sum(floors.sign_s(WITNESS_TYPE[key], count=count) for key in requests.sign_with)
    wall, cpu = floors.sqlite_commit_s(shop.work, row_bytes=2 * len(requests.turns[0][0][0]), count=count)
    return crypto + wall, crypto + cpu


def _beside_litewitness(shop: Workshop, requests: _Requests, ours: list[Load]) -> list[Figure]:
    """The same requests put to the peer."""
    if not shop.with_peers:
        return [not_available(15, f"{requests.what}, against {_PEER}", f"give --peers to build and measure {_PEER}")]
    try:
        program = litewitness.build(shop.programs)
    except UnavailableError as error:
        return [not_available(15, f"{requests.what}, against {_PEER}", str(error))]
    folder = shop.new_path(_PEER)
    vkeys = [log.vkeys[0] for log in requests.logs]
    with litewitness.serve_litewitness(program, folder, vkeys) as (server, agent):
        theirs = [ask_load(server, queues, cpu_of=[agent]) for queues in requests.turns][1:]
    shop.forget(folder)
    method = (
        f"litewitness of torchwood {litewitness.version()}: the same requests over as many connections, right after ours; its "
        "state is in SQLite too, synced for each, it signs through an ssh-agent, whose processor time counts"
    )
    return [
        Figure(
            row=15,
            what=f"{requests.what}, over HTTP, against {_PEER}: {what}",
            unit="/s",
            ours=[value(load) for load in ours],
            floor=[value(load) for load in theirs],
            floor_name=f"/s: {_PEER}",
            method=method,
        )
        for what, value in (("cosigned/s", _per_s), ("cosigned/s per core", _per_core))
    ]


def receipt_sizes(shop: Workshop) -> list[Figure]:
    """Row 16: bytes of receipts made of real notes, which a policy of a majority accepts."""
    figures = []
    tree = GrowingTree()
    for size in shop.plan.receipt_sizes:
        tree.grow(size)
        proof = tree.prove_entry(0)
        text = format_checkpoint(Checkpoint(origin="bench.example/log", size=size, root=tree.root))
        for keys, witnesses in itertools.product(KEY_SETS, shop.plan.witnesses):
            logs = new_skeys("bench.example/log", [LOG_TYPE[key] for key in KEY_SETS[keys]])
            others = [
                new_skeys(witness_name(number), [WITNESS_TYPE[key] for key in KEY_SETS[keys]]) for number in range(witnesses)
            ]
            receipt = _receipt(text, proof, logs, others)
            signatures = sum(SIGNATURE_BYTES[skey.type] for skeys in (logs, *others) for skey in skeys)
            figures.append(
                Figure(
                    row=16,
                    what=f"receipt at {size:,}, {keys}, {witnesses} witnesses",
                    unit="B",
                    ours=[len(receipt)],
                    floor=[HASH_BYTES * len(proof) + signatures],
                    floor_name="B: hashes and signatures",
                    method="the longest receipt (entry 0) of a real tree, its note signed by the log and cosigned by all "
                    "witnesses with keys of this algorithm (`both`: each with both), verified under a policy that asks for a "
                    "majority; an origin of 17 bytes and witnesses' names of 22. Floor: the raw hashes and signatures",
                )
            )
    return figures


def _receipt(text: str, proof: tuple[bytes, ...], logs: Sequence[SKey], others: Sequence[Sequence[SKey]]) -> bytes:
    signers = [KeySigner(skey) for skeys in (logs, *others) for skey in skeys]
    note = sign_note(text, signers, time_s=int(time.time()))
    receipt = format_receipt(Receipt(index=0, proof=proof, checkpoint=note))
    policy = "".join(f"log {skey.vkey}\n" for skey in logs) + majority_lines([[s.vkey for s in skeys] for skeys in others])
    found = verify_receipt(parse_receipt(receipt), leaf_hash=hash_leaf(b"0"), policy=parse_policy(policy.encode()))
    if len(found.checkpoint.cosigned) != sum(map(len, others)):
        raise RuntimeError("a receipt without its cosignatures")
    return receipt
