from __future__ import annotations

from collections import Counter

import pytest
import torch
from support.sample_adapters import chat_request, prompts

from bilora.inference.sampling import apply_penalties, mask_disallowed, mask_tokens, sample_tokens
from bilora.inference.torch.engine import TorchEngine
from bilora.requests import SamplingParams

LONG = 120


def test_penalties_are_taken_off_what_the_answer_holds() -> None:
    logits = torch.zeros(3, 4)
    rows = [
        (SamplingParams(9, frequency_penalty=0.5, presence_penalty=0.25), [0], [1, 1, 3]),
        (SamplingParams(9), [0], [1, 1, 3]),
        (SamplingParams(9, presence_penalty=-1.0), [], [0, 0]),
    ]
    assert apply_penalties(logits, rows).tolist() == [[0, -1.25, 0, -0.75], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert not logits.any()


def test_what_was_read_or_said_before_is_less_likely_and_a_bias_is_added() -> None:
    logits = torch.tensor([[2.0, -2.0, 4.0, 1.0]])
    params = SamplingParams(9, repetition_penalty=2.0, logit_bias=((3, 0.5), (2, -1.0)))
    assert apply_penalties(logits, [(params, [0, 7], [1])]).tolist() == [[1.0, -4.0, 3.0, 1.5]]


@pytest.mark.parametrize(
    ("restricted", "possible"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"min_p": 0.5}, {0, 1}),
        ({"top_k": 3, "min_p": 0.01}, {0, 1, 2}),
        ({"top_k": 9}, {0, 1, 2, 3}),
    ],
)
def test_only_the_likeliest_are_drawn(restricted: dict[str, float], possible: set[int]) -> None:
    logits = torch.tensor([0.4, 0.3, 0.18, 0.12]).log().expand(400, -1)
    params = SamplingParams(1, temperature=1.0, **restricted)  # type: ignore[arg-type]
    assert set(sample_tokens(logits, rows_of(params, 400))) == possible


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_a_penalised_row_repeats_less_and_its_neighbours_are_what_they_were(mixed: TorchEngine, penalty: str) -> None:
    texts = prompts(8)
    unpenalised = [chat_request(text, LONG) for text in texts]
    penalised = [chat_request(text, LONG, **{penalty: 2.0}) for text in texts]
    expected = mixed.generate("codegen", unpenalised)
    completions = mixed.generate_mixed(
        [("codegen", request) for pair in zip(unpenalised, penalised, strict=True) for request in pair]
    )
    assert [completion.text for completion in completions[::2]] == [completion.text for completion in expected]

    def repeated(answers: list[str]) -> int:
        return sum(max(Counter(text.split()).values(), default=0) for text in answers)

    assert repeated([completion.text for completion in completions[1::2]]) < repeated(
        [completion.text for completion in completions[::2]]
    )


def test_an_end_token_without_a_logit_masks_nothing() -> None:
    logits = torch.zeros(2, 4)
    masked = mask_tokens(logits, {1: [2, 4, 9, -1]})
    assert masked.isinf().nonzero().tolist() == [[1, 2]]
    assert not logits.isinf().any()


def test_only_allowed_tokens_keep_their_logits_in_the_rows_that_are_named() -> None:
    logits = torch.arange(8.0).reshape(2, 4)
    masked = mask_disallowed(logits, {1: torch.tensor([True, False, True, False])})
    assert masked.tolist() == [[0, 1, 2, 3], [4, -torch.inf, 6, -torch.inf]]
    assert not logits.isinf().any()


def rows_of(params: SamplingParams, count: int) -> list[tuple[SamplingParams, torch.Generator | None]]:
    return [(params, torch.Generator().manual_seed(seed)) for seed in range(count)]


def test_tokens_are_drawn_as_often_as_their_probabilities_say() -> None:
    probabilities, count = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0]), 4000
    logits = probabilities.log().expand(count, -1)
    drawn = Counter(sample_tokens(logits, rows_of(SamplingParams(1, temperature=1.0), count)))
    assert drawn.keys() == {1, 3, 4}
    for token in drawn:
        assert drawn[token] / count == pytest.approx(float(probabilities[token]), abs=0.03)  # four standard deviations


@pytest.mark.parametrize(("share", "token"), [(0.0, 2), (1 - 2**-24, 4)])
def test_the_smallest_and_the_largest_random_number_draw_a_token_that_can_be(
    share: float, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([share]))
    for scale in torch.linspace(0.1, 3.0, 50):
        logits = torch.tensor([[-torch.inf, -torch.inf, 0.0, float(scale), 1.0, -torch.inf]])
        assert sample_tokens(logits, rows_of(SamplingParams(1, temperature=0.7), 1)) == [token]


def test_a_row_draws_what_it_does_alone() -> None:
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(1))
    params = [
        SamplingParams(1, temperature=t, top_p=p) for t, p in ((0.7, 1.0), (0.0, 1.0), (1.5, 0.8), (2.0, 1.0), (1, 0.1))
    ]

    def rows() -> list[tuple[SamplingParams, torch.Generator | None]]:
        return [
            (completion, torch.Generator().manual_seed(3) if completion.temperature else None) for completion in params
        ]

    together = sample_tokens(logits, rows())
    assert together == [
        sample_tokens(logits[row_index : row_index + 1], [row])[0] for row_index, row in enumerate(rows())
    ]
    assert together[1] == int(logits[1].argmax()) and together[4] == int(logits[4].argmax())
