"""The plan's counts are those of the real training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from support.training import PAIRED, SFT, TASK, sample, task_params
from transformers import AutoConfig

from bilora.bases.kinds.folder import FolderBase
from bilora.bases.special_tokens import stop_ids
from bilora.params import TaskParams, read_params
from bilora.training.adapter import attach_adapter
from bilora.training.encode import encode_sample, row_lengths
from bilora.training.packed_model import pass_tokens
from bilora.training.plan import MAX_ONEDNN_BYTES, ONEDNN_BYTES_PER_STEP, Plan, plan_task

ROOT = Path(__file__).resolve().parents[2]


BASE = FolderBase.at(ROOT / "models" / "smoke")


def planned(task: TaskParams, lengths: Sequence[int] = (100, 120, 256), saved_bytes: float = 1000.0) -> Plan:
    return plan_task(AutoConfig.from_pretrained(BASE.id), BASE, task, saved_bytes, lengths)


def test_the_counts_are_those_of_the_model() -> None:
    task = read_params(ROOT / "profiles" / "smoke.yaml").tasks["docstring"]
    model = BASE.load(training=False).model
    assert planned(task).base_parameters == sum(parameter.numel() for parameter in model.parameters())
    attached = attach_adapter(model, task.adapter, seed=1)
    assert planned(task).trainable_parameters == sum(p.numel() for p in attached.parameters() if p.requires_grad)


def test_every_phase_counts() -> None:
    first, both = task_params([SFT]), task_params([SFT, {"kind": "kto", **PAIRED, "accumulation": 2}])
    mean = (100 + 120 + 256) / 3
    assert [planned(task).tokens for task in (first, both)] == [round(4 * mean), round((4 + 48) * mean)]


def test_activations_are_those_of_the_longest_batch_and_at_most_of_one_pass() -> None:
    task = task_params([{**SFT, "batch_size": 2}])
    activations = [
        planned(task, lengths, saved_bytes).activation_bytes
        for lengths, saved_bytes in (((9, 100, 256), 0.0), ((9, 100, 256), 10.0))
    ]
    assert activations[1] - activations[0] == 356 * 10
    many = task_params([{**SFT, "batch_size": 400}])
    assert planned(many, [100] * 400, 10.0).activation_bytes - activations[0] == pass_tokens() * 10
    long_row = planned(task, [3 * pass_tokens()], 10.0).activation_bytes
    assert long_row - activations[0] == 3 * pass_tokens() * 10


def test_onednn_s_memory_grows_with_the_steps_up_to_a_limit() -> None:
    short, long = (planned(task_params([{**SFT, "steps": steps}])).onednn_bytes for steps in (3, 1000))
    assert (short, long) == ((0, 0) if torch.cuda.is_available() else (3 * ONEDNN_BYTES_PER_STEP, MAX_ONEDNN_BYTES))


def test_lengths_are_those_of_the_encoded_rows() -> None:
    samples = [sample(number) for number in range(6)]
    tokenizer = BASE.tokenizer()
    stops = stop_ids(tokenizer, BASE.generation_config())
    expected = [len(encode_sample(tokenizer, TASK, item, stops).input_ids) for item in samples]
    assert row_lengths(BASE, TASK, samples, 256) == expected
    assert row_lengths(BASE, TASK, samples, expected[0]) == [item for item in expected if item <= expected[0]]
