"""The schema of the object that clients request; clients/node/schema.mjs defines the same."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_QUESTION = "Describe the signature of a Python function that repeats a word, in JSON."
SCHEMA_TOKENS = 200


class Argument(BaseModel):
    """An argument of a function."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=10)]
    type: Literal["int", "float", "str"]


class Signature(BaseModel):
    """The signature of a function."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=20)]
    arguments: Annotated[list[Argument], Field(max_length=3)]
    pure: bool
