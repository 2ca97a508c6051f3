"""One file per task; a new file here is a new task."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from bilora.errors import UnknownTask
from bilora.tasks.task import Task


def known_tasks() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "task")


def load_task(name: str) -> Task:
    """Load one task by its name.

    Raises:
        UnknownTask: no file in this folder has that name.
    """
    known = known_tasks()
    if name not in known:
        raise UnknownTask(name, known)
    task: Task = import_module(f"{__name__}.{name}").TASK
    return task
