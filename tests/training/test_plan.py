"""The plan counts what training will really hold."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig

from bilora.bases.kinds.folder import FolderBase
from bilora.params import read_params
from bilora.training.adapter import attach
from bilora.training.plan import plan_task

ROOT = Path(__file__).resolve().parents[2]


def test_the_counts_are_those_of_the_model() -> None:
    base = FolderBase.at(ROOT / "models" / "smoke")
    task = read_params(ROOT / "profiles" / "smoke.yaml").tasks["docstring"]
    planned = plan_task(AutoConfig.from_pretrained(base.id), base, task)
    model = base.load(training=False).model
    assert planned.base_parameters == sum(parameter.numel() for parameter in model.parameters())
    attached = attach(model, task.adapter, seed=1)
    assert planned.trainable_parameters == sum(p.numel() for p in attached.parameters() if p.requires_grad)
