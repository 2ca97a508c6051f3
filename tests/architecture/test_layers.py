"""The house rules that no type checker sees."""

from __future__ import annotations

import ast
import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "bilora"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_PRINT = {"cli", "sandbox"}
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users|root|work)/[\w.-]")
"""A container's own paths (hf_space/Dockerfile) are no machine's."""


def name(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def nodes(module: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))


def repository_files() -> list[Path]:
    """Every file that is or could be committed: what git does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of the repository's files")
    paths = [ROOT / entry for entry in sorted(listing.stdout.split("\0")) if entry]
    return [path for path in paths if path.is_file()]


def test_imports_only_point_downward() -> None:
    checked = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "lint-imports", "--no-cache", "--no-logo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_room_stands_on_a_floor() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (floors,) = settings["tool"]["importlinter"]["contracts"]
    placed = {name.strip() for floor in floors["layers"] for name in floor.split("|")}
    assert {f"bilora.{room(module)}" for module in MODULES} - {"bilora.__init__"} <= placed


@pytest.mark.parametrize("module", [path for path in MODULES if room(path) not in MAY_PRINT], ids=name)
def test_rooms_neither_print_nor_evaluate(module: Path) -> None:
    calls = [node.func for node in nodes(module) if isinstance(node, ast.Call)]
    called = {function.id for function in calls if isinstance(function, ast.Name)}
    assert not called & {"print", "eval"}


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_no_code_of_a_model_repository_is_trusted(module: Path) -> None:
    values: list[ast.expr] = []
    for node in nodes(module):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            values.append(node.value)
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            values += [
                value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "trust_remote_code"
            ]
    assert all(isinstance(value, ast.Constant) and value.value is False for value in values)


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_modules_stay_small(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) < 320


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    found = []
    for path in repository_files():
        if path.name == "Dockerfile":
            continue
        data = path.read_bytes()
        if b"\0" in data:
            continue
        for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


def test_params_is_the_nano_profile() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles" / "nano.yaml").read_bytes()
