"""The program's objects, on which a test in another process performs operations.

This runs in the program's process, so other processes treat what it returns as untrusted data.
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

    ArgumentKey = tuple[int, int | str]

BUILTIN_NAMES = {
    id(value): name for name, value in vars(builtins).items() if callable(value) or value in (..., NotImplemented)
}
"""Names of the builtin functions and classes, by identity; these are sent by name."""

MUTABLE = (list, dict, set, bytearray, collections.deque, array.array, tuple)
"""Types that a function may change in place, directly or by their items; changes of arguments are sent back."""

SHAREABLE = tuple(kind for kind in MUTABLE if kind is not tuple)
"""Types of returned values that a test may change in place."""

_MAX_WATCHED = 100


class Objects:
    """The objects that a test refers to, by number."""

    def __init__(self, namespace: dict[str, object], call_back: Callable[..., object]) -> None:
        """Take the program's `namespace`, and a function that calls the test's functions by number."""
        self._namespace = namespace
        self._call_back = call_back
        self._objects: list[object] = []
        self._numbers: dict[int, int] = {}
        self._special: dict[type, list[str]] = {}
        self._stubs: dict[int, Callable[..., object]] = {}
        self._watched: dict[ArgumentKey, tuple[object, Json]] = {}  # arguments with the content last sent
        self._readers: Readers = {
            "ref": lambda number: self._objects[number],
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
            "slice": lambda parts: slice(*map(self.read, parts)),
            "callback": lambda parts: self._stubs.get(parts[0]) or self._stub(*parts),
            "iterator": self._iterate,
            "error": lambda parts: _test_exception(self.read, *parts),
        }

    def describe(self, name: str) -> Description | None:
        """Return whether a name refers to plain data, an exception's class or an object; None if undefined."""
        if name not in self._namespace:
            return None
        value = self._namespace[name]
        if isinstance(value, type) and issubclass(value, BaseException):
            return "exception", self._describe_class(value)
        try:
            encode_value(value)
        except NotSerializable:
            return "object", self.write(value)
        return "plain", None

    def perform(self, request: PerformOperation) -> CandidateReply:
        """Perform an operation; return its value and the arguments, of any operation, that changed in place.

        `updates` contains the test's changes to shared containers. With `printing` the output is returned too. A
        returned container that the program still refers to gets a number, `shared`.

        Raises:
            NotSerializable: an argument or the value cannot be sent.
        """
        # 1) apply the test's changes 2) read the arguments and record their content
        for object_number, changed in request["updates"]:
            replace_content(self._objects[object_number], self.read(changed))
        arguments = [self.read(argument) for argument in request["arguments"]]
        keywords = {key: self.read(argument) for key, argument in request["keywords"].items()}
        named_arguments: dict[int | str, object] = dict(enumerate(arguments))
        named_arguments.update(keywords)
        number = request["number"]
        self._watch(number, named_arguments)
        del named_arguments  # it would count among the references below
        before = self._references()
        # 3) perform the operation
        printed = io.StringIO() if request["printing"] else None
        reply: CandidateReply
        try:
            with contextlib.redirect_stdout(printed) if printed else contextlib.nullcontext():
                result = self._operation(request["operation"])(*arguments, **keywords)
            reply = {"value": self.write(result)}
            if type(result) in SHAREABLE and sys.getrefcount(result) > 2:
                reply["shared"] = self._number_of(result)
            result = None
        except NotSerializable:
            raise
        except Exception as error:
            reply = {"raised": self.write(error)}
        # 4) add its side effects 5) stop watching arguments that the program did not store
        if printed:
            reply["printed"] = printed.getvalue()
        reply["changed"] = self._changed()
        after = self._references()
        for key, count in before.items():
            if key[0] == number and (after[key] <= count or len(self._watched) > _MAX_WATCHED):
                del self._watched[key]
        return reply

    def _watch(self, number: int, named_arguments: dict[int | str, object]) -> None:
        """Record the content of an operation's mutable arguments."""
        for key, value in named_arguments.items():
            if isinstance(value, MUTABLE) and id(value) not in self._numbers:
                self._watched[number, key] = value, self.write(value)

    def _references(self) -> dict[ArgumentKey, int]:
        return {key: sys.getrefcount(pair[0]) for key, pair in self._watched.items()}

    def _changed(self) -> list[tuple[int, int | str, Json]]:
        """Return the watched arguments that changed since they were last sent."""
        changed = []
        for key, (value, before) in self._watched.items():
            after = self.write(value)
            if after != before:
                changed.append((*key, after))
                self._watched[key] = value, after
        return changed

    def write(self, value: object) -> Json:
        """Encode a value as tagged data; an object that is not plain data is sent as a number."""
        return encode_value(value, self._write_object)

    def read(self, tagged: object) -> Any:
        """Decode tagged data of a test."""
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

    def _write_object(self, value: object, builtin_value: Json) -> Json:
        if BUILTIN_NAMES.get(id(value)):
            return ["builtin", BUILTIN_NAMES[id(value)]]
        if type(value) is range:
            return ["range", [value.start, value.stop, value.step]]
        if isinstance(value, BaseException):
            return self._describe_exception(value)
        kind = type(value)
        special = self._methods(kind) + ["getitem"] * (kind is type and hasattr(value, "__class_getitem__"))
        description: list[Json] = [self._number_of(value), kind.__name__, [*special]]
        if builtin_value is None:
            return ["ref", [*description, ""]]
        base = next((base.__name__ for base in CONTAINER_TYPES if isinstance(value, base)), "")
        return ["ref", [*description, base]] if base else ["extends", [*description, builtin_value]]

    def _methods(self, kind: type) -> list[str]:
        """Return the special methods of a class, except those of `object` and of a builtin that it extends."""
        if kind not in self._special:
            lineage = [base for base in kind.__mro__ if base is not object]
            if any(base.__module__ != "builtins" for base in lineage):
                lineage = [base for base in lineage if base.__module__ != "builtins" or base is type]
            self._special[kind] = [
                name for name in (*NEUTRAL, *DECISIVE) if any(f"__{name}__" in vars(base) for base in lineage)
            ]
        return self._special[kind]

    def _describe_class(self, kind: type) -> list[Json]:
        """Describe an exception's class: see `ClassFields`."""
        bases: list[Json] = [self._describe_class(base) for base in kind.__bases__ if issubclass(base, BaseException)]
        return [kind.__module__, kind.__name__, self._number_of(kind), bases if kind.__module__ != "builtins" else []]

    def _describe_exception(self, error: BaseException) -> Json:
        """Describe an exception: its class, number, message, arguments, attributes and cause."""
        number = getattr(error, "_bilora_number", None)
        if isinstance(number, int):
            return ["test's", number]
        try:
            text = str(error)
        except BaseException:
            text = ""
        attributes = {key: value for key, value in vars(error).items() if not key.startswith("__")}
        description: list[Json] = []
        for part in (list(error.args), attributes):
            try:
                description.append(self.write(part))
            except BaseException:
                description.append(None)
        cause = self._describe_exception(error.__cause__) if error.__cause__ and error.__cause__ is not error else None
        return ["exception", [self._describe_class(type(error)), self._number_of(error), text, *description, cause]]

    def _stub(self, number: int, name: str, doc: str | None, is_coroutine: bool) -> Callable[..., object]:
        """Return a function that calls a function of the test and has its name."""

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


def _test_exception(read: Callable[[object], Any], name: str, base: str, args: Json, number: int) -> BaseException:
    """Return an exception of the test, of a builtin class or a new subclass of one."""
    builtin: type[BaseException] = getattr(builtins, base)
    error: BaseException = (builtin if name == base else type(name, (builtin,), {}))(*read(args))
    error._bilora_number = number  # type: ignore[attr-defined]
    return error


def replace_content(old: Any, new: Any) -> None:
    """Make a container equal to `new` in place; items that keep their type are changed in place too."""
    if isinstance(old, dict):
        merged = {key: _update_item(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, tuple):
        for old_item, new_item in zip(old, new, strict=True):
            _update_item(old_item, new_item)
    elif isinstance(old, list) and len(old) == len(new):
        old[:] = [_update_item(old_item, new_item) for old_item, new_item in zip(old, new, strict=True)]
    elif isinstance(old, collections.deque):
        old.clear()
        old.extend(new)
    else:
        old[:] = new


def _update_item(old: object, new: object) -> object:
    """Return the old item, changed in place where possible; else the new item."""
    if type(old) is type(new) and isinstance(old, MUTABLE):
        replace_content(old, new)
        return new if isinstance(old, tuple) and old != new else old
    return new
