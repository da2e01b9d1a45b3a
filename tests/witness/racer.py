"""A process that asks a witness on a shared state file for cosignatures, from several threads, until it is stopped or done.

    python -m witness.racer STATE SIZE THREADS SEED

Rules: all processes have the same log, which never forks; each thread goes from the size it believes in to one a little larger,
or asks for the same again; what was answered is verified, then written as a line `<old> <new> <seconds>` in one write.
"""

import os
import random
import sys
import threading
import time
from pathlib import Path

from translog.core.cosignature import signature_time
from translog.core.keys import KeyType
from translog.errors import OldSizeError
from translog.witness.protocol import parse_cosignatures
from translog.witness.service import Witness
from witness.made_log import WITNESS_VKEYS, MadeLog, make_witness, require_cosigned

ORIGIN = "log.example/raced"


def raced_log(size: int) -> MadeLog:
    return MadeLog(ORIGIN, types=(KeyType.ED25519,), size=size)


def race(witness: Witness, log: MadeLog, size: int, chance: random.Random) -> None:
    old = 0
    while True:
        new = min(size, old + chance.choice((0, 1, 1, 2, 5)))
        note = log.note(new)
        try:
            answer = witness.add_checkpoint(log.request(old, new, note=note))
        except OldSizeError as error:
            old = error.size
            continue
        require_cosigned(note, answer)
        time_s = signature_time(WITNESS_VKEYS[0], parse_cosignatures(answer)[0].payload)
        os.write(1, f"{old} {new} {time_s}\n".encode())
        if old == new == size:
            return
        old = new


def main() -> None:
    state, size, threads, seed = sys.argv[1], *map(int, sys.argv[2:5])
    log = raced_log(size)
    witness = make_witness(Path(state), log, now_ms=lambda: time.time_ns() // 1_000_000)
    running = [
        threading.Thread(target=race, args=(witness, log, size, random.Random(seed + number))) for number in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    witness.store.close()


if __name__ == "__main__":
    main()
