"""What is held out never enters the corpus, licences are checked, and the same corpus comes out each time."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.distributions import distribution

from bilora.errors import BadData
from bilora.pretraining.corpus import build_corpus, licence_ids, progress_steps, recipe_exercises, source_texts
from bilora.pretraining.recipe import CorpusParams, read_pretraining
from bilora.pretraining.shards import pack_documents
from bilora.pretraining.tokenizer import CHAT_TOKENS, SPECIAL_TOKENS, train_tokenizer
from bilora.pretraining.train import rate
from bilora.sources.exercises.generate import generate_exercises
from bilora.sources.exercises.names import words_of
from bilora.sources.packages import licence_of, package_modules

ROOT = Path(__file__).resolve().parents[2]


def recipe(**changes: Any) -> CorpusParams:
    fields: dict[str, Any] = {
        "packages": ["pluggy", "packaging", "attrs"],
        "held_out": ["packaging"],
        "licences": ["MIT", "Apache-2.0", "BSD-2-Clause"],
        "exercises": {"one": 12},
        "shares": {"whole_files": 0.05, "docstring_first": 0.15, "continuations": 0.1, "fill_ins": 0.0},
        "max_file_chars": 60_000,
    }
    return CorpusParams(**{**fields, **changes})


def plain(documents: list[Any]) -> str:
    return "\n".join(d if isinstance(d, str) else "\n".join(turn["content"] for turn in d) for d in documents)


def test_a_held_out_package_never_enters_even_when_it_is_listed() -> None:
    documents, manifest = build_corpus(recipe(), 1)
    text = plain(documents)
    assert {package.name for package in manifest.packages} == {"pluggy", "attrs"}
    lines = {
        line.strip()
        for source in source_texts(package_modules("packaging", "test"), 60_000)
        for line in source.splitlines()
        if len(line.strip()) > 60
    }
    assert lines and not [line for line in lines if line in text]


def test_what_was_copied_from_a_held_out_package_does_not_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = next(iter(package_modules("packaging", "test"))).file.parent / "utils.py"
    own = (
        'def mine(x):\n    """Give back what came in."""\n    y = x  # nothing else is done to it here\n    return y\n'
    )
    distribution(tmp_path, "copycat", {"copycat/a.py": held_out.read_text() + "\n\n" + own, "copycat/b.py": own * 9})
    monkeypatch.syspath_prepend(tmp_path)
    documents, manifest = build_corpus(recipe(packages=["copycat"], exercises={}), 1)
    assert manifest.packages[0].functions == 1  # its own, once
    assert not [text for text in documents if "canonicalize" in str(text) and "Summary" in str(text)]


def test_only_compositions_of_the_train_split_enter() -> None:
    documents, manifest = build_corpus(recipe(packages=["pluggy"], exercises={"one": 400}), 1)
    text = plain(documents)
    assert manifest.exercises == {"one": 400}
    held_out = [row for row in generate_exercises("one", 111, 1, names="operations") if row.split != "train"]
    assert held_out and not [row for row in held_out if row.text in text]


@pytest.mark.parametrize(
    ("tier", "digest"),
    [
        ("one", "f9028141ef794c583d60b8ebd27622faf59efd361732858ab8d3905f58cb3c90"),
        ("two", "9282ee6533a282e500ec561e251ce0b72ea8b5212964a115f77ec7f253449ffe"),
        ("three", "e14a89d738e58a64c9470bbae82eaf2238b183122148ab2af464425dbdaa7cd8"),
    ],
    ids=["one", "two", "three"],
)
def test_the_exercises_that_the_shipped_base_read_are_made_the_same_again(tier: Any, digest: str) -> None:
    own = read_pretraining(ROOT / "models" / "nano" / "pretrain.yaml").corpus
    rows = recipe_exercises(tier, 500, 42, own.exercise_names)
    assert sha256("".join(json.dumps(asdict(row), sort_keys=True) for row in rows).encode()).hexdigest() == digest


@pytest.mark.parametrize("base", ["nano", "smoke"])
def test_the_shipped_bases_read_exercises_named_after_their_operations(base: str) -> None:
    assert read_pretraining(ROOT / "models" / base / "pretrain.yaml").corpus.exercise_names == "operations"


def test_a_recipe_may_name_exercises_by_words_of_the_train_split() -> None:
    def functions(names: Any) -> set[str]:
        rows = recipe_exercises("two", 300, 1, names)
        return {row.test_list[0].removeprefix("assert ").partition("(")[0] for row in rows}

    words = {word for name in functions("words") for word in name.split("_")}
    assert len(words) > 300 and words <= set(words_of("train"))
    documents, _ = build_corpus(recipe(packages=["pluggy"], exercises={"two": 300}, exercise_names="words"), 1)
    text = plain(documents)
    assert all(f"def {name}(" in text for name in functions("words"))
    assert not any(f"def {name}(" in text for name in functions("operations"))


@pytest.mark.parametrize("form", ["whole_files", "docstring_first", "continuations", "fill_ins"])
def test_a_share_says_how_much_of_a_form_there_is(form: str) -> None:
    shares = dict.fromkeys(recipe().shares.model_dump(), 0.0)
    none, some = (
        build_corpus(recipe(packages=["attrs"], exercises={}, shares={**shares, form: share}), 1)
        for share in (0.0, 1.0)
    )
    (package,) = some[1].packages
    files, functions = package.files, package.functions
    assert len(none[0]) == functions == none[1].packages[0].functions
    more = len(some[0]) - functions
    whole = {"whole_files": files, "docstring_first": functions}
    assert more == whole[form] if form in whole else functions / 2 < more <= functions  # the rest is too short or long


def test_the_missing_line_of_a_fill_in_is_its_answer() -> None:
    shares = {**dict.fromkeys(recipe().shares.model_dump(), 0.0), "fill_ins": 1.0}
    documents, _ = build_corpus(recipe(packages=["attrs"], exercises={}, shares=shares), 1)
    functions = {text.partition("\n\n# Summary:")[0] for text in documents if isinstance(text, str)}
    asked = [chat for chat in documents if not isinstance(chat, str)]
    assert asked
    for question, answer in asked:
        code = question["content"].removeprefix("Write the missing line.\n```python\n").removesuffix("\n```")
        line = answer["content"].removeprefix("```python\n").removesuffix("\n```")
        before, _, after = code.partition("# a line is missing here")
        assert f"{before.rstrip(' ')}{line}{after}" in functions


def test_equal_seeds_give_equal_documents() -> None:
    assert build_corpus(recipe(), 1) == build_corpus(recipe(), 1) != build_corpus(recipe(), 2)


def test_progress_is_told_for_every_source() -> None:
    params, told = recipe(exercises={"one": 3, "two": 3}), list[int]()
    build_corpus(params, 1, progress=told.append)
    assert sum(told) == progress_steps(params) == 4  # pluggy, attrs, and two tiers; packaging is held out


def test_a_licence_that_is_not_listed_stops_the_build() -> None:
    with pytest.raises(BadData, match=r"pluggy: its licence \(MIT\) is not on the list"):
        build_corpus(recipe(packages=["pluggy"], licences=["Apache-2.0"]), 1)


def test_a_package_that_is_absent_stops_the_build() -> None:
    with pytest.raises(BadData, match="not installed"):
        build_corpus(recipe(packages=["no-such-package-here"]), 1)


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("pluggy", {"MIT"}),
        ("packaging", {"Apache-2.0", "BSD-2-Clause"}),
        ("accelerate", {"Apache-2.0"}),
        ("sympy", {"BSD"}),
    ],
)
def test_licences_are_read_from_what_a_package_says(package: str, expected: set[str]) -> None:
    assert licence_ids(licence_of(metadata.distribution(package))) == expected


def test_the_tokenizer_keeps_text_and_ends_every_document() -> None:
    documents, _ = build_corpus(recipe(), 1)
    tokenizer = train_tokenizer([d for d in documents if isinstance(d, str)], 700, 128)
    text = next(d for d in documents if isinstance(d, str))
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    tokens = pack_documents(documents[:20], tokenizer)
    assert (tokens == tokenizer.eos_token_id).sum() == 20
    assert all(pack_documents([document], tokenizer)[-1] == tokenizer.eos_token_id for document in documents[:20])


def test_a_source_file_that_spells_control_tokens_is_text() -> None:
    documents, _ = build_corpus(recipe(), 1)
    tokenizer = train_tokenizer([d for d in documents if isinstance(d, str)], 700, 128)
    text = 'STOP = "<|end|>" if ended else "<|endoftext|>"  # <s>x</s>'
    chat = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    assert tokenizer.decode(pack_documents([text], tokenizer)) == text + "<|endoftext|>"
    control = [
        token for token in pack_documents([text, chat], tokenizer).tolist() if token < len(SPECIAL_TOKENS + CHAT_TOKENS)
    ]
    turns = ["<|user|>", "<|end|>", "<|assistant|>", "<|end|>"]
    assert tokenizer.convert_ids_to_tokens(control) == ["<|endoftext|>", *turns, "<|endoftext|>"]


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate(step, 100, 10) for step in range(100)]
    assert rates[0] == 0.1 and rates[9:70] == [1.0] * 61 and rates[-1] < 0.05
    assert all(a >= b for a, b in itertools.pairwise(rates[70:]))
