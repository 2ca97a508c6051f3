"""The optional dependencies of the package: which extra of pyproject.toml provides a module."""

from __future__ import annotations

import re
from importlib import metadata

from bilora.errors import NotReady

_OPTIONAL = re.compile(r"(?P<distribution>[\w.-]+).*;.*\bextra == ['\"](?P<extra>\w+)['\"]")
"""A requirement as a wheel's metadata writes it: `trl<2,>=1.5; extra == "train"`."""


def missing_extra(error: ModuleNotFoundError) -> NotReady | None:
    """Return the error for a module whose extra is not installed, or None if no extra provides the module."""
    module = (error.name or "").partition(".")[0]
    for requirement in _requirements():
        match = _OPTIONAL.match(requirement)
        if match and _normalized(match["distribution"]) == _normalized(module):
            return NotReady(f'{module} is not installed. Run `pip install "bilora[{match["extra"]}]"`.')
    return None


def _requirements() -> list[str]:
    try:
        return metadata.requires("bilora") or []
    except metadata.PackageNotFoundError:  # run from its source folder
        return []


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
