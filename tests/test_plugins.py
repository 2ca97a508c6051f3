"""An invalid plugin is refused with its name and its fault."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from bilora.errors import BadData
from bilora.plugins import BaseSettings, settings_union

GOOD = """
from typing import Literal
from bilora.plugins import BaseSettings

class Settings(BaseSettings):
    kind: Literal["one"]

class Kind:
    settings = Settings

BASE = Kind()
"""


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Return the type of the entries of a package whose one kind is a text."""
    package = f"kinds_{tmp_path.name}"
    (tmp_path / package).mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def settings(text: str) -> object:
        (tmp_path / package / "one.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return settings_union(package, "BASE", BaseSettings)

    return settings


def test_one_kind_is_the_type_of_all_entries(read: Callable[[str], object]) -> None:
    assert TypeAdapter[BaseSettings](read(GOOD)).validate_python({"kind": "one"}).kind == "one"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("class Kind:", "class Kind"), r"one: this kind cannot be loaded \(expected ':' \(one.py, line 8\)\)"),
        (("from typing", "import absent_library\nfrom typing"), "No module named 'absent_library'"),
        (("BASE =", "base ="), "has no attribute 'BASE'"),
        (("from typing", "raise ImportError('circular')\nfrom typing"), "must not import bilora.params"),
        (("settings = Settings", "pass"), "BASE.settings must be a subclass of BaseSettings"),
        (("Settings(BaseSettings)", "Settings"), "BASE.settings must be a subclass of BaseSettings"),
        (('Literal["one"]', 'Literal["two"]'), 'Settings must have the field `kind: Literal."one".`'),
        (('kind: Literal["one"]', "pass"), 'Settings must have the field `kind: Literal."one".`'),
    ],
    ids=lambda change: change[1] if isinstance(change, tuple) else "",
)
def test_an_invalid_module_is_one_sentence(
    read: Callable[[str], object], change: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(BadData, match=sentence):
        read(GOOD.replace(*change))
