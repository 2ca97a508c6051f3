"""What can go wrong, in words that say what to do.

BiloraError
├── ParamsError      params.yaml is wrong: fix the file (all faults at once)      exit 2
├── UnknownTask      no file in bilora/tasks has this name                         exit 2
├── BadData          a row or file is malformed: file and line are named           exit 2
│   ├── UnknownModel no such system is loaded: those that are, are named           exit 2
│   └── OtherBase    an adapter was made for another base or chat template         exit 2
├── Busy             too many requests wait already: ask again later               exit 6
├── MissingStep      an input is absent: run the named stage                       exit 3
├── PreflightFailed  training would not teach what it should: nothing was trained  exit 4
├── NotPromotable    the verdict does not cover these adapters                     exit 5
├── WeakSandbox      this machine cannot confine model-written code: ask for weak   exit 4
└── Unreachable      a hub, judge or endpoint did not answer: try again            exit 6
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class BiloraError(Exception):
    """One clear sentence for a person; the CLI prints it and leaves with `exit_code`."""

    exit_code = 1


class ParamsError(BiloraError):
    """All faults of a params file at once, each with its place."""

    exit_code = 2

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        noun = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{path} has {len(self.faults)} {noun}:\n{lines}")


class UnknownTask(BiloraError):
    """A task is named that no file in bilora/tasks defines."""

    exit_code = 2

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no task {name!r}. Known tasks: {', '.join(known)}.")


class BadData(BiloraError):
    """A data file cannot be used as it is."""

    exit_code = 2

    def __init__(self, path: Path | str, problem: str, line: int | None = None) -> None:
        place = f"{path}:{line}" if line is not None else str(path)
        super().__init__(f"{place}: {problem}")


class UnknownModel(BadData):
    """A system is named that the engine has not loaded."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(name, f"no such model is loaded; loaded: {', '.join(known)}.")


class OtherBase(BadData):
    """An adapter was trained on another base, or under another chat template."""


class Busy(BiloraError):
    """An engine's queue is full."""

    exit_code = 6


class MissingStep(BiloraError):
    """An input is absent because an earlier stage has not run."""

    exit_code = 3

    def __init__(self, path: Path, stage: str) -> None:
        super().__init__(f"{path} does not exist. Run `dvc repro {stage}` first.")


class PreflightFailed(BiloraError):
    """Training stopped before its first step, and says why."""

    exit_code = 4


class NotPromotable(BiloraError):
    """These adapters have no passing verdict bound to their bytes."""

    exit_code = 5


class WeakSandbox(BiloraError):
    """Model-written code would run without a filter on system calls."""

    exit_code = 4


class Unreachable(BiloraError):
    """Something outside did not answer."""

    exit_code = 6
