"""The test's side of a program that runs elsewhere: its functions and objects, held by number.

Only data comes back from there. What would let the program decide (comparing one of its objects with what the
test expects) is noticed, so that such an assert is told from one that was decided here.
"""

from __future__ import annotations

import builtins
import re
import types
from collections.abc import Callable, Generator
from typing import Any, NoReturn, Protocol

from bilora.sandbox.objects import BUILTINS
from bilora.sandbox.values import Readers, Unspeakable, decode, encode


class Undecidable(BaseException):
    """This test cannot run apart from the program; a test does not catch it by accident."""


class Exchange(Protocol):
    """Sends one question to the program and returns its reply, whatever it is."""

    def __call__(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the reply, whose id was checked."""
        ...


class Program:
    """The program as the test sees it.

    `operations` counts what was asked of it. `trusted` is False once one of its objects has met a value of the
    test in an operation that could give a verdict.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[str, type[BaseException]] = {}
        self.operations = 0
        self.trusted = True
        self._readers: Readers = {
            "ref": lambda parts: Remote(self, int(parts[0]), str(parts[1])),
            "extends": self._extended,
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
        }

    def bind(self, names: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Return what the program has under each name, and the names whose values have to be asked for each time."""
        found, fresh = {}, []
        reply = self._ask({"names": names})
        for name, described in zip(names, reply["value"], strict=True):
            if described is None:
                continue
            kind, payload = described
            if kind == "plain":
                found[name] = self._lookup(name)
                fresh.append(name)
            elif kind == "exception":
                number, lineage = payload
                found[name] = self._exception(name, number, lineage)
            else:
                value = self.read(payload)
                found[name] = value
        return found, fresh

    def perform(self, operation: str, *arguments: Any, **keywords: Any) -> Any:
        """Do an operation there and return its value; arguments that it changed in place are changed here."""
        self.operations += 1
        question = {
            "operation": operation,
            "arguments": [self.write(one) for one in arguments],
            "keywords": {key: self.write(one) for key, one in keywords.items()},
        }
        reply = self._ask(question)
        given: dict[Any, Any] = {**dict(enumerate(arguments)), **keywords}
        for key, changed in reply.get("changed", ()):
            _replace(given[key], self.read(changed))
        return self.read(reply["value"])

    def write(self, value: Any) -> Any:
        """Turn a value of the test into tagged data."""
        try:
            return encode(value, self._written)
        except Unspeakable as error:
            raise Undecidable(f"the program cannot be given {error}") from None

    def read(self, tagged: Any) -> Any:
        """Turn tagged data of the program into a value."""
        return decode(tagged, self._readers)

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Ask, and serve the calls of the test's own functions that come before the reply."""
        reply = self._exchange(question)
        while "callback" in reply:
            number, tagged = reply["callback"]
            try:
                value = self._callbacks[number](*[self.read(one) for one in tagged])
                answer = {"returned": self.write(value)}
            except Exception as error:
                answer = {"raising": [type(error).__name__, str(error)]}
            reply = self._exchange(answer)
        if "raised" in reply:
            self._raise(*reply["raised"])
        if "value" not in reply:
            raise Unspeakable(str(reply.get("failure"))[:300])
        return reply

    def _raise(self, lineage: list[str], text: str, tagged: Any) -> NoReturn:
        names = [str(name) for name in lineage]
        kind = next((found for name in names if (found := self._exceptions.get(name) or _builtin(name))), Exception)
        try:
            error = kind(*(self.read(tagged) if tagged is not None else (text.partition(": ")[2],)))
        except Exception:
            error = Exception(text)
        error.shown_as = text  # type: ignore[attr-defined]
        raise error from None

    def _exception(self, name: str, number: int, lineage: list[str]) -> type[BaseException]:
        base = next((found for one in lineage if (found := _builtin(one))), Exception)
        made = type(name, (base,), {"_number": number})
        self._exceptions[name] = made
        return made

    def _lookup(self, name: str) -> Callable[[], Any]:
        return lambda: self.perform("name", name)

    def _extended(self, parts: Any) -> Any:
        number, kind, plain = parts
        value = self.read(plain)
        extension = _EXTENSIONS.get(type(value))
        if extension is None:
            return value
        made = extension(value)
        made._remote = Remote(self, int(number), str(kind))
        return made

    def _written(self, value: Any, plain: Any) -> Any:
        remote = value if isinstance(value, Remote) else getattr(value, "_remote", None)
        if isinstance(remote, Remote):
            return ["ref", remote._number]
        if BUILTINS.get(id(value)):
            return ["builtin", BUILTINS[id(value)]]
        if type(value) is range:
            return ["range", [value.start, value.stop, value.step]]
        if isinstance(value, type) and "_number" in vars(value):
            return ["ref", vars(value)["_number"]]
        if plain is not None:
            return plain
        if callable(value) and not isinstance(value, type):
            self._callbacks.append(value)
            return ["callback", len(self._callbacks) - 1]
        raise Undecidable(f"the program cannot be given an object of type {type(value).__name__}")


def _builtin(name: str) -> type[BaseException] | None:
    found = getattr(builtins, name, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _replace(old: Any, new: Any) -> None:
    """Make a container of the test equal to `new`, keeping the objects inside it that can be kept."""
    if isinstance(old, dict):
        merged = {key: _kept(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, list) and len(old) == len(new):
        old[:] = [_kept(one, other) for one, other in zip(old, new, strict=True)]
    elif isinstance(old, list | bytearray):
        old[:] = new
    else:
        old.clear()
        old.extend(new)


def _kept(old: Any, new: Any) -> Any:
    if type(old) is type(new) and isinstance(old, list | dict | set):
        _replace(old, new)
        return old
    return new


_TYPES: tuple[Any, ...] = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.GeneratorType),
    *(types.CoroutineType, types.AsyncGeneratorType, map, filter, zip, enumerate, reversed),
    *(type(iter([])), type(iter(())), type(iter("")), type(iter(b"")), type(iter(set())), type(iter({}))),
    *(type(iter(range(1))), type({}.values()), type(re.compile("")), slice, property, classmethod, staticmethod),
)
_KINDS: dict[str, type] = {kind.__name__: kind for kind in _TYPES}


class Remote:
    """One object of the program. What is done to it happens there, and what comes of it comes back as data."""

    def __init__(self, program: Program, number: int, kind: str) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_kind", kind)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise Undecidable("a class of the test extends one of the program")

    @property  # type: ignore[misc]  # as in unittest.mock: `isinstance` asks it
    def __class__(self) -> type:
        """The type that it says it is, where Python has one of that name that is no plain data: for `isinstance`."""
        return _KINDS.get(self._kind, Remote)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_bilora") or name in ("__wrapped__", "__signature__"):
            raise AttributeError(name)
        return self._program.perform("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.perform("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._program.perform("delattr", self, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._program.perform("await", self)
        yield  # makes this a generator, as `await` wants

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise Undecidable("the test copies an object of the program")

    def __repr__(self) -> str:
        return f"<an object of type {self._kind}>"


def _forward(operation: str, *, decides: bool) -> Callable[..., Any]:
    def method(self: Remote, *arguments: Any, **keywords: Any) -> Any:
        if decides:
            self._program.trusted = False
        return self._program.perform(operation, self, *arguments, **keywords)

    return method


def _reflected(operation: str) -> Callable[..., Any]:
    def method(self: Remote, other: Any) -> Any:
        self._program.trusted = False
        return self._program.perform(operation, other, self)

    return method


def _equal(operation: str, unequal: bool) -> Callable[..., Any]:
    """Compare two objects there; to plain data none of them is equal, whatever its class says."""
    method = _forward(operation, decides=True)
    return lambda self, other: method(self, other) if isinstance(other, Remote) else unequal


_BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "divmod"),
    *("and", "or", "xor", "lshift", "rshift"),
)
_DECIDING = (*_BINARY, "lt", "le", "gt", "ge", "contains")
"""Here an object meets a value that the test may expect."""
_TELLING = (
    *("call", "getitem", "setitem", "delitem", "iter", "next", "reversed", "len", "bool", "str", "hash", "int"),
    *("float", "complex", "bytes", "index", "enter", "exit", "neg", "pos", "abs", "invert", "format", "round"),
)
"""These give away nothing, and what they give is data."""
_METHODS: dict[str, Callable[..., Any]] = {
    **{name: _forward(name, decides=True) for name in _DECIDING},
    **{name: _forward(name, decides=False) for name in _TELLING},
    **{f"r{name}": _reflected(name) for name in _BINARY},
    "eq": _equal("eq", False),
    "ne": _equal("ne", True),
    "instancecheck": _reflected("isinstance"),
    "subclasscheck": _reflected("issubclass"),
}
for _name, _method in _METHODS.items():
    setattr(Remote, f"__{_name}__", _method)


def _extension(kind: type) -> type:
    """Make the class of values that extend `kind` there: compared as `kind` here, with their own attributes there."""

    def attribute(self: Any, name: str) -> Any:
        if name == "_remote":
            raise AttributeError(name)
        return getattr(self._remote, name)

    return type(kind.__name__, (kind,), {"__getattr__": attribute, "__hash__": kind.__hash__})


_EXTENSIONS: dict[type, type] = {
    kind: _extension(kind) for kind in (int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}
