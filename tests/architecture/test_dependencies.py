"""pyproject.toml declares what src imports, and nothing else; the other lists of packages follow from it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[\w,]+\])?(?P<range>.*)")
DEVELOPMENT = ("dev", "browser")
"""Extras of the tests and checks; src imports none of their packages."""
NOT_IMPORTED = {
    "dvc": "a command: the pipeline runs in it",
    "bitsandbytes": "transformers imports it for 4-bit weights",
    "mlflow": "the trainer imports the sinks that params.yaml names",
    "trackio": "as mlflow",
    "wandb": "as mlflow",
    "dvclive": "as mlflow",
}
NOT_DECLARED = {
    "pydantic_core": "a part of pydantic, which pins it exactly",
    "httpx": "the HTTP library of huggingface_hub 1 and openai 2, which require it",
    "httpx2": "the HTTP library of huggingface_hub 2 and openai 3, which require it",
}
NOT_INSTALLED = {"llama_cpp": "llama-cpp-python"}
"""The distributions of modules that the lock does not contain, so that their metadata may be absent."""
UNBOUNDED = {"fsspec": "its versions are dates"}


@cache
def project() -> dict[str, object]:
    """Return the table `project` of pyproject.toml."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def declared() -> dict[str, list[str]]:
    """Return the requirements of each extra; those of the package itself have the name ""."""
    return {"": project()["dependencies"], **project()["optional-dependencies"]}  # type: ignore[dict-item]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: Iterable[str]) -> set[str]:
    """Return the distributions that requirements name, without those of the package's own extras."""
    matches = [REQUIREMENT.match(requirement) for requirement in requirements]
    return {normalized(match["name"]) for match in matches if match} - {"bilora"}


def imports(folder: Path) -> dict[str, set[str]]:
    """Return the modules of other packages that a folder's files import, anywhere in them, with the files."""
    importing: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module":
                modules = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "bilora":
                    importing.setdefault(top, set()).add(path.relative_to(ROOT).as_posix())
    return importing


def distributions(module: str) -> set[str]:
    """Return the distributions that provide a module."""
    return set(map(normalized, metadata.packages_distributions().get(module, [NOT_INSTALLED.get(module, module)])))


def test_every_import_is_declared() -> None:
    available = names(requirement for requirements in declared().values() for requirement in requirements)
    absent = {
        module: sorted(files)[:3]
        for module, files in imports(ROOT / "src").items()
        if module not in NOT_DECLARED and not distributions(module) & available
    }
    assert not absent, f"imported, but not in pyproject.toml: {absent}"


def test_everything_declared_is_imported() -> None:
    imported = {name for module in imports(ROOT / "src") for name in distributions(module)}
    needed = {extra: names(listed) for extra, listed in declared().items() if extra not in DEVELOPMENT}
    unused = {extra: sorted(listed - imported - NOT_IMPORTED.keys()) for extra, listed in needed.items()}
    assert not any(unused.values()), f"in pyproject.toml, but not imported: {unused}"


def test_the_exceptions_are_still_needed() -> None:
    listed = names(requirement for requirements in declared().values() for requirement in requirements)
    imported = imports(ROOT / "src")
    assert NOT_IMPORTED.keys() <= listed and not NOT_IMPORTED.keys() & imported.keys()
    assert NOT_DECLARED.keys() <= imported.keys() and not set(map(normalized, NOT_DECLARED)) & listed


def test_the_package_s_own_requirements_are_ranges() -> None:
    unbounded = []
    for extra, requirements in declared().items():
        for requirement in requirements:
            match = REQUIREMENT.match(requirement)
            assert match
            whole = match["name"] in UNBOUNDED or "<" in match["range"]
            if extra not in {*DEVELOPMENT, "sinks"} and not (">=" in match["range"] and whole):
                unbounded.append(requirement)
    assert not unbounded, f"no lower or upper bound: {unbounded}"


def test_extras_repeat_nothing_of_the_package() -> None:
    required = names(declared()[""])
    repeated = {extra: sorted(names(listed) & required) for extra, listed in declared().items() if extra}
    assert not any(repeated.values()), f"required anyway: {repeated}"
