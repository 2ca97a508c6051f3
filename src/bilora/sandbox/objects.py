"""The program's side of a test that runs elsewhere: objects that stay here, and what is done to them there.

Nothing here is trusted by anybody: it runs in the process of the program, and what it answers is data.
"""

from __future__ import annotations

import builtins
import collections
import importlib
import operator
from collections.abc import Callable
from typing import Any

from bilora.sandbox.values import Readers, Unspeakable, decode, encode

BUILTINS = {id(value): name for name, value in vars(builtins).items() if callable(value)}
"""Functions and classes of Python itself, by identity; they are sent as their names."""

MUTABLE = (list, dict, set, bytearray, collections.deque)
"""What a function may change in place; such an argument comes back as it was left."""

OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, f"__{name}__") for name in (
        "eq", "ne", "lt", "le", "gt", "ge", "contains", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow",
        "matmul", "and", "or", "xor", "lshift", "rshift", "getitem", "setitem", "delitem", "neg", "pos", "abs",
        "invert",
    )},
    **{function.__name__: function for function in (
        getattr, setattr, delattr, iter, next, len, bool, str, repr, hash, int, float, complex, bytes, format, round,
        reversed, divmod, isinstance, issubclass,
    )},
    "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
    "index": operator.index,
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager, *error: manager.__exit__(*error),
    "await": lambda awaitable: importlib.import_module("asyncio").run(_awaited(awaitable)),
}  # fmt: skip
"""What may be done to an object, by name."""


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


class Objects:
    """The objects that a test elsewhere holds on to, by number."""

    def __init__(self, namespace: dict[str, Any], call_back: Callable[[int, Any], Any]) -> None:
        """Look names up in `namespace`; `call_back` calls a function of the test, by number, with its arguments."""
        self._namespace = namespace
        self._call_back = call_back
        self._held: list[Any] = []
        self._readers: Readers = {
            "ref": lambda number: self._held[number],
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
            "callback": self._stub,
        }

    def describe(self, name: str) -> Any:
        """Say what the program has under a name: nothing, plain data, an exception's class or an object."""
        if name not in self._namespace:
            return None
        value = self._namespace[name]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["exception", [self._hold(value), _lineage(value)]]
        try:
            encode(value)
        except Unspeakable:
            return ["object", self._written(value, None)]
        return ["plain", None]

    def perform(self, name: str, tagged: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
        """Do an operation and return its value, with the arguments that it changed in place.

        Raises:
            Unspeakable: an argument or the value cannot be sent.
        """
        arguments = [self.read(one) for one in tagged]
        named = {key: self.read(one) for key, one in keywords.items()}
        everything: dict[int | str, Any] = dict(enumerate(arguments))
        everything.update(named)
        mutable = {key: value for key, value in everything.items() if isinstance(value, MUTABLE)}
        before = {key: self.write(value) for key, value in mutable.items()}
        result = self._namespace[arguments[0]] if name == "name" else OPERATIONS[name](*arguments, **named)
        after = {key: self.write(value) for key, value in mutable.items()}
        return {
            "value": self.write(result),
            "changed": [[key, after[key]] for key in mutable if after[key] != before[key]],
        }

    def write(self, value: Any) -> Any:
        """Turn a value into tagged data; what is no plain data is kept here and sent as its number."""
        return encode(value, self._written)

    def read(self, tagged: Any) -> Any:
        """Turn tagged data of a test into a value."""
        return decode(tagged, self._readers)

    def _hold(self, value: Any) -> int:
        self._held.append(value)
        return len(self._held) - 1

    def _written(self, value: Any, plain: Any) -> Any:
        if BUILTINS.get(id(value)):
            return ["builtin", BUILTINS[id(value)]]
        if type(value) is range:
            return ["range", [value.start, value.stop, value.step]]
        number, kind = self._hold(value), type(value).__name__
        return ["ref", [number, kind]] if plain is None else ["extends", [number, kind, plain]]

    def _stub(self, number: int) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return self._call_back(number, arguments)

        return call


def raised(error: BaseException, text: str) -> dict[str, Any]:
    """Describe an exception as data: the names of its classes, what it says, and its arguments if they are plain."""
    try:
        arguments = encode(tuple(error.args))
    except BaseException:
        arguments = None
    return {"raised": [_lineage(type(error)), text, arguments]}


def _lineage(kind: type) -> list[str]:
    return [base.__name__ for base in type.mro(kind) if base is not object] or ["Exception"]
