"""Where a log keeps what it has committed: the LogStore port (store.py) and its adapters."""
