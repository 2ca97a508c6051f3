"""lm_eval with local task files; its only model arguments are the model's name and the server's address."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import PYTHON, Server

QUESTIONS = [
    {"question": "2 + 2 =", "choices": ["4", "7"], "answer": 0},
    {"question": "The capital of France is", "choices": ["Paris", "a stone in the river"], "answer": 0},
    {"question": "def add(a, b):\n    return", "choices": ["a + b", "print('no')"], "answer": 0},
]
KINDS: dict[str, dict[str, Any]] = {
    "multiple_choice": {
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
    },
    "generate_until": {
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
    "loglikelihood_rolling": {
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{choices[answer]}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    },
}
REFERENCE_SCRIPT = """
import json, sys, torch
from pathlib import Path
from bilora.workspace import Workspace
loaded = Workspace(Path()).base().load(training=False)
log_likelihoods = []
for context, continuation in json.load(sys.stdin):
    # An empty context is the BOS token.
    context_ids = loaded.tokenizer(context, add_special_tokens=False)["input_ids"] or [loaded.tokenizer.bos_token_id]
    ids = loaded.tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    ids = ids if context else context_ids + ids
    with torch.no_grad():
        logprobs = loaded.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    log_likelihoods.append(sum(float(logprobs[i - 1, ids[i]]) for i in range(len(context_ids), len(ids))))
print(json.dumps(log_likelihoods))
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one task per kind of request."""
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS), encoding="utf-8")
    for kind, fields in KINDS.items():
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        task = {"task": f"local_{kind}", "output_type": kind, **source, **fields}
        (folder / f"{kind}.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    return folder


def run(server: Server, tasks: Path, output_dir: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "lm_eval", "--include_path", str(tasks), "--log_samples"]
    command += ["--output_path", str(output_dir), *arguments]
    completed = subprocess.run(
        command, env=server.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert completed.returncode == 0, completed.stderr[-3000:]


def samples(output_dir: Path, kind: str) -> list[dict[str, Any]]:
    (file,) = output_dir.rglob(f"samples_local_{kind}_*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_local_completions_runs_every_kind_and_scores_as_the_model_does(
    server: Server, tasks: Path, tmp_path: Path
) -> None:
    model = f"model=base,base_url={server.url}/completions"
    kinds = ",".join(f"local_{kind}" for kind in KINDS)
    run(server, tasks, tmp_path, "--model", "local-completions", "--model_args", model, "--tasks", kinds)
    assert all(sample["resps"][0][0] for sample in samples(tmp_path, "generate_until"))
    pairs, scores = [], []
    for sample in samples(tmp_path, "multiple_choice"):
        for arguments, response in zip(sample["arguments"].values(), sample["resps"], strict=True):
            pairs.append((arguments["arg_0"], arguments["arg_1"]))
            scores.append(float(response[0][0]))
    for sample in samples(tmp_path, "loglikelihood_rolling"):
        pairs.append(("", sample["arguments"]["gen_args_0"]["arg_0"]))
        scores.append(float(sample["resps"][0][0]))
    assert len(pairs) == 9
    reference = subprocess.run(
        [PYTHON, "-c", REFERENCE_SCRIPT],
        cwd=server.folder,
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
    )
    assert scores == pytest.approx(json.loads(reference.stdout), abs=1e-4)


def test_local_chat_completions_generates(server: Server, tasks: Path, tmp_path: Path) -> None:
    model = f"model=base,base_url={server.url}/chat/completions"
    chat = ("--model", "local-chat-completions", "--model_args", model, "--apply_chat_template")
    run(server, tasks, tmp_path, *chat, "--tasks", "local_generate_until")
    assert all(sample["resps"][0][0] for sample in samples(tmp_path, "generate_until"))
