"""The seeds of a run of the tests: a few, TRANSLOG_SEEDS of them, or the one that TRANSLOG_SEED names."""

import os

FEW = 15

SEEDS = (
    [int(os.environ["TRANSLOG_SEED"])]
    if "TRANSLOG_SEED" in os.environ
    else list(range(1, 1 + int(os.environ.get("TRANSLOG_SEEDS", FEW))))
)
