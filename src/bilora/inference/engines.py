"""The local engines, by the names that `inference.engine` in params.yaml gives them."""

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
    """An engine in this process: for whole answers, for streams and for a server."""

    def generate_mixed(
        self, requests: Sequence[tuple[str, Request]], *, progress: Progress = no_progress
    ) -> list[Completion]:
        """Answer (system, request) pairs in shared batches; return the answers in the order given."""
        ...

    def use_threads(self, count: Callable[[], int]) -> None:
        """Ask `count` before each step how many threads it shall have."""
        ...

    def remarks(self) -> list[str]:
        """Return sentences about the base's chat template that a user must know; for most templates there are none."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """Options of every local engine.

    `batch_size`: how many sequences run at a time. `max_waiting`: how many more may wait, None for no limit.
    `quantization`: what an engine for GGUF files converts the base to; None for the file that the base comes with.
    `cache`: the folder of converted files; `progress_bars` show every conversion.
    """

    batch_size: int
    cache: Path
    max_waiting: int | None = None
    quantization: Quantization | None = None
    progress_bars: ProgressBars = no_bar


EngineLoader = Callable[[Base, Mapping[str, Path], EngineOptions], LocalEngine]
"""Loads a base and its adapters (task name → PEFT folder) into memory."""


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
    """Load the base and these adapters (task name → PEFT folder) into the engine of this name.

    Raises:
        BadData: there is no such engine, or the base or an adapter cannot be served.
        NotReady: the engine is not installed, or memory or disk is too small.
    """
    if name not in ENGINES:
        raise BadData("inference.engine", f"there is no engine {name!r}; choose one of {', '.join(ENGINES)}.")
    return ENGINES[name](base, adapters, options)
