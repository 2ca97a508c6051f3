from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from bilora.errors import BadData, Unreachable
from bilora.sources.kinds.hub import HubDataset, HubDatasetSettings

REVISION = "0123456789abcdef0123456789abcdef01234567"


def source(where: Path | str, **settings: Any) -> HubDataset:
    splits = settings.pop("splits", {"train": "train", "test": "heldout"})
    return HubDataset(
        HubDatasetSettings(kind="hub", id=str(where), revision=REVISION, splits=splits, licence="MIT", **settings)
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    for split, rows in {
        "train": [{"code": "a", "repo": "one/two"}, {"code": "b", "repo": "three/four"}],
        "heldout": [{"code": "c", "repo": "five/six"}],
    }.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), data / f"{split}-0.parquet")
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - {split: train, path: data/train-0.parquet}\n"
        "  - {split: heldout, path: data/heldout-0.parquet}\n---\n"
    )
    return tmp_path / "set"


def test_official_splits_are_kept(folder: Path) -> None:
    rows = [(row["code"], row["split"], row["group"], row["licence"]) for row in source(folder).rows()]
    assert rows == [
        ("a", "train", "one/two", "MIT"),
        ("b", "train", "three/four", "MIT"),
        ("c", "test", "five/six", "MIT"),
    ]


def test_the_limit_is_respected(folder: Path) -> None:
    assert len(list(source(folder, limit=2).rows())) == 2


def test_an_unknown_split_is_named(folder: Path) -> None:
    with pytest.raises(BadData, match="nowhere"):
        list(source(folder, splits={"train": "nowhere"}).rows())


def test_the_pinned_revision_is_requested_and_no_code_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    call: dict[str, Any] = {}

    def load(name: str, config: str | None, **settings: Any) -> list[dict[str, str]]:
        call.update(settings, name=name, config=config)
        return []

    monkeypatch.setattr(datasets, "load_dataset", load)
    list(source("owner/name", config="python", splits={"train": "train"}).rows())
    assert call == {"name": "owner/name", "config": "python", "split": "train", "revision": REVISION}


def test_unpinned_data_is_refused_and_the_command_that_pins_it_is_named() -> None:
    unpinned = HubDataset(HubDatasetSettings(kind="hub", id="owner/name", splits={"train": "train"}, licence="MIT"))
    with pytest.raises(BadData, match=r"owner/name.*run `bilora pin`"):
        list(unpinned.rows())


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(Unreachable, match=r"owner/name.*check the id, the network"):
        list(source("owner/name").rows())
