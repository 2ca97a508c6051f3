"""What a test that runs elsewhere may do to an object of the program, by name."""

from __future__ import annotations

import dataclasses
import importlib
import operator
import random
from collections.abc import Callable
from typing import Any

BASES: tuple[type, ...] = (list, dict, set)
"""Mutable builtin classes: an object of a class that extends one is held, for its content changes."""

BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod"),
    *("and", "or", "xor", "lshift", "rshift"),
)
INPLACE = tuple(f"i{name}" for name in BINARY if name != "divmod")
DECIDING = (*BINARY, *INPLACE, "lt", "le", "gt", "ge", "contains")
"""Special methods in which an object meets a value that the test may expect."""
TELLING = (
    *("call", "getitem", "setitem", "delitem", "iter", "next", "reversed", "len", "bool", "str", "repr", "hash"),
    *("int", "float", "complex", "bytes", "index", "enter", "exit", "neg", "pos", "abs", "invert", "format", "round"),
    *("aiter", "anext", "aenter", "aexit", "await"),
)
"""Special methods that are told nothing of what the test expects, and whose values are data."""


def _run(awaitable: Any) -> Any:
    """Await something, in one event loop for all, which generators of coroutines need."""
    global _loop
    if _loop is None:
        _loop = importlib.import_module("asyncio").new_event_loop()  # only loaded for programs that name it
    return _loop.run_until_complete(_awaited(awaitable))


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


_loop: Any = None


def _content(value: Any) -> Any:
    """Return what an object of a class that extends a builtin one holds, by the builtin's own methods."""
    base = next(base for base in BASES if isinstance(value, base))
    return dict(dict.items(value)) if base is dict else base(base.__iter__(value))  # type: ignore[attr-defined]


OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, f"__{name}__") for name in (
        "eq", "ne", "lt", "le", "gt", "ge", "contains", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow",
        "matmul", "and", "or", "xor", "lshift", "rshift", "getitem", "setitem", "delitem", "neg", "pos", "abs",
        "invert", *INPLACE,
    )},
    **{function.__name__: function for function in (
        getattr, setattr, delattr, dir, iter, next, len, bool, str, repr, hash, int, float, complex, bytes, format,
        round, reversed, divmod, isinstance, issubclass, aiter,
        dataclasses.asdict, dataclasses.astuple, dataclasses.is_dataclass, dataclasses.replace,
    )},
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    "index": operator.index,
    "seed": random.seed,
    "content": _content,
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager, *error: manager.__exit__(*error),
    "await": _run,
    "anext": lambda generator: _run(anext(generator)),
    "aenter": lambda manager: _run(manager.__aenter__()),
    "aexit": lambda manager, *error: _run(manager.__aexit__(*error)),
}  # fmt: skip
"""What may be done to an object, by name."""
