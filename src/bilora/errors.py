"""The errors of BiLoRA: each message says what to do, each class has an exit code (docs/exit-codes.md).

BiloraError
├── ParamsError      params.yaml is wrong: fix the file (all faults at once)       2
├── UnknownTask      no file in bilora/tasks has this name                         2
├── BadData          a row, file or argument is malformed                          2
│   ├── UnknownModel no model of this name is loaded                               2
│   ├── BadSchema    the engine cannot enforce this JSON schema                    2
│   └── BaseMismatch an adapter was trained on another base or chat template       2
├── MissingStep      an input is absent: run the named stage                       3
├── PreflightFailed  a check before the first training step failed                 4
├── WeakSandbox      this machine cannot confine model-written code                4
├── NotReady         a requirement is not installed, or this machine is too small  4
├── NotPromotable    the verdict does not cover these adapters                     5
├── Unreachable      a hub, judge or endpoint did not answer: try again            6
├── Busy             too many requests wait, or a port is taken: try again later   6
└── Infrastructure   this machine failed: sandbox, disk, memory, a library        13
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """The exit codes of all commands; docs/exit-codes.md explains them."""

    OK = 0
    CRASH = 1
    BAD_INPUT = 2
    MISSING_STEP = 3
    NOT_READY = 4
    NOT_PROMOTABLE = 5
    UNREACHABLE = 6
    REGRESSED = 10
    INCONCLUSIVE = 11
    INCOMPARABLE = 12
    INFRASTRUCTURE = 13
    INTERRUPTED = 130


class BiloraError(Exception):
    """Base of all errors. The CLI prints the message, one sentence, and exits with `exit_code`."""

    exit_code = ExitCode.INFRASTRUCTURE


class ParamsError(BiloraError):
    """A params file has faults; all are listed, each with its key or line."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{path} has {len(self.faults)} {noun}:\n{lines}")


class UnknownTask(BiloraError):
    """No file in bilora/tasks defines this task."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no task {name!r}. Known tasks: {', '.join(known)}.")


class BadData(BiloraError):
    """A file, row or argument is malformed."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, path: Path | str, problem: str, line: int | None = None) -> None:
        location = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{location}: {problem}")


class UnknownModel(BadData):
    """The engine has not loaded a model of this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, f"no such model is loaded; loaded: {', '.join(known)}.")


class BadSchema(BadData):
    """The engine cannot enforce a JSON schema, or only a part of it."""

    def __init__(self, problem: str) -> None:
        super().__init__("JSON schema", problem)


class BaseMismatch(BadData):
    """An adapter was trained on another base, or with another chat template."""


class Busy(BiloraError):
    """An engine's queue is full, a port is taken, or another process has locked a file."""

    exit_code = ExitCode.UNREACHABLE


class MissingStep(BiloraError):
    """An input is absent because an earlier stage has not run."""

    exit_code = ExitCode.MISSING_STEP

    def __init__(self, path: Path, stage: str, problem: str = "does not exist") -> None:
        super().__init__(f"{path} {problem}. Run `dvc repro {stage}` first.")


class PreflightFailed(BiloraError):
    """A check before the first training step failed."""

    exit_code = ExitCode.NOT_READY


class NotReady(BiloraError):
    """A requirement is not installed, or this machine is too small; no work was started."""

    exit_code = ExitCode.NOT_READY


class NotPromotable(BiloraError):
    """No passing verdict covers the bytes of these adapters."""

    exit_code = ExitCode.NOT_PROMOTABLE


class WeakSandbox(BiloraError):
    """This machine cannot filter the system calls of model-written code."""

    exit_code = ExitCode.NOT_READY


class Unreachable(BiloraError):
    """A remote service did not answer."""

    exit_code = ExitCode.UNREACHABLE


class Infrastructure(BiloraError):
    """This machine failed during the work: its sandbox, disk or memory, or a library."""

    exit_code = ExitCode.INFRASTRUCTURE
