"""What can go wrong, in words that say what to do, and the exit code of each kind (docs/exit-codes.md).

BiloraError
├── ParamsError      params.yaml is wrong: fix the file (all faults at once)       2
├── UnknownTask      no file in bilora/tasks has this name                         2
├── BadData          a row, file or argument is malformed: it is named             2
│   ├── UnknownModel no such system is loaded: those that are, are named           2
│   ├── BadSchema    answers cannot be held to this JSON schema: it is said why    2
│   └── BaseMismatch an adapter was trained on another base or chat template      2
├── MissingStep      an input is absent: run the named stage                       3
├── PreflightFailed  training would not teach what it should: nothing was trained  4
├── WeakSandbox      this machine cannot confine model-written code                4
├── NotReady         something that this needs is not installed or too small here  4
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
    """How a command ends; the only table of exit codes, explained in docs/exit-codes.md."""

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
    """One clear sentence for a person; the CLI prints it and ends with `exit_code`. Raise one of its kinds."""

    exit_code = ExitCode.INFRASTRUCTURE


class ParamsError(BiloraError):
    """All faults of a params file at once, each with its place."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{path} has {len(self.faults)} {noun}:\n{lines}")


class UnknownTask(BiloraError):
    """A task is named that no file in bilora/tasks defines."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no task {name!r}. Known tasks: {', '.join(known)}.")


class BadData(BiloraError):
    """A data file cannot be used as it is."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, path: Path | str, problem: str, line: int | None = None) -> None:
        place = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{place}: {problem}")


class UnknownModel(BadData):
    """A system is named that the engine has not loaded."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, f"no such model is loaded; loaded: {', '.join(known)}.")


class BadSchema(BadData):
    """Answers cannot be held to a JSON schema, or only to a part of it."""

    def __init__(self, problem: str) -> None:
        super().__init__("JSON schema", problem)


class BaseMismatch(BadData):
    """An adapter was trained on another base, or under another chat template."""


class Busy(BiloraError):
    """An engine's queue is full, a port is taken, or another process holds a file."""

    exit_code = ExitCode.UNREACHABLE


class MissingStep(BiloraError):
    """An input is absent because an earlier stage has not run."""

    exit_code = ExitCode.MISSING_STEP

    def __init__(self, path: Path, stage: str, problem: str = "does not exist") -> None:
        super().__init__(f"{path} {problem}. Run `dvc repro {stage}` first.")


class PreflightFailed(BiloraError):
    """Training stopped before its first step, and says why."""

    exit_code = ExitCode.NOT_READY


class NotReady(BiloraError):
    """Something that the work needs is not installed, or too small, on this machine; nothing was begun."""

    exit_code = ExitCode.NOT_READY


class NotPromotable(BiloraError):
    """These adapters have no passing verdict bound to their bytes."""

    exit_code = ExitCode.NOT_PROMOTABLE


class WeakSandbox(BiloraError):
    """Model-written code would run without a filter on system calls."""

    exit_code = ExitCode.NOT_READY


class Unreachable(BiloraError):
    """Something outside did not answer."""

    exit_code = ExitCode.UNREACHABLE


class Infrastructure(BiloraError):
    """This machine failed in the middle of the work: its sandbox, disk or memory, or a library."""

    exit_code = ExitCode.INFRASTRUCTURE
