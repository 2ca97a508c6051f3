"""The program's objects, on which a test in another process performs operations.

This runs in the program's process, so no other process trusts it: whatever it returns is only data.
"""

from __future__ import annotations

import array
import builtins
import collections
import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from bilora.sandbox.operations import CONTAINER_TYPES, DECISIVE, NEUTRAL, REMOTE_OPERATIONS
from bilora.sandbox.values import NotSerializable, Readers, decode_value, encode_value

if TYPE_CHECKING:
    from bilora.sandbox.messages import CandidateReply, Description, Json, PerformOperation

    Place = tuple[int, int | str]

BUILTIN_NAMES = {
    id(value): name for name, value in vars(builtins).items() if callable(value) or value in (..., NotImplemented)
}
"""Names of Python's own functions and classes, by identity; they are sent as their names."""

MUTABLE = (list, dict, set, bytearray, collections.deque, array.array, tuple)
"""Types that a function may change in place, or whose items it may; changes of such an argument are sent back."""

LENDABLE = tuple(kind for kind in MUTABLE if kind is not tuple)
"""Types of values that a test may change in place after the program returned them."""

_MAX_WATCHED = 100


class Objects:
    """The objects that a test refers to, by number."""

    def __init__(self, namespace: dict[str, object], call_back: Callable[..., object]) -> None:
        """Look names up in `namespace`; `call_back` calls a function of the test, by number, with its arguments."""
        self._namespace = namespace
        self._call_back = call_back
        self._objects: list[object] = []
        self._numbers: dict[int, int] = {}
        self._special: dict[type, list[str]] = {}
        self._stubs: dict[int, Callable[..., object]] = {}
        self._watched: dict[Place, tuple[object, Json]] = {}  # arguments, and how they were last sent
        self._readers: Readers = {
            "ref": lambda number: self._objects[number],
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
            "slice": lambda parts: slice(*map(self.read, parts)),
            "callback": lambda parts: self._stubs.get(parts[0]) or self._stub(*parts),
            "iterator": self._iterate,
            "error": lambda parts: _error_of_the_test(self.read, *parts),
        }

    def describe(self, name: str) -> Description | None:
        """Return what kind of value the program has under a name: plain data, an exception's class or an object."""
        if name not in self._namespace:
            return None
        value = self._namespace[name]
        if isinstance(value, type) and issubclass(value, BaseException):
            return "exception", self._class(value)
        try:
            encode_value(value)
        except NotSerializable:
            return "object", self.write(value)
        return "plain", None

    def perform(self, wanted: PerformOperation) -> CandidateReply:
        """Perform an operation and return its value, with the arguments, of this or an earlier one, that were changed.

        With `printing`, what it prints is returned too. `updates` are changes that the test made to containers of the
        program's. If the program still refers to the container that it returns, its number is returned as `lent`.

        Raises:
            NotSerializable: an argument or the value cannot be sent.
        """
        # 1) apply the changes of the test 2) read the arguments, and note how they are
        for held, changed in wanted["updates"]:
            replace(self._objects[held], self.read(changed))
        arguments = [self.read(argument) for argument in wanted["arguments"]]
        keywords = {key: self.read(argument) for key, argument in wanted["keywords"].items()}
        given: dict[int | str, object] = dict(enumerate(arguments))
        given.update(keywords)
        number = wanted["number"]
        self._watch(number, given)
        del given  # else it would count among the references below
        before = self._references()
        # 3) perform the operation
        printed = io.StringIO() if wanted["printing"] else None
        reply: CandidateReply
        try:
            with contextlib.redirect_stdout(printed) if printed else contextlib.nullcontext():
                result = self._operation(wanted["operation"])(*arguments, **keywords)
            reply = {"value": self.write(result)}
            if type(result) in LENDABLE and sys.getrefcount(result) > 2:
                reply["lent"] = self._number_of(result)
            result = None
        except NotSerializable:
            raise
        except Exception as error:
            reply = {"raised": self.write(error)}
        # 4) add its side effects 5) stop watching arguments that the program has no new reference to
        if printed:
            reply["printed"] = printed.getvalue()
        reply["changed"] = self._changed()
        after = self._references()
        for place, count in before.items():
            if place[0] == number and (after[place] <= count or len(self._watched) > _MAX_WATCHED):
                del self._watched[place]
        return reply

    def _watch(self, number: int, given: dict[int | str, object]) -> None:
        """Note the arguments of an operation as they are before it."""
        for key, value in given.items():
            if isinstance(value, MUTABLE) and id(value) not in self._numbers:
                self._watched[number, key] = value, self.write(value)

    def _references(self) -> dict[Place, int]:
        return {place: sys.getrefcount(pair[0]) for place, pair in self._watched.items()}

    def _changed(self) -> list[tuple[int, int | str, Json]]:
        """Return the watched arguments that have changed since they were last sent."""
        changed = []
        for place, (value, before) in self._watched.items():
            after = self.write(value)
            if after != before:
                changed.append((*place, after))
                self._watched[place] = value, after
        return changed

    def write(self, value: object) -> Json:
        """Turn a value into tagged data; an object that is no plain data stays here and is sent as its number."""
        return encode_value(value, self._write_object)

    def read(self, tagged: object) -> Any:
        """Turn tagged data of a test into a value."""
        return decode_value(tagged, self._readers)

    def _operation(self, name: str) -> Callable[..., object]:
        if name == "name":
            return self._namespace.__getitem__
        if name == "attribute":
            return lambda number, attribute: getattr(self._objects[number], attribute)
        return REMOTE_OPERATIONS[name]

    def _number_of(self, value: object) -> int:
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return self._numbers[id(value)]

    def _write_object(self, value: object, plain: Json) -> Json:
        if BUILTIN_NAMES.get(id(value)):
            return ["builtin", BUILTIN_NAMES[id(value)]]
        if type(value) is range:
            return ["range", [value.start, value.stop, value.step]]
        if isinstance(value, BaseException):
            return self._error(value)
        kind = type(value)
        special = self._methods(kind) + ["getitem"] * (kind is type and hasattr(value, "__class_getitem__"))
        described: list[Json] = [self._number_of(value), kind.__name__, [*special]]
        if plain is None:
            return ["ref", [*described, ""]]
        base = next((base.__name__ for base in CONTAINER_TYPES if isinstance(value, base)), "")
        return ["ref", [*described, base]] if base else ["extends", [*described, plain]]

    def _methods(self, kind: type) -> list[str]:
        """Return the special methods of a class that are not those of `object`, or of a builtin that it extends."""
        if kind not in self._special:
            lineage = [base for base in kind.__mro__ if base is not object]
            if any(base.__module__ != "builtins" for base in lineage):
                lineage = [base for base in lineage if base.__module__ != "builtins" or base is type]
            self._special[kind] = [
                name for name in (*NEUTRAL, *DECISIVE) if any(f"__{name}__" in vars(base) for base in lineage)
            ]
        return self._special[kind]

    def _class(self, kind: type) -> list[Json]:
        """Describe an exception's class: see `ClassFields`."""
        bases: list[Json] = [self._class(base) for base in kind.__bases__ if issubclass(base, BaseException)]
        return [kind.__module__, kind.__name__, self._number_of(kind), bases if kind.__module__ != "builtins" else []]

    def _error(self, error: BaseException) -> Json:
        """Describe an exception: its class, number, message, arguments, attributes and cause."""
        number = getattr(error, "_bilora_number", None)
        if isinstance(number, int):
            return ["test's", number]
        try:
            text = str(error)
        except BaseException:
            text = ""
        attributes = {key: value for key, value in vars(error).items() if not key.startswith("__")}
        described: list[Json] = []
        for part in (list(error.args), attributes):
            try:
                described.append(self.write(part))
            except BaseException:
                described.append(None)
        cause = self._error(error.__cause__) if error.__cause__ and error.__cause__ is not error else None
        return ["exception", [self._class(type(error)), self._number_of(error), text, *described, cause]]

    def _stub(self, number: int, name: str, doc: str | None, is_coroutine: bool) -> Callable[..., object]:
        """Make a function that calls one of the test's, by the same name."""

        def call(*arguments: object, **keywords: object) -> object:
            return self._call_back(number, arguments, keywords)

        async def call_async(*arguments: object, **keywords: object) -> object:
            return self._call_back(number, arguments, keywords)

        stub = call_async if is_coroutine else call
        stub.__name__ = stub.__qualname__ = name
        stub.__doc__ = doc
        self._stubs[number] = stub
        return stub

    def _iterate(self, number: int) -> Iterator[object]:
        while True:
            try:
                value = self._call_back(number, (), {})
            except StopIteration:
                return
            yield value


def _error_of_the_test(read: Callable[[object], Any], name: str, base: str, args: Json, number: int) -> BaseException:
    """Rebuild an exception of the test: of a builtin class, or of a new class that extends one."""
    builtin: type[BaseException] = getattr(builtins, base)
    error: BaseException = (builtin if name == base else type(name, (builtin,), {}))(*read(args))
    error._bilora_number = number  # type: ignore[attr-defined]
    return error


def replace(old: Any, new: Any) -> None:
    """Make a container equal to `new` in place; objects inside it that are equal in type are changed in place too."""
    if isinstance(old, dict):
        merged = {key: _replaced(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, tuple):
        for old_item, new_item in zip(old, new, strict=True):
            _replaced(old_item, new_item)
    elif isinstance(old, list) and len(old) == len(new):
        old[:] = [_replaced(old_item, new_item) for old_item, new_item in zip(old, new, strict=True)]
    elif isinstance(old, collections.deque):
        old.clear()
        old.extend(new)
    else:
        old[:] = new


def _replaced(old: object, new: object) -> object:
    """Return the old object, changed in place, if it can be; else the new one."""
    if type(old) is type(new) and isinstance(old, MUTABLE):
        replace(old, new)
        return new if isinstance(old, tuple) and old != new else old
    return new
