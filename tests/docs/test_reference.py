"""docs/reference is what scripts/make_reference.py writes, and says something of every key and option."""

from __future__ import annotations

from types import ModuleType

import pytest
from support.checkouts import ROOT, load_script


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return load_script("make_reference")


@pytest.fixture(scope="module")
def pages(reference: ModuleType) -> dict[str, str]:
    written: dict[str, str] = reference.pages()
    return written


def test_the_reference_is_up_to_date(pages: dict[str, str]) -> None:
    stale = [name for name, text in pages.items() if text != (ROOT / "docs/reference" / name).read_text("utf-8")]
    assert not stale, "run python scripts/make_reference.py"


def test_every_key_and_option_has_a_meaning(pages: dict[str, str]) -> None:
    rows = [line for name in ("params.md", "cli.md") for line in pages[name].splitlines() if line.startswith("| `")]
    assert len(rows) > 100 and not [row for row in rows if row.endswith("|  |")]


def test_the_keys_of_every_kind_are_listed(pages: dict[str, str]) -> None:
    for section in ("base, kind: package", "tasks.TASK.source, kind: files", "tasks.TASK.training.phases[], kind: kto"):
        assert f"\n## {section}\n" in pages["params.md"]
    assert "| `min_samples` | whole number ≥ 1 |  |" in pages["params.md"]


def test_public_names_are_listed(pages: dict[str, str]) -> None:
    import bilora

    for name in bilora.__all__:
        assert name.startswith("_") or f"\n## {name}\n" in pages["api.md"]
