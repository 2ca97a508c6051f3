"""Each library is used as the first page of its documentation shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import KEY, Server

QUESTION = "Write a Python function that adds two numbers."


def test_openai(server: Server) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=server.url, api_key=KEY)
    messages = [{"role": "user", "content": QUESTION}]
    chat = client.chat.completions.create(model="base", messages=messages, max_tokens=12)
    streamed = client.chat.completions.create(model="base", messages=messages, max_tokens=12, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert text == chat.choices[0].message.content != ""
    assert client.responses.create(model="base", input=QUESTION, max_output_tokens=12).output_text == text
    assert client.completions.create(model="base", prompt="def add(a, b):", max_tokens=8).choices[0].text


def test_litellm_and_its_context_fallback(server: Server) -> None:
    import litellm
    import pytest

    parameters = {"model": "openai/base", "api_base": server.url, "api_key": KEY}
    messages = [{"role": "user", "content": QUESTION}]
    completion = litellm.completion(messages=messages, max_tokens=12, top_p=0.9, parallel_tool_calls=None, **parameters)
    assert completion.choices[0].message.content
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(messages=messages, max_tokens=100_000, **parameters)


def test_langchain(server: Server) -> None:
    from langchain_openai import ChatOpenAI, OpenAI

    chat = ChatOpenAI(model="base", base_url=server.url, api_key=KEY, max_tokens=12, temperature=0)
    assert chat.invoke(QUESTION).content
    assert "".join(chunk.text for chunk in chat.stream(QUESTION))
    assert OpenAI(model="base", base_url=server.url, api_key=KEY, max_tokens=8).invoke("def add(a, b):")


def test_pydantic_ai(server: Server) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("base", provider=OpenAIProvider(base_url=server.url, api_key=KEY))
    assert Agent(model, instructions="You write Python.").run_sync(QUESTION, model_settings={"max_tokens": 12}).output


def test_llm(server: Server, tmp_path: Path) -> None:
    models = f"- model_id: bilora\n  model_name: base\n  api_base: {server.url}\n  api_key_name: bilora\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    environment = {**server.environment, "LLM_USER_PATH": str(tmp_path)}
    command = [sys.executable, "-m", "llm", "-m", "bilora", "--key", KEY, "-o", "max_tokens", "12", QUESTION]
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0 and completed.stdout.strip(), completed.stderr


def test_inspect_ai(server: Server, tmp_path: Path) -> None:
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes

    task = Task(dataset=[Sample(input=QUESTION, target="def")], scorer=includes())
    for model in ("openai/base", "openai-api/bilora/base"):
        (log,) = evaluate(
            task,
            model=model,
            model_base_url=server.url,
            model_args={"api_key": KEY},
            max_tokens=24,
            log_dir=str(tmp_path),
            display="none",
        )
        assert log.status == "success", log.error
        assert log.samples and log.samples[0].output.completion
