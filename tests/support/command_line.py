"""The command line, run in this process, whose libraries are loaded already."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple, TextIO

import pytest

from bilora.cli import app, guarded


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def bilora(place: Path, *arguments: str, typed: str | TextIO = "") -> Done:
    """Run a command in the folder `place`; `typed` is its standard input."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(place),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", io.StringIO(typed) if isinstance(typed, str) else typed)
        code = guarded(app, list(arguments))
    return Done(code, out.getvalue(), err.getvalue())
