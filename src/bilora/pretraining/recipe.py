"""The recipe of an embedded base, as types; read by `bilora pretrain`, and by nothing in the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bilora.documents import Count, Flag, Slice, load_yaml, parse_document
from bilora.sources.exercises.compositions import Tier
from bilora.sources.exercises.names import NameStyle

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Shares(Slice):
    """How many of the documented functions, or of the files, become a document of each further form."""

    whole_files: Share
    docstring_first: Share
    continuations: Share
    fill_ins: Share


class CorpusParams(Slice):
    """What the embedded base reads. Packages named by any task as validation or test never enter.

    `exercise_names: operations` is how the exercises of the bases in models/ are named. `words` names them as the
    tasks name theirs, with words of the train split.
    """

    packages: Annotated[list[str], Field(min_length=1)]
    held_out: list[str]
    licences: Annotated[list[str], Field(min_length=1)]
    exercises: dict[Tier, Annotated[int, Field(ge=0)]]
    exercise_names: NameStyle = "operations"
    shares: Shares
    max_file_chars: Count


class Architecture(Slice):
    """Shape of the embedded Phi-3 model."""

    vocabulary: Count
    hidden: Count
    intermediate: Count
    layers: Count
    heads: Count
    context: Count


class Pretraining(Slice):
    """How the embedded base is made; not part of the pipeline."""

    corpus: CorpusParams
    architecture: Architecture
    tokens: Count
    sequence: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0.0)]
    warmup_steps: Count
    weight_decay: Annotated[float, Field(ge=0.0)]
    save_every: Count
    compile: Flag
    precision: Literal["float32", "bfloat16"]
    """Of the products in training; weights, gradients and optimizer state are 32 bit either way."""


def read_pretraining(path: Path) -> Pretraining:
    """Read the recipe of an embedded base.

    Raises:
        ParamsError: with every fault and its place.
    """
    return parse_document(path, Pretraining, *load_yaml(path))
