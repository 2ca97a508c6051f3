"""Every answer comes from the named system, in the order of the requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.random_adapters import write_random_adapter
from support.tiny_bases import tiny_base

from bilora.bases.kinds.folder import FolderBase
from bilora.errors import BadData
from bilora.inference.torch.engine import TorchEngine
from bilora.records import Message
from bilora.requests import Request, SamplingParams

ROOT = Path(__file__).resolve().parents[2]
BASE = FolderBase.at(ROOT / "models" / "smoke")


def ask(number: int, words: int = 3, **extra: Any) -> Request:
    return Request(
        str(number), (Message(role="user", content="def f(x): " * words),), SamplingParams(max_tokens=12, **extra)
    )


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    targets = {"left": "qkv_proj", "right": "gate_up_proj"}
    return {
        name: write_random_adapter(folder / name, BASE, [target], seed=seed)
        for seed, (name, target) in enumerate(targets.items())
    }


@pytest.fixture
def engine(adapters: dict[str, Path]) -> Iterator[TorchEngine]:
    yield TorchEngine(BASE.load(training=False), adapters, batch_size=4)


def texts(engine: TorchEngine, system: str, count: int = 6) -> list[str]:
    return [answer.text for answer in engine.generate(system, [ask(n, n + 1) for n in range(count)])]


def test_each_system_answers_with_its_own_weights(engine: TorchEngine, adapters: dict[str, Path]) -> None:
    alone = {
        name: texts(TorchEngine(BASE.load(training=False), {name: path}, batch_size=4), name)
        for name, path in adapters.items()
    }
    alone["base"] = texts(TorchEngine(BASE.load(training=False), {}, batch_size=4), "base")
    assert len({tuple(answers) for answers in alone.values()}) == 3
    for name in ("left", "base", "right", "left", "right", "base"):
        assert texts(engine, name) == alone[name]


def test_answers_come_back_in_the_order_of_the_requests(engine: TorchEngine) -> None:
    requests = [ask(n, words) for n, words in enumerate((2, 30, 1, 12, 5))]
    answers = engine.generate("left", requests)
    assert [answer.sample_id for answer in answers] == ["0", "1", "2", "3", "4"]
    lengths = [answer.prompt_tokens for answer in answers]
    assert sorted(range(5), key=lengths.__getitem__) == [2, 0, 4, 3, 1]


def test_an_unknown_system_is_an_error_and_never_the_base(engine: TorchEngine) -> None:
    with pytest.raises(BadData, match="no such model is loaded; loaded: base, left, right"):
        engine.generate("centre", [ask(1)])


def test_an_adapter_of_another_shape_does_not_load(tmp_path: Path, adapters: dict[str, Path]) -> None:
    other = FolderBase.at(tiny_base(tmp_path / "other", "phi3"))
    with pytest.raises(BadData, match="does not match the base"):
        TorchEngine(other.load(training=False), {"left": adapters["left"]}, batch_size=1)


def test_a_file_that_is_written_over_disturbs_no_answer(tmp_path: Path, adapters: dict[str, Path]) -> None:
    folder = shutil.copytree(adapters["left"], tmp_path / "left")
    engine = TorchEngine(BASE.load(training=False), {"left": folder}, batch_size=4)
    before = texts(engine, "left")
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    assert texts(engine, "left") == before


def test_greedy_answers_repeat(engine: TorchEngine) -> None:
    assert texts(engine, "right") == texts(engine, "right")


def test_sampled_answers_follow_their_seed(engine: TorchEngine) -> None:
    def sampled(seed: int) -> str:
        return engine.generate("base", [ask(1, temperature=1.5, seed=seed)])[0].text

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_an_answer_that_does_not_end_says_length(engine: TorchEngine) -> None:
    answers = engine.generate("right", [ask(n) for n in range(3)])
    for answer in answers:
        assert answer.output_tokens <= 12
        assert (answer.finish == "length") == (
            answer.output_tokens == 12 and "<|" not in answer.text
        ) or answer.finish == "stop"


def test_a_base_s_revision_changes_with_its_weights(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(BASE.id, tmp_path / "copy")
    copy = FolderBase.at(tmp_path / "copy")
    assert copy.identity == BASE.identity
    with (tmp_path / "copy" / "model.safetensors").open("ab") as weights:
        weights.write(b"\0")
    assert copy.identity != BASE.identity


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "additional_chat_templates/tools.jinja", "tokenizer_config.json", "tokenizer.model"]
)
def test_a_base_s_revision_changes_with_its_template_and_tokenizer(name: str, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(BASE.id, tmp_path / "copy")
    copy = FolderBase.at(tmp_path / "copy")
    path = tmp_path / "copy" / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(" ")
    assert copy.identity != BASE.identity
    (tmp_path / "copy" / "README.md").write_text("another card", encoding="utf-8")
    changed = {name for name, digest in copy.files().items() if BASE.files().get(name) != digest}
    assert changed == {name}


def test_an_absent_base_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there is no model here"):
        FolderBase.at(tmp_path).files()
