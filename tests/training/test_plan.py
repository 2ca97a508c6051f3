"""The plan counts what training will really hold."""

from __future__ import annotations

from pathlib import Path

from support.training import PAIRED, SFT, task_params
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


def test_every_phase_counts() -> None:
    base = FolderBase.at(ROOT / "models" / "smoke")
    config = AutoConfig.from_pretrained(base.id)
    one, two = task_params([SFT]), task_params([SFT, {"kind": "kto", **PAIRED, "accumulation": 2}])
    plans = [plan_task(config, base, task) for task in (one, two)]
    assert [plan.tokens_at_most for plan in plans] == [2 * 2 * 256, 2 * 2 * 256 + 6 * 2 * 4 * 256]
    assert plans[1].activation_bytes == 2 * plans[0].activation_bytes  # the largest batch, 4 rows instead of 2
