"""Row 7: verifying receipts offline, many under one checkpoint, and one from a cold process."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import floors
from benchmarks.figures import Figure, Target, repeat
from benchmarks.processes import run_program
from benchmarks.stores import Entries, open_service
from benchmarks.workshop import Workshop
from translog.core.keys import KeyType
from translog.core.merkle import hash_leaf
from translog.core.policy import Policy, VerifiedCheckpoint, parse_policy, verify_checkpoint
from translog.core.proof import parse_receipt, verify_receipt_under

ENTRY_BYTES = 100


def verification(shop: Workshop) -> list[Figure]:
    """Row 7."""
    plan = shop.plan
    directory, policy_text = shop.filled_log(count=plan.proof_entries, entry_bytes=ENTRY_BYTES)
    entries = Entries("text", ENTRY_BYTES).take(0, plan.receipts)
    receipts = asyncio.run(_receipts(directory, count=plan.receipts))
    policy = parse_policy(policy_text.encode())
    nodes = len(parse_receipt(receipts[0]).proof)
    ours, floor = repeat(
        plan.readings,
        lambda: _verify_all(receipts, entries, policy),
        lambda: floors.path_hashes_per_s(entry_bytes=ENTRY_BYTES, nodes=nodes, count=plan.receipts),
    )
    many = Figure(
        row=7,
        what=f"receipts under one checkpoint of {plan.proof_entries:,}: verified/s",
        unit="/s",
        ours=ours,
        floor=floor,
        floor_name=f"/s: 1 + {nodes} hashes",
        target=Target(limit=20_000, unit="/s"),
        method=f"as `translog verify --lines` does it, files apart: parse, take the verified checkpoint by its bytes (both "
        f"signatures verified once), hash the entry, fold a proof of {nodes} hashes; {plan.receipts:,} receipts, one core. "
        "Floor: the same hashes with hashlib and nothing else",
    )
    return [many, _cold(shop, receipts[0], entries[0], policy_text)]


async def _receipts(directory: Path, *, count: int) -> list[bytes]:
    async with open_service(directory) as service:
        return await service.read(lambda reader: reader.receipts(first=0, count=count))


def _verify_all(receipts: Sequence[bytes], entries: Sequence[bytes], policy: Policy) -> float:
    known: dict[bytes, VerifiedCheckpoint] = {}
    begin = time.perf_counter()
    for data, entry in zip(receipts, entries, strict=True):
        receipt = parse_receipt(data, parsed=known)
        checkpoint = known.get(receipt.checkpoint)
        if checkpoint is None:
            checkpoint = known[receipt.checkpoint] = verify_checkpoint(receipt.checkpoint, policy)
        verify_receipt_under(receipt, leaf_hash=hash_leaf(entry), checkpoint=checkpoint)
    return len(receipts) / (time.perf_counter() - begin)


def _cold(shop: Workshop, receipt: bytes, entry: bytes, policy: str) -> Figure:
    paths = {name: shop.new_path(name) for name in ("receipt", "entry", "policy")}
    paths["receipt"].write_bytes(receipt)
    paths["entry"].write_bytes(entry)
    paths["policy"].write_text(policy, "utf-8")
    options: list[str | Path] = ["--policy", paths["policy"], "--entry", paths["entry"], "--json"]
    command: list[str | Path] = [sys.executable, "-m", "translog", "verify", paths["receipt"], *options]
    signatures = sum(floors.verify_s(kind, count=50) for kind in (KeyType.ED25519, KeyType.COSIGNATURE_MLDSA44))

    def verify() -> float:
        begin = time.perf_counter()
        run_program(command)
        return time.perf_counter() - begin

    ours, floor = repeat(shop.plan.cold_starts, verify, lambda: floors.bare_start_s() + signatures)
    return Figure(
        row=7,
        what="`translog verify` of one file, from process start",
        unit="s",
        ours=ours,
        floor=floor,
        floor_name="s: bare start + signatures",
        target=Target(limit=0.25, lower=True, unit="s"),
        method=f"wall clock of the whole process, files in the page cache. Floor: `python -c pass` and one verification with "
        f"Ed25519 and ML-DSA-44 ({1e3 * signatures:.2f} ms)",
    )
