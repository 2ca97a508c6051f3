"""A GGUF file's tokenizer splits texts as llama.cpp does with the same file."""

from __future__ import annotations

import random
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.gguf_files import packaged_gguf, tiny_gguf, vocabulary_gguf

from bilora.bases.gguf_file import read_gguf
from bilora.bases.gguf_tokenizer import PRE_TOKENIZERS, gguf_tokenizer
from bilora.errors import BadData

FRAGMENTS = (
    " ", "  ", "    ", "\n", "\t", "\r\n", " \n", "\u00a0", "\u3000", "\u2028", "\x85", "\x0b", "\x1c", "\u200b",
    "'s", "'S", "n't", "'ll", "'RE", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<file_sep>", "<|im_", "٣٤", "²½",
    "Ⅷ", "e\u0301", "é", "👩‍💻", "    return x[12:]\n", "x =    3", "def f(a1, b22):\n",
)  # fmt: skip

HARD = {
    "    1": [289, 33],
    "x =    3": [104, 446, 289, 35],
    "a[10] += 2048": [81, 75, 33, 32, 77, 4519, 216, 34, 32, 36, 40],
    "def f(x1):\n        return  2": [1604, 275, 24, 104, 33, 727, 448, 1003, 256, 34],
    "\t\tpi = 3.14159  # \u03c0\r\n": [197, 197, 9020, 446, 216, 35, 30, 33, 36, 33, 37, 41, 216, 907, 25143, 2738],
    "it's I'LL we'Ve '9": [269, 506, 339, 23, 16421, 392, 23, 25917, 637, 41],
    "\xb2\xbd \u2167 \u0663\u0664": [19133, 16738, 216, 173, 223, 117, 216, 164, 113, 164, 114],
    "na\xefve e\u0301\xe9 \u4f60\u597d": [3546, 46494, 297, 151, 219, 2756, 216, 18645, 250, 48392, 138],
    "a\xa0\u3000b\u2028c": [81, 15442, 12109, 218, 82, 321, 118, 83],
    "end   \n\n\n  x": [486, 333, 1116, 3805, 1792],
    " \x06> \x14_": [216, 46, 216, 79],
    "<|im_start|>user\n 12<|im_end|>\n<|im_<|endoftext|>": [1, 4093, 3805, 33, 34, 2, 198, 44, 108, 306, 79, 0],
}
"""Ids of the packaged file's tokenizer in llama.cpp 0.3.36 (llama-cpp-python)."""


@cache
def tokenizer_of(path: Path, pre: str | None = None) -> Any:
    metadata = read_gguf(path).metadata
    if pre is not None:
        metadata = {**metadata, "tokenizer.ggml.pre": pre}
        del metadata["tokenizer.ggml.add_bos_token"]
    return gguf_tokenizer(metadata, path)


def sources(count: int) -> Iterator[str]:
    """Yield stretches of installed packages' code, with their docstrings, from many files."""
    import numpy

    site = Path(numpy.__file__).parents[1]
    lines: list[str] = []
    rng = random.Random(3)
    files = sorted(site.glob("*/*.py"))
    rng.shuffle(files)
    for file in files:
        lines = file.read_text(encoding="utf-8", errors="ignore").splitlines()[:200]
        for start in range(0, len(lines), 12):
            yield "\n".join(lines[start : start + 12])
            if (count := count - 1) == 0:
                return


def mixtures(count: int) -> Iterator[str]:
    """Yield texts of numbers, spaces, special tokens, and characters from all of Unicode that this Python knows."""
    rng = random.Random(4)
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 25)):
            kind = rng.random()
            if kind < 0.4:
                parts.append(rng.choice(FRAGMENTS))
            elif kind < 0.6:
                parts.append(str(rng.randrange(10 ** rng.randrange(1, 7))))
            else:
                char = chr(rng.randrange(1, rng.choice((0x7F, 0x24F, 0x7FF, 0xFFFF, 0x1FFFF))))
                parts.append(char if unicodedata.category(char) not in ("Cn", "Cs") else "a")
        yield "".join(parts)


def llama(path: Path) -> Any:
    library = pytest.importorskip("llama_cpp", reason='llama.cpp is not installed: pip install "bilora[llamacpp]"')
    return library.Llama(str(path), vocab_only=True, verbose=False)


def differing(path: Path, tokenizer: Any, texts: Iterator[str]) -> tuple[int, list[str]]:
    """Return how many texts there are, and those that llama.cpp encodes differently, as much as is needed to see it."""
    model, count, different = llama(path), 0, []
    for text in texts:
        count += 1
        if model.tokenize(text.encode(), add_bos=True, special=True) != tokenizer(text)["input_ids"]:
            different.append(text[:200])
    return count, different


@pytest.mark.slow
def test_the_packaged_file_is_read_as_by_llama_cpp() -> None:
    path = packaged_gguf()
    tokenizer = tokenizer_of(path)
    assert differing(path, tokenizer, sources(5000)) == (5000, [])
    assert differing(path, tokenizer, mixtures(6000)) == (6000, [])


def test_every_character_that_python_knows_is_read_as_by_llama_cpp() -> None:
    path = packaged_gguf()
    known = (
        chr(code) for code in range(1, sys.maxunicode) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")
    )
    lines = list(known)
    texts = ("".join(f"x{char}'s {char}1  {char}" for char in lines[at : at + 50]) for at in range(0, len(lines), 50))
    assert differing(path, tokenizer_of(path), texts)[1] == []


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_known_name_splits_as_in_llama_cpp(pre: str, tmp_path: Path) -> None:
    path = vocabulary_gguf(tmp_path / "other.gguf", packaged_gguf(), pre)
    tokenizer = tokenizer_of(packaged_gguf(), pre)
    assert differing(path, tokenizer, sources(300)) == (300, [])
    assert differing(path, tokenizer, mixtures(1500)) == (1500, [])


@pytest.mark.parametrize(("text", "ids"), HARD.items())
def test_hard_texts_have_the_ids_of_llama_cpp(text: str, ids: list[int]) -> None:
    assert tokenizer_of(packaged_gguf())(text)["input_ids"] == ids


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


def test_digits_are_split_before_spaces_are_merged(tiny: Path) -> None:
    assert tokenizer_of(tiny).tokenize("    12 in") == ["ĠĠĠĠ", "1", "2", "Ġin"]
    assert tokenizer_of(tiny, "gpt-2").tokenize("     12 in") == ["ĠĠĠĠ", "Ġ1", "2", "Ġin"]


def test_special_tokens_are_control_tokens_and_text_comes_back(tiny: Path) -> None:
    tokenizer = tokenizer_of(tiny)
    ids = tokenizer("<|im_start|>user\n é 👩‍💻<|im_end|>")["input_ids"]
    assert (ids[0], ids[-1]) == (1, 2) and tokenizer.decode(ids) == "<|im_start|>user\n é 👩‍💻<|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\n é 👩‍💻"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1, 2, 0)


def test_a_file_that_asks_for_it_begins_each_text_with_its_bos_token(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "bos.gguf", tokenizer__ggml__add_bos_token=True)
    assert tokenizer_of(path)("in")["input_ids"][0] == 1
    assert tokenizer_of(path)("in", add_special_tokens=False)["input_ids"][0] != 1


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"tokenizer__ggml__pre": "tekken"},
            "pre-tokenizer is 'tekken'; supported are gpt-2, smollm, qwen2, llama-bpe",
        ),
        ({"tokenizer__ggml__pre": None}, "pre-tokenizer is 'None'"),
        ({"tokenizer__ggml__model": "llama"}, "has the model 'llama'; only 'gpt2'"),
    ],
)
def test_another_tokenizer_is_refused_by_its_name(changed: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=sentence):
        tokenizer_of(tiny_gguf(tmp_path / "other.gguf", **changed))
