"""How often: token buckets, one per log and one per peer.

Rules: a bucket holds an hour's worth of what is allowed a day, at least a few, and fills as time goes by; the number of buckets
is bounded, and the one not used for longest makes room; kept in memory only, so a restart fills them all.
"""

import math
import threading
from collections import OrderedDict

from translog.errors import RateLimitedError

BUCKETS_MAX = 100_000
BURST_MIN = 10
"""What may come at once at the least, however little is allowed a day."""

_DAY_MS = 86_400_000
_HOURS = 24


class Buckets:
    """Token buckets by name. Safe for several threads."""

    def __init__(self, *, buckets_max: int = BUCKETS_MAX) -> None:
        self._buckets_max = buckets_max
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Tokens, and when that was (ms)."""

    def take(self, key: str, *, per_day: int, now_ms: int) -> None:
        """Takes one token. Raises RateLimitedError if there is none: nothing is taken then."""
        with self._lock:
            tokens = self._tokens(key, per_day, now_ms)
            _require_token(tokens, per_day)
            self._put(key, tokens - 1, now_ms)

    def charge(self, key: str, *, per_day: int, now_ms: int) -> None:
        """Takes one token if there is one: for what has happened already."""
        with self._lock:
            self._put(key, max(0.0, self._tokens(key, per_day, now_ms) - 1), now_ms)

    def require(self, key: str, *, per_day: int, now_ms: int) -> None:
        """Raises RateLimitedError if there is no token; takes none."""
        with self._lock:
            _require_token(self._tokens(key, per_day, now_ms), per_day)

    def _tokens(self, key: str, per_day: int, now_ms: int) -> float:
        burst = float(max(BURST_MIN, per_day // _HOURS))
        if key not in self._buckets:
            return burst
        tokens, since_ms = self._buckets[key]
        return min(burst, tokens + max(0, now_ms - since_ms) * per_day / _DAY_MS)

    def _put(self, key: str, tokens: float, now_ms: int) -> None:
        self._buckets[key] = (tokens, now_ms)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._buckets_max:
            self._buckets.popitem(last=False)


def _require_token(tokens: float, per_day: int) -> None:
    if tokens < 1:
        wait_ms = math.ceil((1 - tokens) * _DAY_MS / per_day)
        raise RateLimitedError(f"more than {per_day} requests a day", retry_after_ms=wait_ms)
