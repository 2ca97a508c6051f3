"""What /metrics tells, in Prometheus' text format. No text of anybody's question or answer is in it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bilora.protocols import BatchEngine
from bilora.records import Completion

SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Meters:
    """Counters of one server, in a registry of its own."""

    def __init__(self, engine: BatchEngine) -> None:
        self._registry = CollectorRegistry()
        self._engine = engine
        self._replies = Counter("bilora_replies", "HTTP replies", ["path", "status"], registry=self._registry)
        self._tokens = Counter("bilora_tokens", "Tokens read and made", ["model", "kind"], registry=self._registry)
        self._first = Histogram(
            "bilora_first_token_seconds", "From asking to the first token", ["model"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._whole = Histogram(
            "bilora_answer_seconds", "From asking to the end of the answer", ["model"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._broken = Counter(
            "bilora_streams_broken", "Streams that the model failed at, after their status was sent", ["model"],
            registry=self._registry,
        )  # fmt: skip
        self._reloads = Counter("bilora_reloads", "Adapter versions taken up", registry=self._registry)
        running = Gauge("bilora_running", "Requests that are being answered", registry=self._registry)
        running.set_function(lambda: engine.queue_depth()[0])
        waiting = Gauge("bilora_waiting", "Requests in the queue", registry=self._registry)
        waiting.set_function(lambda: engine.queue_depth()[1])
        self._adapters = Gauge(
            "bilora_adapter", "1 for the version that is served", ["model", "sha256"], registry=self._registry
        )

    def replied(self, path: str, status: int) -> None:
        """Count a reply; `path` is one of the server's own, so that strangers cannot make up labels."""
        self._replies.labels(path, str(status)).inc()

    def answered(self, made: Completion, seconds: float) -> None:
        """Count an answer that took `seconds` for the one who asked."""
        self._tokens.labels(made.system, "prompt").inc(made.prompt_tokens or 0)
        self._tokens.labels(made.system, "answer").inc(made.output_tokens or 0)
        self._whole.labels(made.system).observe(seconds)
        if made.first_token_s is not None:
            self._first.labels(made.system).observe(made.first_token_s)

    def broke_off(self, model: str) -> None:
        """Count a stream that ended in an error; `model` is one that is served."""
        self._broken.labels(model).inc()

    def reloaded(self, count: int) -> None:
        """Count adapter versions that were taken up."""
        self._reloads.inc(count)

    def page(self) -> bytes:
        """Return the text."""
        self._adapters.clear()
        for model, sha256 in self._engine.models().items():
            if sha256:
                self._adapters.labels(model, sha256).set(1)
        return generate_latest(self._registry)
