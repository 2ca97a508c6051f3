"""The operations that a test may perform on the program's objects, by name."""

from __future__ import annotations

import dataclasses
import importlib
import operator
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

CONTAINER_TYPES: tuple[type, ...] = (list, dict, set)
"""Mutable builtin classes. An instance of a subclass is sent as a number, because its content can change."""

BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod"),
    *("and", "or", "xor", "lshift", "rshift"),
)
INPLACE = tuple(f"i{name}" for name in BINARY if name != "divmod")
DECISIVE = (*BINARY, *INPLACE, "lt", "le", "gt", "ge", "contains")
"""Special methods that can decide an assert: their argument may be the expected value."""
NEUTRAL = (
    *("call", "getitem", "setitem", "delitem", "iter", "next", "reversed", "len", "bool", "str", "repr", "hash"),
    *("int", "float", "complex", "bytes", "index", "enter", "exit", "neg", "pos", "abs", "invert", "format", "round"),
    *("aiter", "anext", "aenter", "aexit", "await"),
)
"""Special methods that never receive the expected value, and that return data."""

_loop: asyncio.AbstractEventLoop | None = None  # asyncio is imported only for programs that use it


def _run_in_loop(awaitable: Awaitable[object]) -> object:
    """Run an awaitable in the event loop that all operations share, as asynchronous generators need."""
    global _loop
    if _loop is None:
        _loop = importlib.import_module("asyncio").new_event_loop()
    return _loop.run_until_complete(_as_coroutine(awaitable))


async def _as_coroutine(awaitable: Awaitable[object]) -> object:
    return await awaitable


def _content(value: Any) -> object:
    """Return the content of an object whose class extends a builtin, read by the builtin's methods."""
    base = next(base for base in CONTAINER_TYPES if isinstance(value, base))
    return dict(dict.items(value)) if base is dict else base(base.__iter__(value))  # type: ignore[attr-defined]


_OPERATORS = (
    *("eq", "ne", "lt", "le", "gt", "ge", "contains", "getitem", "setitem", "delitem"),
    *("neg", "pos", "abs", "invert", *(name for name in BINARY if name != "divmod"), *INPLACE),
)
_FUNCTIONS: tuple[Callable[..., object], ...] = (
    *(getattr, setattr, delattr, dir, isinstance, issubclass),
    *(iter, next, reversed, aiter, len, bool, str, repr, hash, int, float, complex, bytes, format, round, divmod),
    *(dataclasses.asdict, dataclasses.astuple, dataclasses.is_dataclass, dataclasses.replace),
)

REMOTE_OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, f"__{name}__") for name in _OPERATORS},
    **{function.__name__: function for function in _FUNCTIONS},
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    "index": operator.index,
    "seed": random.seed,
    "content": _content,
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager, *error: manager.__exit__(*error),
    "await": _run_in_loop,
    "anext": lambda generator: _run_in_loop(anext(generator)),
    "aenter": lambda manager: _run_in_loop(manager.__aenter__()),
    "aexit": lambda manager, *error: _run_in_loop(manager.__aexit__(*error)),
}
"""The function of each operation, by name."""
