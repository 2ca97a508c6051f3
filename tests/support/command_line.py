"""The command line, run in the test's process, which has loaded the libraries already."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path
from typing import NamedTuple, TextIO

import pytest

from bilora.cli import app, run_command


class CommandResult(NamedTuple):
    """The exit code and the output of a command."""

    returncode: int
    stdout: str
    stderr: str


def bilora(folder: Path, *arguments: str, stdin: str | TextIO = "") -> CommandResult:
    """Run a command in a folder."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", io.StringIO(stdin) if isinstance(stdin, str) else stdin)
        code = run_command(app, list(arguments))
    return CommandResult(code, out.getvalue(), err.getvalue())
