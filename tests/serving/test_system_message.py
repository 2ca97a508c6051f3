"""System messages: a task has its system prompt, the base that of its chat template.

The ids are from llama.cpp's tokenizer (llama-cpp-python 0.3.36) with the packaged file.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.gguf_files import packaged_gguf

from bilora.bases.gguf_file import read_gguf
from bilora.bases.gguf_tokenizer import gguf_tokenizer
from bilora.bases.prompt import encode_prompt
from bilora.bases.tokenizer import Tokenizer
from bilora.serving.chat import ChatRequest
from bilora.tasks import load_task

SYSTEM, USER, END, ASSISTANT = [1, 9690, 198], [1, 4093, 198], [2, 198], [1, 520, 9531, 198]
"""The control tokens of ChatML with the role's name and the line end that follows."""
NAMED_SMOLLM = [2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182]
"""'You are a helpful AI assistant named SmolLM, trained by Hugging Face'"""
WRITES, EXPLAINS = [2683, 2965, 5905, 3691, 30], [2683, 3556, 5905, 3691, 30]
"""'You write Python functions.' and 'You explain Python functions.'"""
QUESTION = [104, 446, 216, 33, 34]
"""'x = 12': digits are tokens of their own."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The tokenizer of SmolLM2-135M-Instruct, built from the packaged file."""
    file = packaged_gguf()
    built: Tokenizer = gguf_tokenizer(read_gguf(file).metadata, file)
    return built


def ids(tokenizer: Tokenizer, messages: list[Any], system_prompt: str | None) -> list[int]:
    """Return the prompt's ids of a request over HTTP."""
    body = ChatRequest.model_validate({"model": "x", "messages": messages})
    [request] = body.requests("id", system_prompt, penalty=0.0)
    return encode_prompt(tokenizer, request.messages)


def test_the_base_without_a_system_message_gets_the_template_s(tokenizer: Tokenizer) -> None:
    prompt_ids = ids(tokenizer, [{"role": "user", "content": "x = 12"}], None)
    assert prompt_ids == [*SYSTEM, *NAMED_SMOLLM, *END, *USER, *QUESTION, *END, *ASSISTANT]


def test_a_client_s_own_system_message_replaces_it(tokenizer: Tokenizer) -> None:
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "You write Python functions."}, {"role": "user", "content": "x = 12"}]
        assert ids(tokenizer, messages, None) == [*SYSTEM, *WRITES, *END, *USER, *QUESTION, *END, *ASSISTANT]


@pytest.mark.parametrize(("name", "system"), [("codegen", WRITES), ("docstring", EXPLAINS)])
def test_a_task_always_sends_its_own(tokenizer: Tokenizer, name: str, system: list[int]) -> None:
    task = load_task(name)
    expected = [*SYSTEM, *system, *END, *USER, *QUESTION, *END, *ASSISTANT]
    assert encode_prompt(tokenizer, task.messages("x = 12")) == expected
    assert ids(tokenizer, [{"role": "user", "content": "x = 12"}], task.system) == expected
