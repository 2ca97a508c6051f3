"""From a recipe to a model folder that the rest of the house can load."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.distributions import distribution
from transformers import PreTrainedTokenizerFast

from bilora.bases.kinds.folder import FolderBase
from bilora.errors import BadData
from bilora.inference.torch.engine import TorchEngine
from bilora.pretraining.build import BaseManifest, build_base
from bilora.pretraining.corpus import source_texts
from bilora.pretraining.recipe import Pretraining, read_pretraining
from bilora.pretraining.shards import load_shards, make_shards
from bilora.pretraining.speed import flops_per_token
from bilora.pretraining.tokenizer import train_tokenizer
from bilora.pretraining.train import Pretrained, new_model, pretrain
from bilora.records import Message
from bilora.requests import Request, SamplingParams
from bilora.sources.exercises.generate import generate_exercises
from bilora.sources.packages import package_modules
from bilora.storage import read_json, sha256_tree
from bilora.tracking.provenance import hardware

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe() -> Pretraining:
    smoke = read_pretraining(ROOT / "models" / "smoke" / "pretrain.yaml")
    corpus = smoke.corpus.model_copy(update={"packages": ["pluggy"], "exercises": {"one": 20}})
    shape = smoke.architecture.model_copy(update={"vocabulary": 600, "hidden": 16, "intermediate": 32})
    return smoke.model_copy(update={"corpus": corpus, "architecture": shape, "tokens": 8 * 256 * 3, "save_every": 1})


def built(
    recipe: Pretraining, out: Path, *, work: Path, seed: int = 1, log: Callable[[str], None] = lambda _: None
) -> BaseManifest:
    shards = make_shards(recipe, work, seed=seed, packages=None, log=log)
    return build_base(recipe, shards, out, seed=seed, work=work, log=log)


def test_the_folder_is_a_base_with_its_card_and_manifest(recipe: Pretraining, tmp_path: Path) -> None:
    said: list[str] = []
    manifest = built(recipe, tmp_path / "base", work=tmp_path / "work", log=said.append)
    assert read_json(tmp_path / "base" / "manifest.json") == manifest.model_dump(mode="json")
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert "| pluggy | " in card and "20 generated exercises" in card and f"{manifest.parameters:,}" in card
    assert f"{hardware()['processor']} (" in card and "OMP_NUM_THREADS=" in card
    engine = TorchEngine(FolderBase.at(tmp_path / "base").load(training=False), {}, batch_size=1)
    (made,) = engine.generate(
        "base", [Request("s", (Message(role="user", content="hi"),), SamplingParams(max_tokens=4))]
    )
    assert 1 <= made.output_tokens <= 4
    assert any("tokens in the corpus" in line for line in said)
    assert sum("bits per byte on held-out packages" in line for line in said) == 3
    assert sum("MFU" in line for line in said) == 1 and 0 < manifest.mfu < 1.5


def test_what_was_read_is_not_read_again_until_the_corpus_is_another(
    recipe: Pretraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(name: str, *, seed: int = 1, **changes: Any) -> dict[str, str]:
        said.clear()
        own = recipe.model_copy(update={"tokens": 8 * 256, **changes})
        built(own, tmp_path / name, seed=seed, work=tmp_path / "work", log=said.append)
        (tmp_path / "work" / "checkpoint.pt").unlink()
        digests = sha256_tree(tmp_path / name)
        return {file: digests[file] for file in digests if file not in ("manifest.json", "README.md")}  # the times

    said: list[str] = []
    first = made("first")
    assert "reading the corpus" in said
    assert made("again") == first and "reading the corpus" not in said
    made("longer", tokens=8 * 256 * 2)
    assert "reading the corpus" not in said
    made("other seed", seed=2)
    assert "reading the corpus" in said
    monkeypatch.setattr("bilora.pretraining.shards.corpus_versions", lambda *_: {"pluggy": "0"})
    made("other version", seed=2)
    assert "reading the corpus" in said


def test_a_corpus_that_was_made_elsewhere_gives_the_same_base_without_its_packages(
    recipe: Pretraining, tmp_path: Path
) -> None:
    text = 'def mine(x):\n    """Give back what came in."""\n    return x\n' * 9
    distribution(tmp_path, "theirs", {"theirs.py": text})
    own = recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"packages": ["pluggy", "theirs"]})})
    here = make_shards(own, tmp_path / "here", seed=1, packages=tmp_path, log=lambda _: None)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "theirs-1.0.dist-info")
    with pytest.raises(BadData, match="theirs: is not installed"):
        make_shards(own, tmp_path / "there", seed=1, packages=None, log=lambda _: None)
    there = load_shards(own, tmp_path / "there", seed=1)
    for name, shards in (("first", here), ("second", there)):
        build_base(own, shards, tmp_path / name, seed=1, work=tmp_path / name, log=lambda _: None)
    first, second = (sha256_tree(tmp_path / name) for name in ("first", "second"))
    assert first["model.safetensors"] == second["model.safetensors"]
    assert first["tokenizer.json"] == second["tokenizer.json"]


def test_a_corpus_of_another_recipe_or_half_a_corpus_is_refused(recipe: Pretraining, tmp_path: Path) -> None:
    make_shards(recipe, tmp_path, seed=1, packages=None, log=lambda _: None)
    other = recipe.corpus.model_copy(update={"max_file_chars": 50_000})
    for own, seed in ((recipe.model_copy(update={"corpus": other}), 1), (recipe, 2)):
        with pytest.raises(BadData, match="another recipe or seed"):
            load_shards(own, tmp_path, seed=seed)
    tokens = tmp_path / "tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:-200])
    with pytest.raises(BadData, match=r"tokens\.npy: is not the whole file"):
        load_shards(recipe, tmp_path, seed=1)
    tokens.unlink()
    with pytest.raises(BadData, match=r"tokens\.npy: is not the whole file"):
        load_shards(recipe, tmp_path, seed=1)


def test_nothing_held_out_is_among_the_tokens_that_are_trained_on(recipe: Pretraining, tmp_path: Path) -> None:
    corpus = recipe.corpus.model_copy(
        update={"packages": ["attrs", "packaging"], "held_out": ["packaging"], "exercises": {"one": 200}}
    )
    built(recipe.model_copy(update={"corpus": corpus}), tmp_path / "base", work=tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "base")
    text = tokenizer.decode(np.load(tmp_path / "tokens.npy"))

    def long_lines(package: str) -> set[str]:
        texts = source_texts(package_modules(package, "test"), corpus.max_file_chars)
        return {line for text in texts for line in text.splitlines() if len(line) > 60}

    assert sum(line in text for line in long_lines("attrs")) > 20
    assert not [line for line in long_lines("packaging") if line in text]
    rows = list(generate_exercises("one", None, 1, names="operations"))
    asked = {split: {row.text for row in rows if row.split == split} for split in ("train", "validation", "test")}
    assert any(question in text for question in asked["train"])
    assert not [question for question in asked["validation"] | asked["test"] if question in text]


def test_a_checkpoint_of_another_recipe_is_refused_and_more_tokens_are_not_another(
    recipe: Pretraining, tmp_path: Path
) -> None:
    tokenizer = train_tokenizer(["def f():\n    return 1\n"] * 20, 400, 64)
    tokens = np.random.default_rng(1).integers(0, 300, 8 * 256 * 4).astype(np.uint16)

    def trained(own: Pretraining) -> Pretrained:
        return pretrain(own, tokenizer, tokens, seed=1, work=tmp_path, log=lambda _: None)

    trained(recipe)
    assert trained(recipe.model_copy(update={"tokens": recipe.tokens * 2})).tokens == recipe.tokens * 2
    with pytest.raises(BadData, match="another recipe, corpus or seed"):
        trained(recipe.model_copy(update={"weight_decay": 0.5}))


def test_a_token_needs_six_operations_a_weight_and_its_attention(recipe: Pretraining) -> None:
    tokenizer = train_tokenizer(["def f():\n    return 1\n"] * 20, 400, 64)
    model = new_model(recipe.architecture, tokenizer, 1)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() == 2)  # the tied embedding once: it is the head
    attention = 6 * recipe.architecture.layers * recipe.architecture.hidden * 128
    assert flops_per_token(model, 128) == 6 * matrices + attention


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
