"""Guards: public datasets that show whether an adapter lost a skill of its base. One module per guard."""

from __future__ import annotations

from bilora.guards.guard import Guard
from bilora.params import Params
from bilora.plugins import kind_names, load_kind


def known_guards() -> dict[str, Guard]:
    """Return all guards by name, sorted, without reading their rows."""
    return {name: load_guard(name) for name in kind_names("bilora.guards") if name != "guard"}


def load_guard(name: str) -> Guard:
    """Load a guard by its name.

    Raises:
        KeyError: no module of this package has that name.
    """
    guard: Guard = load_kind("bilora.guards", name, "GUARD")
    return guard


def task_guards(params: Params, task: str) -> dict[str, Guard]:
    """Return the guards of a task that `benchmark.guards` names, in that order."""
    named = {name: load_guard(name) for name in params.benchmark.guards}
    return {name: guard for name, guard in named.items() if guard.task == task}
