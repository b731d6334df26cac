"""Metrics for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The numbers of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        self.requests = Counter("blemish_requests", "Requests, by route and status.", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "blemish_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=own,
        )
        self.pictures = Counter(
            "blemish_pictures",
            "Pictures that were scored, by profile or method and verdict (none without a threshold).",
            ["model", "verdict"],
            registry=own,
        )
        self.unreadable = Counter("blemish_unreadable_pictures", "Pictures that cannot be read.", registry=own)
        self.queued = Gauge("blemish_queue_pictures", "Pictures that are accepted and not answered yet.", registry=own)
        self.body_bytes = Gauge("blemish_body_bytes", "Bytes of all bodies in memory.", registry=own)
        self.batches = Histogram(
            "blemish_batch_pictures", "Pictures of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=own
        )
        self.model_seconds = Counter("blemish_model_seconds", "Seconds that the model computed.", registry=own)
        self.watched = Counter(
            "blemish_watched_pictures", "Pictures of the watched folder, by outcome.", ["outcome"], registry=own
        )
        self.webhook = Counter(
            "blemish_webhook_results", "Results for the webhook: sent, retried, dropped.", ["outcome"], registry=own
        )
        self.drift = Gauge(
            "blemish_drift_level", "Drift of a profile: 0 ok, 1 watch, 2 alarm, -1 unknown.", ["profile"], registry=own
        )

    def text(self) -> bytes:
        """Return all of it in the text format of Prometheus."""
        return generate_latest(self.registry)
