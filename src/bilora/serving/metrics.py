"""The metrics of /metrics, in Prometheus' text format, without any text of prompts or answers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bilora.protocols import BatchEngine
from bilora.records import Completion

_BUCKETS_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class ServerMetrics:
    """The metrics of one server, in a separate registry."""

    def __init__(self, engine: BatchEngine) -> None:
        registry = self._registry = CollectorRegistry()
        self._engine = engine
        self._replies = Counter("bilora_replies", "HTTP replies", ["path", "status"], registry=registry)
        self._tokens = Counter("bilora_tokens", "Tokens of prompts and answers", ["model", "kind"], registry=registry)
        self._first_token = self._seconds("bilora_first_token_seconds", "From the request to the first token")
        self._answer = self._seconds("bilora_answer_seconds", "From the request to the end of the answer")
        broken = "Streams that failed after their status was sent"
        self._broken = Counter("bilora_streams_broken", broken, ["model"], registry=registry)
        self._reloads = Counter("bilora_reloads", "Adapter versions loaded while the server runs", registry=registry)
        running = Gauge("bilora_running", "Running requests", registry=registry)
        running.set_function(lambda: engine.queue_depth()[0])
        waiting = Gauge("bilora_waiting", "Requests in the queue", registry=registry)
        waiting.set_function(lambda: engine.queue_depth()[1])
        self._adapters = Gauge(
            "bilora_adapter", "1 for the version that is served", ["model", "sha256"], registry=registry
        )

    def record_reply(self, path: str, status: int) -> None:
        """Count a reply; `path` must be one of the server's paths, so that clients cannot create labels."""
        self._replies.labels(path, str(status)).inc()

    def record_answer(self, completion: Completion, seconds: float) -> None:
        """Record an answer that the client received after `seconds`."""
        self._tokens.labels(completion.system, "prompt").inc(completion.prompt_tokens or 0)
        self._tokens.labels(completion.system, "answer").inc(completion.output_tokens or 0)
        self._answer.labels(completion.system).observe(seconds)
        if completion.first_token_s is not None:
            self._first_token.labels(completion.system).observe(completion.first_token_s)

    def record_broken_stream(self, model: str) -> None:
        """Count a stream that ended with an error; `model` must be a served one."""
        self._broken.labels(model).inc()

    def record_reloads(self, count: int) -> None:
        """Count adapter versions that were loaded while the server ran."""
        self._reloads.inc(count)

    def render(self) -> bytes:
        """Return the metrics as text."""
        self._adapters.clear()
        for model, sha256 in self._engine.models().items():
            if sha256:
                self._adapters.labels(model, sha256).set(1)
        return generate_latest(self._registry)

    def _seconds(self, name: str, description: str) -> Histogram:
        return Histogram(name, description, ["model"], buckets=_BUCKETS_S, registry=self._registry)
