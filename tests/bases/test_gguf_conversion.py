"""A GGUF file is converted once and atomically into a model folder with the weights that transformers reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.gguf_files import SMOLLM2, packaged_gguf, tiny_gguf
from transformers import AutoModelForCausalLM

from bilora.bases import gguf_conversion as module
from bilora.bases.architectures import interleave_halves, separate_halves
from bilora.bases.base import Base, open_base
from bilora.bases.gguf_file import read_gguf
from bilora.bases.kinds.folder import FolderBase, FolderSettings
from bilora.bases.kinds.hub import HubSettings
from bilora.errors import BadData
from bilora.inference.torch.engine import TorchEngine
from bilora.protocols import no_bar
from bilora.records import Message
from bilora.requests import Request, SamplingParams
from bilora.storage import read_json

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, wide heads": ("llama", {"head_dim": 32}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
}


def opened(root: Path, **settings: Any) -> Base:
    return open_base(FolderSettings(kind="folder", path="models/tiny.gguf", **settings), root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    tiny_gguf(tmp_path / "models" / "tiny.gguf")
    return tmp_path


def by_transformers(file: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    weights: dict[str, torch.Tensor] = model.state_dict()
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight")
    return weights


@pytest.mark.parametrize("form", FORMS)
def test_the_weights_are_those_that_transformers_reads(form: str, tmp_path: Path) -> None:
    model_type, config = FORMS[form]
    file = tiny_gguf(tmp_path / "tiny.gguf", model_type, config=config)
    ours = load_file(open_base(FolderSettings(kind="folder", path=file.name), tmp_path).folder() / "model.safetensors")
    theirs = by_transformers(file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_the_packaged_weights_are_those_that_transformers_reads(tmp_path: Path) -> None:
    file = packaged_gguf()
    ours = load_file(open_base(SMOLLM2, tmp_path).folder() / "model.safetensors")
    theirs = by_transformers(file)
    assert ours.keys() == theirs.keys() and sum(tensor.numel() for tensor in ours.values()) == 134_515_008
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_separate_halves_undoes_interleave_halves() -> None:
    rows = torch.randn(24, 5)
    assert torch.equal(separate_halves(interleave_halves(rows, 3), 3), rows)
    assert not torch.equal(interleave_halves(rows, 3), rows)


def test_the_configuration_is_that_of_the_model(root: Path) -> None:
    base = opened(root)
    config, settings = base.config(), read_json(base.folder() / "config.json")
    assert settings["rope_theta"] == settings["rope_parameters"]["rope_theta"] == config.rope_parameters["rope_theta"]
    assert settings["architectures"] == ["LlamaForCausalLM"] and settings["dtype"] == "bfloat16"
    assert (config.hidden_size, config.num_key_value_heads, config.head_dim, config.rms_norm_eps) == (64, 2, 16, 1e-6)
    assert not config.tie_word_embeddings and config.vocab_size == len(base.tokenizer())


def test_the_pad_token_is_not_the_end_token_that_the_file_pads_with(root: Path) -> None:
    base = opened(root)
    assert base.tokenizer().pad_token == "<|endoftext|>" and base.config().pad_token_id == 0
    generation = base.generation_config()
    assert (generation.pad_token_id, generation.eos_token_id) == (0, 2)
    assert read_json(base.folder() / "tokenizer_config.json")["pad_token"] == "<|endoftext|>"
    assert base.load(training=False).stop_ids == [2]


def test_it_is_a_base_like_its_folder(root: Path) -> None:
    base = opened(root)
    folder = FolderBase.at(base.folder())
    assert base.id == "models/tiny.gguf" and base.identity == folder.identity and base.files() == folder.files()
    assert "model.safetensors" in base.bundled_files() and base.hub is None
    assert base.weights_note == "The adapter was trained on the de-quantised weights of tiny.gguf in this repository."
    request = Request("one", (Message(role="user", content="in in"),), SamplingParams(max_tokens=5))
    answers = [
        TorchEngine(loadable.load(training=False), {}, batch_size=1).generate("base", [request])
        for loadable in (base, folder)
    ]
    assert answers[0][0].text == answers[1][0].text


def test_it_serves_the_file_itself_unless_another_quantization_is_named(root: Path) -> None:
    base = opened(root)
    assert base.gguf(None, lambda *_: pytest.fail("converted")) == root / "models" / "tiny.gguf"
    assert base.gguf("f16", lambda base, quantization: Path(f"{quantization}.gguf")) == Path("f16.gguf")


def test_the_same_file_gives_the_same_bytes(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(root / "models", other / "models")
    first, second = opened(root), opened(other)
    assert first.bundled_files() == second.bundled_files() and first.folder().name == second.folder().name


def test_it_is_converted_once_with_progress(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[tuple[str, int]] = []

    def bars(title: str, total: int) -> Any:
        titles.append((title, total))
        return no_bar(title, total)

    opened(root).prepare(bars)
    assert titles == [("De-quantising models/tiny.gguf", 30)]
    opened(root).tokenizer()
    monkeypatch.setattr(module, "read_gguf", lambda path: pytest.fail("converted again"))
    opened(root).prepare(bars)
    opened(root).load(training=False)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "SHA256SUMS"])
@pytest.mark.parametrize("change", ["altered", "cut", "removed"])
def test_a_changed_folder_is_written_again(name: str, change: str, root: Path) -> None:
    base = opened(root)
    before = base.bundled_files()
    path = base.folder() / name
    if change == "removed":
        path.unlink()
    else:
        data = before[name]
        path.write_bytes(data[:-3] if change == "cut" else data[:-3] + bytes(3))
    assert base.bundled_files() == before


def test_a_foreign_file_in_the_folder_is_removed_with_it(root: Path) -> None:
    base = opened(root)
    (base.folder() / "adapter.json").write_text("{}")
    assert "adapter.json" not in base.bundled_files()


def test_nothing_is_left_of_a_conversion_that_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_weights", fail)
    with pytest.raises(OSError, match="No space"):
        opened(root).folder()
    assert list((root / ".cache" / "bases").iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"llama__rope__scaling__type": "linear"}, r"its positions are scaled \(linear\)"),
        ({"llama__rope__dimension_count": 8}, "only 0.50 of each head is rotated"),
        ({"llama__block_count": None}, "lacks llama.block_count"),
        ({"llama__block_count": 2}, "contains blk.2"),
        ({"llama__block_count": 4}, "lacks the weights blk.3"),
        ({"tokenizer__chat_template": None}, "no chat template"),
        ({"tokenizer__ggml__eos_token_id": None}, "names no EOS token"),
    ],
)
def test_a_file_that_would_be_computed_differently_is_rejected(
    changed: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    tiny_gguf(tmp_path / "models" / "tiny.gguf", **changed)
    with pytest.raises(BadData, match=sentence):
        opened(tmp_path).folder()


@pytest.mark.parametrize("size", [0, 3, 100, 20_000])
def test_half_a_file_and_no_file_are_one_sentence(size: int, root: Path) -> None:
    file = root / "models" / "tiny.gguf"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(BadData, match="is not a complete GGUF file"):
        opened(root).config()
    file.unlink()
    with pytest.raises(BadData, match=r"models/tiny.gguf: there is no GGUF file here"):
        opened(root).config()


def test_another_architecture_is_rejected(tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes().replace(b"llama", b"mamba"))
    with pytest.raises(BadData, match="has the architecture mamba; supported are phi3, llama, qwen2"):
        read_gguf(file)


def test_a_file_of_the_hub_is_pinned_by_its_commit_and_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    requests: list[tuple[str, str, str]] = []

    def download(id: str, file: str, *, revision: str) -> str:
        requests.append((id, file, revision))
        return str(root / "models" / "tiny.gguf")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    base, other = (
        open_base(HubSettings(kind="hub", id="owner/name", revision=commit, file=file), root)
        for file in ("tiny-Q8_0.gguf", "other.gguf")
    )
    assert base.identity != other.identity != commit and base.files() == {} and base.bundled_files() == {}
    assert (base.id, base.hub, base.revision) == ("owner/name", "owner/name", commit)
    assert base.download_note == f"tiny-Q8_0.gguf of owner/name at {commit}, once, into the hub cache"
    assert base.weights_note.startswith(
        "The adapter was trained on the de-quantised Q8_0 weights of tiny-Q8_0.gguf in owner"
    )
    assert base.load(training=False).model.config.name_or_path == "owner/name"
    assert set(requests) == {("owner/name", "tiny-Q8_0.gguf", commit)}
