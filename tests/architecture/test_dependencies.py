"""pyproject.toml declares what src imports, and nothing else; the other lists of packages follow from it."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from support.checkouts import ROOT, load_script

Declared = dict[str, dict[str, Requirement]]
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


@pytest.fixture(scope="module")
def lock() -> ModuleType:
    """The script that `make lock` runs."""
    return load_script("lock")


@pytest.fixture(scope="module")
def declared(lock: ModuleType) -> Declared:
    """The requirements of each extra by their distribution; those of the package itself have the name ""."""
    extras: dict[str, list[str]] = lock.read_project()
    parsed = {extra: [Requirement(line) for line in lines] for extra, lines in extras.items()}
    return {
        extra: {
            normalized(requirement.name): requirement for requirement in requirements if requirement.name != "bilora"
        }
        for extra, requirements in parsed.items()
    }


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


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


def test_every_import_is_declared(declared: Declared) -> None:
    available = {name for requirements in declared.values() for name in requirements}
    absent = {
        module: sorted(files)[:3]
        for module, files in imports(ROOT / "src").items()
        if module not in NOT_DECLARED and not distributions(module) & available
    }
    assert not absent, f"imported, but not in pyproject.toml: {absent}"


def test_everything_declared_is_imported(declared: Declared) -> None:
    imported = {name for module in imports(ROOT / "src") for name in distributions(module)}
    needed = {extra: listed.keys() for extra, listed in declared.items() if extra not in DEVELOPMENT}
    unused = {extra: sorted(listed - imported - NOT_IMPORTED.keys()) for extra, listed in needed.items()}
    assert not any(unused.values()), f"in pyproject.toml, but not imported: {unused}"


def test_the_exceptions_are_still_needed(declared: Declared) -> None:
    listed = {name for requirements in declared.values() for name in requirements}
    imported = imports(ROOT / "src")
    assert NOT_IMPORTED.keys() <= listed and not NOT_IMPORTED.keys() & imported.keys()
    assert NOT_DECLARED.keys() <= imported.keys() and not set(map(normalized, NOT_DECLARED)) & listed


def test_the_package_s_own_requirements_are_ranges(declared: Declared) -> None:
    unbounded = [
        str(requirement)
        for extra, requirements in declared.items()
        if extra not in {*DEVELOPMENT, "sinks"}
        for name, requirement in requirements.items()
        if {bound.operator for bound in requirement.specifier} != ({">="} if name in UNBOUNDED else {">=", "<"})
    ]
    assert not unbounded, f"no lower or upper bound: {unbounded}"


def test_extras_repeat_nothing_of_the_package(declared: Declared) -> None:
    repeated = {extra: sorted(listed.keys() & declared[""].keys()) for extra, listed in declared.items() if extra}
    assert not any(repeated.values()), f"required anyway: {repeated}"


def test_the_lock_pins_a_version_in_each_range(lock: ModuleType, declared: Declared) -> None:
    pins = lock.pins((ROOT / lock.LOCK).read_text(encoding="utf-8"))
    (whole,) = [line for line in lock.read_project()[lock.LOCKED_EXTRA] if line.startswith("bilora[")]
    wrong = [
        f"{requirement} is {pins.get(name, 'absent')}"
        for extra in ("", lock.LOCKED_EXTRA, *Requirement(whole).extras)
        for name, requirement in declared[extra].items()
        if name not in pins or not requirement.specifier.contains(pins[name])
    ]
    assert not wrong, f"run `make lock`: {wrong}"


def test_the_lock_is_whole(lock: ModuleType) -> None:
    """Everything that an installed package of the lock requires here is in the lock."""
    pins = lock.pins((ROOT / lock.LOCK).read_text(encoding="utf-8"))
    absent = {
        f"{name} requires {requirement.name}"
        for name in pins
        for requirement in map(Requirement, metadata.requires(name) or ())
        if normalized(requirement.name) not in pins and (requirement.marker is None or requirement.marker.evaluate())
    }
    assert not {line for line in absent if not line.partition(" requires ")[2].startswith(lock.CUDA)}


def test_the_page_s_packages_are_what_the_script_writes(lock: ModuleType) -> None:
    text = (ROOT / lock.LOCK).read_text(encoding="utf-8")
    written = lock.space_requirements(lock.read_project(), text)
    assert (ROOT / lock.SPACE).read_text(encoding="utf-8") == written, "run `make lock`"
    assert "gguf==" in written and "streamlit==" in written and "trl==" not in written
