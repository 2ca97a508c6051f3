"""Each library requests an object in its own way; the answer conforms to the schema that the library sends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import KEY, SECOND_PYTHON, Server
from schema import SCHEMA_QUESTION, SCHEMA_TOKENS, Signature


def test_instructor(server: Server) -> None:
    script = Path(__file__).with_name("instructor_client.py")
    completed = subprocess.run(
        [SECOND_PYTHON, str(script)], env=server.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert completed.returncode == 0, completed.stderr
    Signature.model_validate_json(completed.stdout)


def test_langchain(server: Server) -> None:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model="base", base_url=server.url, api_key=KEY, max_tokens=SCHEMA_TOKENS, temperature=0)
    structured = chat.with_structured_output(Signature, method="json_schema", include_raw=True)
    reply = structured.invoke(SCHEMA_QUESTION)
    assert reply["parsing_error"] is None
    assert reply["parsed"] == Signature.model_validate_json(reply["raw"].text)


def test_pydantic_ai(server: Server) -> None:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("base", provider=OpenAIProvider(base_url=server.url, api_key=KEY))
    agent = Agent(model, output_type=NativeOutput(Signature), retries=0)
    run = agent.run_sync(SCHEMA_QUESTION, model_settings={"max_tokens": SCHEMA_TOKENS})
    assert run.output == Signature.model_validate_json(run.response.text)


def test_llm(server: Server, tmp_path: Path) -> None:
    models = f"- model_id: bilora\n  model_name: base\n  api_base: {server.url}\n  supports_schema: true\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    environment = {**server.environment, "LLM_USER_PATH": str(tmp_path)}
    command = [sys.executable, "-m", "llm", "-m", "bilora", "--key", KEY, "-o", "max_tokens", str(SCHEMA_TOKENS)]
    command += ["--schema", json.dumps(Signature.model_json_schema()), SCHEMA_QUESTION]
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0, completed.stderr
    Signature.model_validate_json(completed.stdout)
