"""The tasks, one per module; a new module here is a new task."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from bilora.errors import UnknownTask
from bilora.tasks.task import Task


def known_tasks() -> list[str]:
    """Return the names of all tasks, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "task")


def load_task(name: str) -> Task:
    """Return the task with this name.

    Raises:
        UnknownTask: no module of this package has this name.
    """
    known = known_tasks()
    if name not in known:
        raise UnknownTask(name, known)
    task: Task = import_module(f"{__name__}.{name}").TASK
    return task
