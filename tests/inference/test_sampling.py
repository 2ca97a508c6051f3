from __future__ import annotations

from collections import Counter

import pytest
import torch
from support.sample_adapters import chat_request, prompts

from bilora.inference.sampling import apply_penalties, mask_tokens
from bilora.inference.torch.engine import TorchEngine
from bilora.requests import SamplingParams

LONG = 120


def test_penalties_are_taken_off_what_the_answer_holds() -> None:
    logits = torch.zeros(3, 4)
    rows = [
        (SamplingParams(9, frequency_penalty=0.5, presence_penalty=0.25), [1, 1, 3]),
        (SamplingParams(9), [1, 1, 3]),
        (SamplingParams(9, presence_penalty=-1.0), [0, 0]),
    ]
    assert apply_penalties(logits, rows).tolist() == [[0, -1.25, 0, -0.75], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert not logits.any()


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_a_penalised_row_repeats_less_and_its_neighbours_are_what_they_were(mixed: TorchEngine, penalty: str) -> None:
    texts = prompts(8)
    plain = [chat_request(text, LONG) for text in texts]
    penalised = [chat_request(text, LONG, **{penalty: 2.0}) for text in texts]
    expected = mixed.generate("codegen", plain)
    made = mixed.generate_mixed(
        [("codegen", request) for pair in zip(plain, penalised, strict=True) for request in pair]
    )
    assert [one.text for one in made[::2]] == [one.text for one in expected]

    def repeated(answers: list[str]) -> int:
        return sum(max(Counter(text.split()).values(), default=0) for text in answers)

    assert repeated([one.text for one in made[1::2]]) < repeated([one.text for one in made[::2]])


def test_an_end_token_without_a_logit_masks_nothing() -> None:
    logits = torch.zeros(2, 4)
    masked = mask_tokens(logits, [1], [2, 4, 9, -1])
    assert masked.isinf().nonzero().tolist() == [[1, 2]]
    assert not logits.isinf().any()
