"""`bilora pretrain`: in one go, and with the corpus made apart from the training."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import yaml
from support.checkouts import ROOT, Shell, shell_in

from bilora.storage import read_json, sha256_file

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the recipe of a base that is made in seconds."""
    recipe = yaml.safe_load((ROOT / "models" / "smoke" / "pretrain.yaml").read_text(encoding="utf-8"))
    recipe["corpus"] |= {"packages": ["pluggy"], "exercises": {"one": 20}}
    recipe["architecture"] |= {"vocabulary": 600, "hidden": 16, "intermediate": 32}
    recipe |= {"tokens": 8 * 256 * 3, "save_every": 2}
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "pretrain.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return tmp_path


@pytest.fixture
def pretrain(place: Path) -> Shell:
    return partial(shell_in(place), "bilora", "pretrain", "tiny/pretrain.yaml", PYTHONPATH=str(ROOT / "src"))


def test_a_base_is_made_in_one_go_and_the_corpus_alone_gives_the_same(place: Path, pretrain: Shell) -> None:
    done = pretrain()
    assert "reading the corpus" in done.stdout and "bits per byte on held-out packages" in done.stdout
    assert not (place / "checkpoints/pretrain/tiny").exists()

    made = pretrain("--corpus", "corpus", "--corpus-only")
    sha256 = read_json(place / "tiny/manifest.json")["corpus_sha256"]
    assert f"sha256 {sha256[:16]}…, in corpus" in made.stdout and "step" not in made.stdout
    again = pretrain("--corpus", "corpus", "--out", "again")
    assert "reading the corpus" not in again.stdout
    assert sha256_file(place / "again/model.safetensors") == sha256_file(place / "tiny/model.safetensors")


def test_a_corpus_that_was_made_alone_stays(place: Path, pretrain: Shell) -> None:
    own = "checkpoints/pretrain/tiny"
    assert f"in {own}\n" in pretrain("--corpus-only").stdout
    pretrain("--corpus", own)
    assert (place / own / "tokens.npy").exists() and not (place / own / "checkpoint.pt").exists()


def test_what_cannot_be_is_one_sentence(place: Path, pretrain: Shell) -> None:
    absent = pretrain("--corpus", "nowhere", check=False)
    assert absent.returncode == 2 and "nowhere/corpus.json: the file does not exist." in absent.stderr
    both = pretrain("--corpus", "corpus", "--packages", "packages", check=False)
    assert both.returncode == 2 and "--packages is of no use" in both.stderr
    assert "Traceback" not in absent.stderr + both.stderr and not (place / "tiny/model.safetensors").exists()
