"""From a recipe to a model folder that the rest of the house can load."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bilora.inference.loading import load_base
from bilora.inference.local import LocalEngine
from bilora.params import Base
from bilora.ports import Request
from bilora.pretraining.build import build_base
from bilora.pretraining.recipe import Pretraining, read_pretraining
from bilora.pretraining.tokenizer import train_tokenizer
from bilora.pretraining.train import Pretrained, pretrain
from bilora.records import Message
from bilora.storage import read_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe() -> Pretraining:
    smoke = read_pretraining(ROOT / "models" / "smoke" / "pretrain.yaml")
    corpus = smoke.corpus.model_copy(update={"packages": ["pluggy"], "exercises": {"one": 20}})
    shape = smoke.architecture.model_copy(update={"vocabulary": 600, "hidden": 16, "intermediate": 32})
    return smoke.model_copy(update={"corpus": corpus, "architecture": shape, "tokens": 8 * 256 * 3, "save_every": 1})


def test_the_folder_is_a_base_with_its_card_and_manifest(recipe: Pretraining, tmp_path: Path) -> None:
    said: list[str] = []
    facts = build_base(recipe, tmp_path / "base", seed=1, work=tmp_path / "work", log=said.append)
    assert read_json(tmp_path / "base" / "manifest.json") == facts
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert "| pluggy | " in card and "20 generated exercises" in card and f"{facts['parameters']:,}" in card
    engine = LocalEngine(load_base(Base(id=str(tmp_path / "base"))), {}, batch_size=1)
    (made,) = engine.generate("base", [Request("s", (Message(role="user", content="hi"),), 4)])
    assert 1 <= made.output_tokens <= 4
    assert any("tokens in the corpus" in line for line in said)


@pytest.mark.parametrize("killed_at", [2, 4], ids=["between steps", "after the last"])
def test_an_interrupted_run_ends_where_a_whole_one_does(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    tokenizer = train_tokenizer(["def f():\n    return 1\n"] * 20, 400, 64)
    tokens = np.random.default_rng(1).integers(0, 300, 8 * 256 * 4).astype(np.uint16)

    def trained(name: str) -> Pretrained:
        (tmp_path / name).mkdir(exist_ok=True)
        return pretrain(recipe, tokenizer, tokens, seed=1, work=tmp_path / name, log=lambda _: None)

    whole = trained("whole")
    genuine, calls = torch.nn.utils.clip_grad_norm_, []

    def killed(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        return genuine(*arguments, **options)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(torch.nn.utils, "clip_grad_norm_", killed)
        trained("killed")
    again = trained("killed")
    assert again.loss == whole.loss
    for one, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)
