"""The local engines, by their names in `inference.engine` of params.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bilora.bases.base import Base
from bilora.errors import BadData
from bilora.params import Quantization
from bilora.protocols import BatchEngine, Engine, Progress, ProgressBars, Streamer, no_bar, no_progress
from bilora.records import Completion
from bilora.requests import Request


class LocalEngine(Engine, Streamer, BatchEngine, Protocol):
    """An engine in this process: returns completions, streams, and serves many callers."""

    def generate_mixed(
        self, requests: Sequence[tuple[str, Request]], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Return one completion per (system, request) pair, in order."""
        ...

    def set_thread_callback(self, count_threads: Callable[[], int]) -> None:
        """Call `count_threads` before each step for the step's number of threads."""
        ...

    def remarks(self) -> list[str]:
        """Return warnings about the base's chat template, one sentence each."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """Options of every local engine.

    `batch_size`: maximum number of running sequences. `max_waiting`: maximum length of the queue, None for no limit.
    `quantization`: the format that llama.cpp's engine converts the base to; None for the base's GGUF file as it is.
    `cache`: the folder of converted files. `progress_bars` show every conversion.
    """

    batch_size: int
    cache: Path
    max_waiting: int | None = None
    quantization: Quantization | None = None
    progress_bars: ProgressBars = no_bar


EngineLoader = Callable[[Base, Mapping[str, Path], EngineOptions], LocalEngine]
"""Returns an engine with this base and these adapters (task name → PEFT folder)."""


def _load_torch(base: Base, adapters: Mapping[str, Path], options: EngineOptions) -> LocalEngine:
    from bilora.inference.torch.engine import TorchEngine
    from bilora.inference.torch.loading import load_for_inference

    base.prepare(options.progress_bars)
    loaded = load_for_inference(base)
    return TorchEngine(loaded, adapters, batch_size=options.batch_size, max_waiting=options.max_waiting)


def _load_llamacpp(base: Base, adapters: Mapping[str, Path], options: EngineOptions) -> LocalEngine:
    from bilora.inference.llamacpp.engine import LlamaEngine

    return LlamaEngine(
        base,
        options.quantization,
        adapters,
        batch_size=options.batch_size,
        max_waiting=options.max_waiting,
        cache=options.cache,
        progress_bars=options.progress_bars,
    )


ENGINES: Mapping[str, EngineLoader] = {"torch": _load_torch, "llamacpp": _load_llamacpp}


def load_local_engine(name: str, base: Base, adapters: Mapping[str, Path], options: EngineOptions) -> LocalEngine:
    """Return the engine of this name with the base and the adapters (task name → PEFT folder) loaded.

    Raises:
        BadData: there is no such engine, or it does not support the base or an adapter.
        NotReady: the engine is not installed, or memory or disk is too small.
    """
    if name not in ENGINES:
        raise BadData("inference.engine", f"there is no engine {name!r}; choose one of {', '.join(ENGINES)}.")
    return ENGINES[name](base, adapters, options)
