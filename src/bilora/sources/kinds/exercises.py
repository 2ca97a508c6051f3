"""The kind `exercises`: generated programming exercises, as rows in MBPP's format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bilora.plugins import SourceSettings
from bilora.protocols import Progress, no_progress
from bilora.records import Row
from bilora.rows import Forms
from bilora.sources.exercises.compositions import TIERS, Tier
from bilora.sources.exercises.generate import generate_exercises
from bilora.sources.exercises.programs import CODE_STYLES, Style
from bilora.sources.source import SourceKind


class ExercisesSettings(SourceSettings):
    """Generated exercises: chains of small operations with tests."""

    kind: Literal["exercises"]
    compositions: dict[Tier, Annotated[int, Field(ge=0)]] = Field(
        description="number of exercises with one, two and three operations"
    )
    styles: list[Style] = Field(
        default=list(CODE_STYLES), min_length=1, description="how the reference solutions are written"
    )


class Exercises:
    """Generates exercises tier by tier."""

    def __init__(self, settings: ExercisesSettings, seed: int) -> None:
        self._settings = settings
        self._seed = seed

    def rows(self, *, progress: Progress = no_progress) -> Iterator[Row]:
        """Yield rows in MBPP's format."""
        for tier in TIERS:
            count = self._settings.compositions.get(tier, 0)
            for exercise in generate_exercises(tier, count, self._seed, styles=self._settings.styles):
                progress(1)
                yield {
                    "text": exercise.text,
                    "code": exercise.code,
                    "test_list": exercise.test_list,
                    "test_setup_code": "",
                    "source": f"exercises:{exercise.composition}",
                    "group": exercise.composition,
                    "licence": "MIT",
                    "tier": exercise.tier,
                    "split": exercise.split,
                }


def _build(settings: ExercisesSettings, *, seed: int, forms: Forms, root: Path) -> Exercises:
    """Return the source of exercises."""
    return Exercises(settings, seed)


SOURCE = SourceKind(ExercisesSettings, _build)
