"""The torch engine: one base in memory, every adapter beside it, chosen by name."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bilora.errors import BadData
from bilora.inference.loading import Loaded, stop_ids
from bilora.ports import Progress, Request, silent
from bilora.records import Completion

BASE = "base"


def encode_prompt(tokenizer: Any, messages: Sequence[Any]) -> list[int]:
    """Return the token ids of a chat up to where the assistant speaks.

    Training, evaluation and serving all come through here, so they cannot disagree.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


class LocalEngine:
    """transformers + PEFT, adapters preloaded and switched per batch; greedy answers are deterministic on CPU."""

    def __init__(
        self, loaded: Loaded, adapters: Mapping[str, Path], *, batch_size: int, carries: str | None = None
    ) -> None:
        """Attach every adapter of `adapters` (task name → PEFT folder) to the loaded base.

        Args:
            carries: name under which an adapter that the model already has, and that is in training,
                answers; its trainable state is left as it is.

        Raises:
            BadData: an adapter does not fit the base.
        """
        self._tokenizer = loaded.tokenizer
        self._batch_size = batch_size
        self._adapters = tuple(adapters)
        self._carries = carries
        self._turn = threading.Lock()
        self._model = loaded.model
        for name, folder in adapters.items():
            self._attach(name, folder)
        if carries is None:
            self._model.eval()
        self._stop = stop_ids(self._model, self._tokenizer)

    def _attach(self, name: str, folder: Path) -> None:
        from peft import PeftModel

        try:
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(folder), adapter_name=name, is_trainable=False, use_safetensors=True)
            else:
                self._model = PeftModel.from_pretrained(
                    self._model, str(folder), adapter_name=name, is_trainable=False, use_safetensors=True
                )
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0][:200]
            raise BadData(folder, f"this adapter does not fit the base ({reason}).") from None

    def generate(self, system: str, requests: Sequence[Request], *, progress: Progress = silent) -> list[Completion]:
        """Answer all requests as `system` (`base` or an adapter's name), longest prompts first."""
        encoded = [encode_prompt(self._tokenizer, request.messages) for request in requests]
        order = sorted(range(len(requests)), key=lambda index: (-len(encoded[index]), index))
        answers: dict[int, Completion] = {}
        with self._answering_as(system):
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                made = self._batch(system, [requests[i] for i in batch], [encoded[i] for i in batch])
                answers.update(zip(batch, made, strict=True))
                progress(len(batch))
        return [answers[index] for index in range(len(requests))]

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        """Answer one request piece by piece; the generator's value is the whole answer.

        Closing the generator stops the model within one token. Other calls wait until it has ended.
        """
        import torch
        from transformers import TextIteratorStreamer

        closed = threading.Event()

        def was_closed(ids: Any, _: Any, **__: Any) -> Any:
            return torch.full((ids.shape[0],), closed.is_set(), device=ids.device)

        ids = encode_prompt(self._tokenizer, request.messages)
        pieces = TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        with self._answering_as(system), ThreadPoolExecutor(1, thread_name_prefix="stream") as worker:
            made = worker.submit(self._batch, system, [request], [ids], streamer=pieces, stopping_criteria=[was_closed])
            made.add_done_callback(lambda _: pieces.end())  # also when it failed, or the reader would wait for ever
            try:
                yield from filter(None, pieces)
            finally:
                closed.set()
            return made.result()[0]

    @contextmanager
    def _answering_as(self, system: str) -> Iterator[None]:
        """Switch the model, for one caller at a time: the adapter in use is the model's state."""
        from peft import PeftModel

        known = (BASE, *self._adapters, *([self._carries] if self._carries else []))
        if system not in known:
            raise BadData(system, f"no such model is loaded; loaded: {', '.join(known)}.")
        with self._turn:
            if system in self._adapters:
                self._model.set_adapter(system, inference_mode=True)
            bare = isinstance(self._model, PeftModel) and system == BASE
            with self._model.disable_adapter() if bare else nullcontext():
                yield

    def _batch(
        self, system: str, requests: list[Request], encoded: list[list[int]], **watched: Any
    ) -> list[Completion]:
        import torch

        began = time.perf_counter()
        padded = self._tokenizer.pad({"input_ids": encoded}, padding=True, return_tensors="pt").to(self._model.device)
        first = requests[0]
        sampling = (
            {"do_sample": True, "temperature": first.temperature} if first.temperature > 0 else {"do_sample": False}
        )
        if first.temperature > 0:
            torch.manual_seed(first.seed)
        with torch.inference_mode():
            out = self._model.generate(
                **padded,
                max_new_tokens=max(request.max_new_tokens for request in requests),
                eos_token_id=self._stop,
                pad_token_id=self._tokenizer.pad_token_id,
                **sampling,
                **watched,
            )
        seconds = time.perf_counter() - began
        width = padded["input_ids"].shape[1]
        return [
            self._completion(system, request, ids, row[width:].tolist(), seconds / len(requests))
            for request, ids, row in zip(requests, encoded, out, strict=True)
        ]

    def _completion(
        self, system: str, request: Request, prompt: list[int], new: list[int], seconds: float
    ) -> Completion:
        end = next((place for place, token in enumerate(new) if token in self._stop), None)
        kept = new[:end][: request.max_new_tokens]
        stopped = end is not None and end <= request.max_new_tokens
        return Completion(
            sample_id=request.sample_id,
            system=system,
            text=self._tokenizer.decode(kept, skip_special_tokens=True),
            prompt_tokens=len(prompt),
            output_tokens=len(kept) + (1 if stopped else 0),
            latency_s=seconds,
            finish="stop" if stopped else "length",
        )
