"""What no program on this machine can go below, measured: a synced write, a signature, a hash, a synced LevelDB batch."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.processes import environment
from translog.core.keys import SEED_BYTES, KeyType, SKey, sign_bytes, verify_bytes

try:
    import plyvel
except ImportError:  # as in translog/storage/leveldb.py
    import plyvel_next as plyvel

_APPEND_BYTES = 4_096
_WRITE_BUFFER_BYTES = 32 * 1024 * 1024
_MESSAGE = b"example.org/log\n1234567\n" + b"A" * 44 + b"\n"


def median_time(measure: Callable[[], object], *, count: int) -> float:
    """Median seconds of one call."""
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        measure()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def sync_s(directory: Path, *, count: int) -> float:
    """Median seconds of appending 4 kB to a file in `directory` and fdatasync."""
    data = os.urandom(_APPEND_BYTES)
    path = directory / "synced"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:

        def append() -> None:
            os.write(descriptor, data)
            os.fdatasync(descriptor)

        return median_time(append, count=count)
    finally:
        os.close(descriptor)
        path.unlink()


def sign_s(key_type: KeyType, *, count: int) -> float:
    """Median seconds of one signature over a checkpoint's text."""
    skey = SKey(name="example.org/log", type=key_type, seed=os.urandom(SEED_BYTES))
    return median_time(lambda: sign_bytes(skey, _MESSAGE), count=count)


def verify_s(key_type: KeyType, *, count: int) -> float:
    """Median seconds of verifying one."""
    skey = SKey(name="example.org/log", type=key_type, seed=os.urandom(SEED_BYTES))
    vkey, signature = skey.vkey, sign_bytes(skey, _MESSAGE)
    return median_time(lambda: verify_bytes(vkey, _MESSAGE, signature), count=count)


def sqlite_commit_s(directory: Path, *, row_bytes: int, count: int) -> tuple[float, float]:
    """Seconds and processor seconds of a transaction of SQLite that replaces a row of `row_bytes`, on disk when it returns."""
    row = os.urandom(row_bytes)
    with TemporaryDirectory(dir=directory) as path, closing(sqlite3.connect(f"{path}/db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE latest (name TEXT PRIMARY KEY, row BLOB NOT NULL)")

        def commit() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR REPLACE INTO latest VALUES ('log', ?)", (row,))
            connection.execute("COMMIT")

        begin_cpu = time.process_time()
        taken = median_time(commit, count=count)
        return taken, (time.process_time() - begin_cpu) / count


def path_hashes_per_s(*, entry_bytes: int, nodes: int, count: int) -> float:
    """How often a second one core hashes an entry and `nodes` tree nodes: what verifying a proof cannot go below."""
    entry, left, right = os.urandom(entry_bytes), os.urandom(32), os.urandom(32)
    begin = time.perf_counter()
    for _ in range(count):
        sha256(b"\x00" + entry).digest()
        for _ in range(nodes):
            sha256(b"\x01" + left + right).digest()
    return count / (time.perf_counter() - begin)


def hashes_on_all_cores_per_s(*, entry_bytes: int, count: int) -> float:
    """Entries a second that all cores together hash, with one tree node each: `count` on every core, in processes of their
    own, from the start of the last to the end of the last."""
    command = [sys.executable, "-m", "benchmarks.floors", str(entry_bytes), str(count)]
    cores = os.cpu_count() or 1
    children = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())  # noqa: S603
        for _ in range(cores)
    ]
    spans = [tuple(map(float, child.communicate()[0].split())) for child in children]
    return cores * count / (max(end for _, end in spans) - min(begin for begin, _ in spans))


def leveldb_batches_per_s(directory: Path, *, entry_bytes: int, batch_entries: int, seconds: float) -> tuple[float, float]:
    """Entries that LevelDB takes in synced batches, nothing else being done to them: a second, and a second of processor time
    (compaction included)."""
    pool = os.urandom(2 * batch_entries + entry_bytes)
    entries = [pool[n : n + entry_bytes] for n in range(batch_entries)]
    with TemporaryDirectory(dir=directory) as path:
        db = plyvel.DB(path, create_if_missing=True, write_buffer_size=_WRITE_BUFFER_BYTES, bloom_filter_bits=10)
        try:
            size = 0
            begin, begin_cpu = time.perf_counter(), time.process_time()
            while time.perf_counter() - begin < seconds:
                with db.write_batch(transaction=True, sync=True) as batch:
                    for entry in entries:
                        batch.put(b"e" + size.to_bytes(8, "big"), entry)
                        size += 1
            return size / (time.perf_counter() - begin), size / (time.process_time() - begin_cpu)
        finally:
            db.close()


def event_us(directory: Path, records: Sequence[bytes], *, leaves: int, entry_bytes: int, row_bytes: int) -> float:
    """Processor microseconds that a sealed event cannot go below in Python: its record parsed, `leaves` fields and as many
    nodes hashed, a row encrypted, and three rows in LevelDB (entry, payload, a random id), synced by the thousand."""
    parts = [os.urandom(220) for _ in range(leaves)]
    node, row, entry, nonce = os.urandom(65), os.urandom(row_bytes), os.urandom(entry_bytes), os.urandom(12)
    cipher = AESGCM(os.urandom(32))
    count = 0
    begin = time.process_time()
    with TemporaryDirectory(dir=directory) as path:
        db = plyvel.DB(path, create_if_missing=True, write_buffer_size=_WRITE_BUFFER_BYTES, bloom_filter_bits=10)
        try:
            for start in range(0, len(records), 1_000):
                with db.write_batch(transaction=True, sync=True) as batch:
                    for record in records[start : start + 1_000]:
                        json.loads(record)
                        for part in parts:
                            sha256(part).digest()
                            sha256(node).digest()
                        key = count.to_bytes(8, "big")
                        batch.put(b"e" + key, entry)
                        batch.put(b"p" + key, cipher.encrypt(nonce, row, nonce))
                        batch.put(b"i" + os.urandom(16), key)
                        count += 1
            return 1e6 * (time.process_time() - begin) / count
        finally:
            db.close()


def bare_start_s() -> float:
    """Seconds that an interpreter takes to start and do nothing."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True, env=environment())
    return time.perf_counter() - begin


if __name__ == "__main__":
    _begin = time.monotonic()
    path_hashes_per_s(entry_bytes=int(sys.argv[1]), nodes=1, count=int(sys.argv[2]))
    print(_begin, time.monotonic())
