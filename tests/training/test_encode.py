"""The answer and its stop token are trained, and the prompts of training are those of use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.shared_data import shared_file

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.prompt import encode_prompt
from bilora.bases.special_tokens import stop_ids
from bilora.errors import PreflightFailed
from bilora.records import Message, Sample
from bilora.tasks import load_task
from bilora.training.encode import IGNORE_INDEX, encode_sample
from bilora.training.phases.sft import hide_some_tests
from bilora.training.preflight import preflight

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("codegen", "docstring")


def curated_samples(task: str) -> list[Sample]:
    rows = json.loads((ROOT / "benchmarking" / "eval_dataset.json").read_text(encoding="utf-8"))["samples"]
    samples = [load_task(task).sample(row) for row in rows if row["task"] == task]
    return [sample for sample in samples if isinstance(sample, Sample)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return FolderBase.at(ROOT / "models" / "smoke").tokenizer()


@pytest.fixture(scope="module")
def stops(tokenizer: Any, smoke_loaded: Any) -> list[int]:
    return stop_ids(tokenizer, smoke_loaded.model.generation_config)


@pytest.mark.parametrize("name", TASKS)
def test_the_prompt_of_training_is_the_prompt_of_use(name: str, tokenizer: Any, stops: list[int]) -> None:
    task = load_task(name)
    for sample in curated_samples(name):
        row = encode_sample(tokenizer, task, sample, stops)
        prompt = encode_prompt(tokenizer, task.messages(sample.prompt))
        assert row.input_ids[: len(prompt)] == prompt
        assert row.labels[: len(prompt)] == [IGNORE_INDEX] * len(prompt)


@pytest.mark.parametrize("name", TASKS)
def test_the_answer_and_its_end_token_are_all_that_is_trained(name: str, tokenizer: Any, stops: list[int]) -> None:
    task = load_task(name)
    for sample in curated_samples(name):
        trained = encode_sample(tokenizer, task, sample, stops).trained_ids
        assert trained[-1] == tokenizer.convert_tokens_to_ids("<|end|>")
        assert not set(trained[:-1]) & set(stops)
        assert tokenizer.decode(trained[:-1]) == task.answer(sample.target)


@pytest.mark.parametrize("mark", ["<|end|>", "<|endoftext|>", "<|assistant|>", "</s>"])
def test_a_row_that_spells_a_control_token_is_trained_to_its_end(mark: str, tokenizer: Any, stops: list[int]) -> None:
    task, sample = load_task("codegen"), curated_samples("codegen")[0]
    code = f'def ends(text):\n    return text.endswith("{mark}")'
    spelled = sample.model_copy(update={"prompt": f"Does it end with {mark}?", "target": code})
    row, original = (encode_sample(tokenizer, task, item, stops) for item in (spelled, sample))
    assert task.extract(tokenizer.decode(row.trained_ids, skip_special_tokens=True)) == code

    def control(ids: list[int]) -> list[int]:
        return [token for token in ids if token in tokenizer.added_tokens_decoder]

    assert control(row.input_ids) == control(original.input_ids) and row.trained_ids[-1] == original.trained_ids[-1]
    assert preflight(tokenizer, task, [spelled], stops, max_length=512).rows == [row]


def test_too_long_rows_are_skipped_and_counted(tokenizer: Any, stops: list[int]) -> None:
    task, samples = load_task("docstring"), curated_samples("docstring")
    lengths = sorted(len(encode_sample(tokenizer, task, sample, stops).input_ids) for sample in samples)
    checked = preflight(tokenizer, task, samples, stops, max_length=lengths[-2])
    assert checked.too_long == 1 and len(checked.rows) == len(samples) - 1
    assert all(row.trained_ids[-1] in stops for row in checked.rows)


def test_mostly_too_long_rows_stop_the_run(tokenizer: Any, stops: list[int]) -> None:
    with pytest.raises(PreflightFailed, match="max_length"):
        preflight(tokenizer, load_task("docstring"), curated_samples("docstring"), stops, max_length=20)


def test_no_rows_stop_the_run(tokenizer: Any, stops: list[int]) -> None:
    with pytest.raises(PreflightFailed, match="no training sample"):
        preflight(tokenizer, load_task("docstring"), [], stops, max_length=512)


def test_a_template_without_an_end_token_stops_the_run(tokenizer: Any) -> None:
    with pytest.raises(PreflightFailed, match="never stop"):
        encode_sample(tokenizer, load_task("docstring"), curated_samples("docstring")[0], [10**9])


def test_the_printed_masks_are_the_trained_tokens(tokenizer: Any, stops: list[int]) -> None:
    checked = preflight(tokenizer, load_task("docstring"), curated_samples("docstring"), stops, max_length=512)
    assert len(checked.masks) == 3 and all("<|end|>" in mask.split("| trained")[1] for mask in checked.masks)


def test_phi3_s_tokenizer_passes_its_vectors(phi3: Any) -> None:
    texts = shared_file("phi3-tokenizer/vectors.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    expected = shared_file("phi3-tokenizer/vectors.out").read_text(encoding="utf-8").split("\n")[:47]
    assert len(texts) == len(expected) == 47
    for text, line in zip(texts, expected, strict=True):
        assert phi3(text, add_special_tokens=False)["input_ids"] == [int(token) for token in line.split()], text


def test_phi3_s_chat_has_its_golden_ids(phi3: Any) -> None:
    chat = (
        Message(role="system", content="You write Python."),
        Message(role="user", content="Add two numbers."),
    )
    assert encode_prompt(phi3, chat) == GOLDEN


def test_phi3_pads_with_the_unknown_token(phi3: Any) -> None:
    assert (phi3.pad_token, phi3.padding_side) == ("<unk>", "left")


GOLDEN = [32006, 887, 2436, 5132, 29889, 32007, 32010, 3462, 1023, 3694, 29889, 32007, 32001]


def test_a_share_of_the_rows_shows_no_test() -> None:
    task, samples = load_task("codegen"), curated_samples("codegen")
    partly_hidden = hide_some_tests(task, samples, 0.5, seed=1)
    visible = ["Must pass: " in sample.prompt for sample in partly_hidden]
    assert all("Must pass: " in sample.prompt for sample in samples)
    assert 0 < visible.count(False) == round(len(samples) / 2) < len(samples)
    assert [sample.target for sample in partly_hidden] == [sample.target for sample in samples]
    assert hide_some_tests(task, samples, 0.5, seed=1) == partly_hidden != hide_some_tests(task, samples, 0.5, seed=2)
    assert hide_some_tests(task, samples, 0.0, seed=1) == samples
    with pytest.raises(PreflightFailed, match="docstring shows no tests"):
        hide_some_tests(load_task("docstring"), curated_samples("docstring"), 0.5, seed=1)
