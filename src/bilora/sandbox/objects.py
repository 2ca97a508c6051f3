"""The program's side of a test that runs elsewhere: objects that stay here, and what is done to them there.

Nothing here is trusted by anybody: it runs in the process of the program, and what it answers is data.
"""

from __future__ import annotations

import array
import builtins
import collections
import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

from bilora.sandbox.operations import BASES, DECIDING, OPERATIONS, TELLING
from bilora.sandbox.values import Readers, Unspeakable, decode, encode

BUILTINS = {
    id(value): name for name, value in vars(builtins).items() if callable(value) or value in (..., NotImplemented)
}
"""Functions and classes of Python itself, by identity; they are sent as their names."""

MUTABLE = (list, dict, set, bytearray, collections.deque, array.array, tuple)
"""What a function may change in place, or holds what it may; such an argument comes back as it was left."""

LENDABLE = tuple(kind for kind in MUTABLE if kind is not tuple)
"""What a test may change in place after the program returned it."""

_MAX_WATCHED = 100


class Objects:
    """The objects that a test elsewhere holds on to, by number."""

    def __init__(self, namespace: dict[str, Any], call_back: Callable[..., Any]) -> None:
        """Look names up in `namespace`; `call_back` calls a function of the test, by number, with its arguments."""
        self._namespace = namespace
        self._call_back = call_back
        self._held: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._special: dict[type, list[str]] = {}
        self._stubs: dict[int, Callable[..., Any]] = {}
        self._watched: dict[tuple[int, int | str], tuple[Any, Any]] = {}
        self._readers: Readers = {
            "ref": lambda number: self._held[number],
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
            "slice": lambda parts: slice(*map(self.read, parts)),
            "callback": lambda parts: self._stubs.get(parts[0]) or self._stub(*parts),
            "iterator": self._iterate,
            "error": lambda parts: _error_of_the_test(self.read, *parts),
        }

    def describe(self, name: str) -> Any:
        """Say what the program has under a name: nothing, plain data, an exception's class or an object."""
        if name not in self._namespace:
            return None
        value = self._namespace[name]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["exception", self._class(value)]
        try:
            encode(value)
        except Unspeakable:
            return ["object", self.write(value)]
        return ["plain", None]

    def perform(
        self, name: str, tagged: list[Any], keywords: dict[str, Any], number: int, printing: bool, updates: list[Any]
    ) -> dict[str, Any]:
        """Do an operation and return its value, with the arguments, of this or an earlier one, that were changed.

        With `printing`, what it prints is returned too. `updates` are changes that the test made to containers of the
        program's. Such a container, which the program holds on to, is "lent" by its number.

        Raises:
            Unspeakable: an argument or the value cannot be sent.
        """
        for held, changed in updates:
            replace(self._held[held], self.read(changed))
        arguments = [self.read(one) for one in tagged]
        named = {key: self.read(one) for key, one in keywords.items()}
        given: dict[int | str, Any] = dict(enumerate(arguments))
        given.update(named)
        self._watch(number, given)
        del given
        before = self._references()
        printed = io.StringIO() if printing else None
        try:
            with contextlib.redirect_stdout(printed) if printed else contextlib.nullcontext():
                result = self._operation(name)(*arguments, **named)
            answer = {"value": self.write(result)}
            if type(result) in LENDABLE and sys.getrefcount(result) > 2:
                answer["lent"] = self._hold(result)
            result = None
        except Unspeakable:
            raise
        except Exception as error:
            answer = {"raised": self.write(error)}
        if printed:
            answer["printed"] = printed.getvalue()
        answer["changed"] = self._changed()
        after = self._references()
        for place, count in before.items():
            if place[0] == number and (after[place] <= count or len(self._watched) > _MAX_WATCHED):
                del self._watched[place]  # nothing of the program holds on to it
        return answer

    def _watch(self, number: int, given: dict[int | str, Any]) -> None:
        """Note how the arguments of an operation are before it."""
        for key, value in given.items():
            if isinstance(value, MUTABLE) and id(value) not in self._numbers:
                self._watched[number, key] = value, self.write(value)

    def _references(self) -> dict[tuple[int, int | str], int]:
        return {place: sys.getrefcount(pair[0]) for place, pair in self._watched.items()}

    def _changed(self) -> list[Any]:
        """Return what was changed since it was last sent."""
        changed = []
        for place, (value, before) in self._watched.items():
            after = self.write(value)
            if after != before:
                changed.append([*place, after])
                self._watched[place] = value, after
        return changed

    def write(self, value: Any) -> Any:
        """Turn a value into tagged data; what is no plain data is kept here and sent as its number."""
        return encode(value, self._written)

    def read(self, tagged: Any) -> Any:
        """Turn tagged data of a test into a value."""
        return decode(tagged, self._readers)

    def _operation(self, name: str) -> Callable[..., Any]:
        if name == "name":
            return self._namespace.__getitem__
        if name == "attribute":
            return lambda number, attribute: getattr(self._held[number], attribute)
        return OPERATIONS[name]

    def _hold(self, value: Any) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._held)
            self._held.append(value)
        return self._numbers[id(value)]

    def _written(self, value: Any, plain: Any) -> Any:
        if BUILTINS.get(id(value)):
            return ["builtin", BUILTINS[id(value)]]
        if type(value) is range:
            return ["range", [value.start, value.stop, value.step]]
        if isinstance(value, BaseException):
            return self._error(value)
        kind = type(value)
        special = self._methods(kind) + ["getitem"] * (kind is type and hasattr(value, "__class_getitem__"))
        described = [self._hold(value), kind.__name__, special]
        if plain is None:
            return ["ref", [*described, ""]]
        base = next((base.__name__ for base in BASES if isinstance(value, base)), "")
        return ["ref", [*described, base]] if base else ["extends", [*described, plain]]

    def _methods(self, kind: type) -> list[str]:
        """Return the special methods of a class that are not those of `object`, or of a builtin that it extends."""
        if kind not in self._special:
            lineage = [base for base in kind.__mro__ if base is not object]
            if any(base.__module__ != "builtins" for base in lineage):
                lineage = [base for base in lineage if base.__module__ != "builtins" or base is type]
            self._special[kind] = [
                name for name in (*TELLING, *DECIDING) if any(f"__{name}__" in vars(base) for base in lineage)
            ]
        return self._special[kind]

    def _class(self, kind: type) -> list[Any]:
        bases = [self._class(base) for base in kind.__bases__ if issubclass(base, BaseException)]
        return [kind.__module__, kind.__name__, self._hold(kind), bases if kind.__module__ != "builtins" else []]

    def _error(self, error: BaseException) -> Any:
        """Describe an exception: its class, what it says, its arguments, what it holds, and what caused it."""
        number = getattr(error, "_bilora_number", None)
        if isinstance(number, int):
            return ["test's", number]
        try:
            text = str(error)
        except BaseException:
            text = ""
        attributes = {key: value for key, value in vars(error).items() if not key.startswith("__")}
        described = []
        for part in (list(error.args), attributes):
            try:
                described.append(self.write(part))
            except BaseException:
                described.append(None)
        cause = self._error(error.__cause__) if error.__cause__ and error.__cause__ is not error else None
        return ["exception", [self._class(type(error)), self._hold(error), text, *described, cause]]

    def _stub(self, number: int, name: str, doc: str | None, awaited: bool) -> Callable[..., Any]:
        """Make a function that calls one of the test's, by the same name."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            return self._call_back(number, arguments, keywords)

        async def wait(*arguments: Any, **keywords: Any) -> Any:
            return self._call_back(number, arguments, keywords)

        made = wait if awaited else call
        made.__name__ = made.__qualname__ = name
        made.__doc__ = doc
        self._stubs[number] = made
        return made

    def _iterate(self, number: int) -> Iterator[Any]:
        while True:
            try:
                value = self._call_back(number, (), {})
            except StopIteration:
                return
            yield value


def _error_of_the_test(read: Callable[[Any], Any], name: str, base: str, args: Any, number: int) -> BaseException:
    """Rebuild an exception of the test, of a class of its own that extends a builtin one."""
    kind: Any = getattr(builtins, base)
    error: BaseException = (kind if name == base else type(name, (kind,), {}))(*read(args))
    error._bilora_number = number  # type: ignore[attr-defined]
    return error


def replace(old: Any, new: Any) -> None:
    """Make a container equal to `new` in place, keeping the objects inside it that can be kept."""
    if isinstance(old, dict):
        merged = {key: _kept(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, tuple):
        for one, other in zip(old, new, strict=True):
            _kept(one, other)
    elif isinstance(old, list) and len(old) == len(new):
        old[:] = [_kept(one, other) for one, other in zip(old, new, strict=True)]
    elif isinstance(old, collections.deque):
        old.clear()
        old.extend(new)
    else:
        old[:] = new


def _kept(old: Any, new: Any) -> Any:
    if type(old) is type(new) and isinstance(old, MUTABLE):
        replace(old, new)
        return new if isinstance(old, tuple) and old != new else old
    return new
