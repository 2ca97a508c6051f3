"""The counts of structure.py stay within their limits, and each count is correct."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from structure import SRC, Count, count_structure

Counter = Callable[..., dict[str, Count]]


def test_src_keeps_every_limit_of_its_structure() -> None:
    exceeded = [count for count in count_structure() if not count.within_limit]
    assert not exceeded, "\n".join(
        f"{count.label}: {count.value:g}, at most {count.limit:g}: {'; '.join(count.locations)}" for count in exceeded
    )


@pytest.fixture
def counts(tmp_path: Path) -> Counter:
    """A function that counts in a package of the modules passed to it."""

    def count(**texts: str) -> dict[str, Count]:
        for name, text in texts.items():
            path = tmp_path / "bilora" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return {count.label: count for count in count_structure(tmp_path)}

    return count


def test_any_is_counted_as_a_token_and_with_its_import(counts: Counter) -> None:
    text = 'from typing import Any\n\nvalue: dict[str, Any] = {}  # Any\nname = "Any"\n'
    assert counts(rows=text)["`Any` per 1,000 lines"].value == 2 * 1000 / 4


NINE = ", ".join("abcdefghi")


@pytest.mark.parametrize(
    ("module", "text", "wide"),
    [
        ("rows", f"def read({NINE}): ...", 1),
        ("rows", "def read(a, b, c, d, *, e, f, g, h): ...", 0),
        ("rows", "def read(a, b, c, d, e, f, g, *rows, **options): ...", 1),
        ("rows", "class Rows:\n    def read(self, a, b, c, d, e, f, g, h): ...", 0),
        ("cli__read", f"@app.command()\ndef read({NINE}): ...", 0),
        ("cli__read", f"def read({NINE}): ...\ndef show({NINE}): ...\n\ncommands.command('read')(read)", 1),
        ("rows", f"@app.command()\ndef read({NINE}): ...", 1),
    ],
)
def test_a_verb_alone_may_have_more_than_eight_parameters(counts: Counter, module: str, text: str, wide: int) -> None:
    assert counts(**{module: text})["functions with more than 8 parameters"].value == wide


@pytest.mark.parametrize(
    ("module", "text", "subscripts"),
    [
        ("evaluation__gate", 'rows["mean"]["low"] = rows[0]["high"]', 3),
        ("publishing__card", 'def mean(): return rows["mean"]', 1),
        ("cli__show", 'def show():\n    from bilora.evaluation import gate\n    rows["mean"]', 1),
        ("cli__show", 'rows["mean"]', 0),
        ("evaluation__gate", 'Outcome = Literal["pass"]', 0),
        ("evaluation__gate", "rows[name]", 0),
    ],
)
def test_string_subscripts_count_in_every_module_that_works_on_results(
    counts: Counter, module: str, text: str, subscripts: int
) -> None:
    assert counts(**{"evaluation__gate": "", module: text})["string subscripts into results"].value == subscripts


@pytest.mark.parametrize(
    ("texts", "shared"),
    [
        ({"rows": "def read(): ...", "storage": "class read: ..."}, 1),
        ({"rows": "if True:\n    X = 1", "storage": "try:\n    pass\nexcept OSError:\n    X: int = 1"}, 1),
        ({"rows": "def _read(): ...", "storage": "def _read(): ..."}, 0),
        ({"rows": "def f():\n    read = 1", "storage": "read = 1"}, 0),
        ({"tasks__one": "TASK = 1", "tasks__other": "TASK = 2"}, 0),
        ({"tasks__one": "TASK = 1", "rows": "TASK = 2", "storage": "TASK = 2"}, 1),
        ({"cli__train": "def train(): ...\napp.command()(train)", "training__run": "def train(): ..."}, 0),
        ({"rows": "def train(): ...", "training__run": "def train(): ..."}, 1),
    ],
)
def test_no_two_modules_may_define_a_public_name(counts: Counter, texts: dict[str, str], shared: int) -> None:
    assert counts(**texts)["public names defined in two modules"].value == shared


@pytest.mark.parametrize(
    ("text", "skips"),
    [
        ("ROWS = (\n    (1, 2),\n)  # fmt: skip", 0),
        ("ROWS = read(\n    1, 2\n)  # fmt: skip", 1),
        ("def f():\n    rows = (1, 2)  # fmt: skip", 1),
    ],
)
def test_only_a_table_of_data_may_skip_the_formatter(counts: Counter, text: str, skips: int) -> None:
    assert counts(rows=text)["`# fmt: skip` outside data"].value == skips


def test_two_modules_that_load_each_other_are_a_circle(counts: Counter) -> None:
    texts = {"rows": "import bilora.storage", "storage": "from bilora import rows"}
    assert counts(**texts)["import circles"].locations == ["bilora.rows, bilora.storage"]


def test_the_longest_function_is_counted_with_its_decorators(counts: Counter) -> None:
    text = "@cached\ndef train():\n    return 1\n\ndef f(): ..."
    assert counts(training__run=text)["longest function of training/run.py"].locations == ["train 3", "f 1"]


def test_the_counts_read_this_repository() -> None:
    assert (SRC / "bilora" / "params.py").is_file()
