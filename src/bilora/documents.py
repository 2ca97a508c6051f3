"""A YAML file that people write, as a type: unknown keys are faults, and all faults are told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bilora.errors import ParamsError

T = TypeVar("T", bound=BaseModel)

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]


class Slice(BaseModel):
    """Base of all sections: closed, immutable, strict about types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _place(location: tuple[int | str, ...]) -> str:
    kinds = {"hub", "files", "installed", "exercises", "local", "url"}
    told = [  # a union adds the kind that was chosen, which is no place
        str(part)
        for before, part in zip((None, *location), location, strict=False)
        if before not in {"source", "hub"} or part not in kinds
    ]
    return ".".join(told) or "(top level)"


def parse_document(path: Path, kind: type[T], document: Any, extra: list[str]) -> T:
    """Turn a parsed file into its type.

    Raises:
        ParamsError: with `extra` and every fault of its own, each with its place.
    """
    if not isinstance(document, dict):
        raise ParamsError(path, ["(top level): must be a mapping"])
    faults = list(extra)
    try:
        parsed = kind.model_validate(document)
    except ValidationError as error:
        faults += [f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise ParamsError(path, faults) from None
    if faults:
        raise ParamsError(path, faults)
    return parsed


def load_yaml(path: Path) -> Any:
    """Read a YAML file.

    Raises:
        ParamsError: it is absent, or no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(path, ["the file does not exist; `bilora profile use nano` writes one"]) from None
    except yaml.YAMLError as error:
        raise ParamsError(path, [f"not YAML: {error}"]) from None
