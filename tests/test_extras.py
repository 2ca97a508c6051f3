"""A module of an extra that is not installed is one sentence that names the extra."""

from __future__ import annotations

from importlib import metadata

import pytest
import typer

from bilora.cli import run_command
from bilora.errors import ExitCode
from bilora.extras import missing_extra

REQUIREMENTS = ["torch<3,>=2.12", 'trl<2,>=1.5; extra == "train"', "llama-cpp-python>=0.3 ; extra == 'llamacpp'"]


@pytest.fixture(autouse=True)
def requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIREMENTS)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("trl.trainer", 'trl is not installed. Run `pip install "bilora[train]"`.'),
        ("llama_cpp_python", 'llama_cpp_python is not installed. Run `pip install "bilora[llamacpp]"`.'),
    ],
)
def test_the_extra_of_a_module_is_named(module: str, sentence: str) -> None:
    assert str(missing_extra(ModuleNotFoundError(name=module))) == sentence


@pytest.mark.parametrize("module", ["torch", "unknown", None])
def test_a_module_of_no_extra_is_not_explained(module: str | None) -> None:
    assert missing_extra(ModuleNotFoundError(name=module)) is None


def test_a_package_that_is_not_installed_has_no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert missing_extra(ModuleNotFoundError(name="trl")) is None


def test_a_command_that_lacks_its_extra_ends_with_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def run(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    assert run_command(app, ["trl"]) == ExitCode.NOT_READY
    assert capsys.readouterr().err == 'bilora: trl is not installed. Run `pip install "bilora[train]"`.\n'
    with pytest.raises(ModuleNotFoundError):
        run_command(app, ["unknown"])
