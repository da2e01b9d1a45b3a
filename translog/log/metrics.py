"""What the log service counts, in Prometheus's terms. One registry per service, so that tests can hold several."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class LogMetrics:
    """Counters, gauges and histograms of sequencing and publishing."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._make_witnessing()
        self.integrated_size = Gauge("translog_integrated_size", "Entries committed.", registry=self.registry)
        self.published_size = Gauge("translog_published_size", "Entries in the latest checkpoint.", registry=self.registry)
        self.published_at = Gauge(
            "translog_published_timestamp_seconds", "When the latest checkpoint was signed.", registry=self.registry
        )
        self.pool_entries = Gauge("translog_pool_entries", "Entries waiting to be sequenced.", registry=self.registry)
        self.accepting = Gauge("translog_accepting", "1 while the log takes entries, else 0.", registry=self.registry)
        self.appended = Counter("translog_appended_entries", "Entries committed since the start.", registry=self.registry)
        self.appended_bytes = Counter(
            "translog_appended_bytes", "Bytes of entries committed since the start.", registry=self.registry
        )
        self.known_events = Counter(
            "translog_known_events",
            "Events not written: they were known already, or have the id of a known one and other content.",
            registry=self.registry,
        )
        self.pushbacks = Counter("translog_pushbacks", "Appends refused, by reason.", ["code"], registry=self.registry)
        self.failed_writes = Counter(
            "translog_failed_writes", "Commits, publications or head writes that failed.", registry=self.registry
        )
        self.clock_jump = Gauge(
            "translog_clock_jump_seconds", "How far the wall clock is off since it was last right.", registry=self.registry
        )
        self.commit_seconds = Histogram(
            "translog_commit_seconds", "Hashing and committing a batch.", registry=self.registry, buckets=_SECONDS
        )
        self.batch_entries = Histogram(
            "translog_batch_entries",
            "Entries in a commit.",
            registry=self.registry,
            buckets=(1, 4, 16, 64, 256, 1024, 4096, 16384),
        )
        self.publish_seconds = Histogram(
            "translog_publish_seconds",
            "Recording, signing and storing a checkpoint, and having it cosigned.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.tls_expiry = Gauge(
            "translog_tls_not_after_timestamp_seconds", "When the TLS certificate ends; 0 without TLS.", registry=self.registry
        )
        self.follower_lag = Gauge(
            "translog_follower_lag_entries",
            "Committed entries a follower has not seen yet.",
            ["follower"],
            registry=self.registry,
        )

    def _make_witnessing(self) -> None:
        self.unwitnessed_since = Gauge(
            "translog_unwitnessed_since_timestamp_seconds",
            "Since when the policy's quorum is not reached; 0 while it is, or where none is asked for.",
            registry=self.registry,
        )
        self.witness_cosigned_size = Gauge(
            "translog_witness_cosigned_size", "Size a witness cosigned last.", ["witness"], registry=self.registry
        )
        self.witness_failures = Counter(
            "translog_witness_failures",
            "Requests to a witness that brought no cosignature, by reason.",
            ["witness", "code"],
            registry=self.registry,
        )
        self.witness_alarms = Counter(
            "translog_witness_alarms",
            "Times a witness stated a larger size than this log ever signed.",
            ["witness"],
            registry=self.registry,
        )
        self.witness_seconds = Histogram(
            "translog_witness_seconds", "Time a witness takes to answer.", registry=self.registry, buckets=_SECONDS
        )
