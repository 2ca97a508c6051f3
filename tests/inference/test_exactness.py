"""No answer uses another adapter's weights, whatever other requests run at the same time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.concurrent_requests import count_wrong_answers, shuffled_requests
from support.sample_adapters import SampleAdapters, chat_request, prompts

from bilora.inference.torch.engine import TorchEngine
from bilora.inference.torch.lora import StackedLora


def test_the_systems_do_answer_differently(sample_adapters: SampleAdapters) -> None:
    texts = prompts(20)
    answers = {
        version: [sample_adapters.answer(version, text) for text in texts]
        for version in ("base", *sample_adapters.folders)
    }
    for version in answers:
        for other in answers:
            same = sum(a == b for a, b in zip(answers[version], answers[other], strict=True))
            assert version == other or same <= 2


def test_every_answer_is_its_own_adapters(mixed: TorchEngine, sample_adapters: SampleAdapters) -> None:
    requests = shuffled_requests(200)
    requests += random.Random(2).choices(requests, k=60)
    assert count_wrong_answers(mixed, sample_adapters, requests, reload_at=300) == 0


def test_a_benchmark_s_mixed_batches_are_exact(mixed: TorchEngine, sample_adapters: SampleAdapters) -> None:
    requests = shuffled_requests(40)
    answers = mixed.generate_mixed([(system, chat_request(text)) for system, text in requests])
    assert [completion.text for completion in answers] == [
        sample_adapters.answer(system, text) for system, text in requests
    ]


def test_one_adapter_for_the_whole_model_would_be_seen(
    mixed: TorchEngine, sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classic bug: each request sets the model's adapter, and the whole batch uses it."""
    current: list[Any] = [None]
    prepare, deltas = TorchEngine.prepare, StackedLora._deltas

    def prepare_and_set(self: TorchEngine, *args: Any, **named: Any) -> Any:
        jobs = prepare(self, *args, **named)
        current[0] = jobs[-1].adapter
        return jobs

    monkeypatch.setattr(TorchEngine, "prepare", prepare_and_set)
    monkeypatch.setattr(StackedLora, "_deltas", lambda self, adapters: deltas(self, [current[0]] * len(adapters)))
    assert count_wrong_answers(mixed, sample_adapters, shuffled_requests(30)) > 20


def test_columns_of_other_adapters_that_are_not_blanked_would_be_seen(
    mixed: TorchEngine, sample_adapters: SampleAdapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def nothing(adapters: Any, mix: Any, ranks: tuple[int, ...], device: Any) -> Any:
        return torch.zeros(len(adapters), 1, sum(ranks), dtype=torch.bool)

    monkeypatch.setattr("bilora.inference.torch.lora._inactive_columns", nothing)
    assert count_wrong_answers(mixed, sample_adapters, shuffled_requests(30)) > 20


@pytest.mark.parametrize("temperature", [0.7, 1.5])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_seed_gives_the_same_answer_in_any_company(mixed: TorchEngine, temperature: float, top_p: float) -> None:
    requests = [
        (system, chat_request(text, temperature=temperature, top_p=top_p, seed=seed))
        for seed, (system, text) in enumerate(shuffled_requests(8))
    ]
    single = [mixed.generate(system, [request])[0].text for system, request in requests]
    together = [completion.text for completion in mixed.generate_mixed(requests)]
    assert single == together
    assert len(set(single)) > len(single) // 2
