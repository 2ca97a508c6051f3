"""Rules of the source that the type checker does not check."""

from __future__ import annotations

import ast
import re
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bilora.tracking.checkout import committable_files

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "bilora"
MAY_PRINT = {"cli", "sandbox"}
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|root|work)/[\w.-]")
"""A path of somebody's machine. hf_space/Dockerfile is excluded, because its paths are the container's."""


@pytest.fixture(scope="module")
def modules() -> dict[str, str]:
    """The text of every module of the package, by its path in the package."""
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
    }


def top(module: str) -> str:
    """Return the top-level package or module that a module belongs to."""
    return module.partition("/")[0].removesuffix(".py")


def repository_files() -> list[Path]:
    """Return every file that git does not ignore."""
    try:
        return [ROOT / name for name in committable_files(ROOT)]
    except subprocess.CalledProcessError:
        pytest.skip("not a git checkout, so git cannot list the files")


def test_imports_only_point_downward() -> None:
    checked = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "lint-imports", "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_package_is_in_a_layer(modules: dict[str, str]) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = settings["tool"]["importlinter"]["contracts"]
    placed = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    packages = {f"bilora.{top(module)}" for module in modules} - {"bilora.__init__"}
    assert packages <= placed, f"in no layer of pyproject.toml: {', '.join(sorted(packages - placed))}"


def test_only_cli_and_sandbox_print_or_evaluate(modules: dict[str, str]) -> None:
    offenders = [
        f"{module}:{line}"
        for module, text in modules.items()
        if top(module) not in MAY_PRINT
        for line in printing(ast.parse(text))
    ]
    assert not offenders, f"calls print or eval: {', '.join(offenders)}"


def printing(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that call `print` or `eval`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", "eval"}:
            yield node.lineno


def test_no_code_of_a_model_repository_is_trusted(modules: dict[str, str]) -> None:
    offenders = [f"{module}:{line}" for module, text in modules.items() for line in trusting(ast.parse(text))]
    assert not offenders, f"trust_remote_code is not False: {', '.join(offenders)}"


def trusting(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that set `trust_remote_code`, as a keyword or in a dictionary, to anything but False."""
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            values = [node.value]
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            values = [value for key, value in pairs if getattr(key, "value", None) == "trust_remote_code"]
        yield from (value.lineno for value in values if not (isinstance(value, ast.Constant) and value.value is False))


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    offenders = []
    for path in repository_files():
        if path.name == "Dockerfile":
            continue
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                offenders.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not offenders, "\n".join(offenders)


def test_params_is_the_default_profile() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles" / "smollm2.yaml").read_bytes()


def test_no_test_module_imports_another() -> None:
    """Shared code belongs in tests/support, which mypy checks."""
    imports = re.compile(r"^\s*(?:from|import) (test_\w+)", re.MULTILINE)
    imported = {
        path.name: imports.findall(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py")
    }
    assert {name: modules for name, modules in imported.items() if modules} == {}
