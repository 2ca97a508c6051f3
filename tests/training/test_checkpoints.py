"""Training resumes only from complete checkpoints."""

from __future__ import annotations

from pathlib import Path

from bilora.training.sft_trainer import COMPLETE, last_checkpoint


def test_the_newest_complete_one_is_returned_and_incomplete_ones_are_removed(tmp_path: Path) -> None:
    for step, complete in ((9, True), (10, True), (20, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if complete:
            (folder / COMPLETE).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


def test_without_checkpoints_it_is_none(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "absent") is None
