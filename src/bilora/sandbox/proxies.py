"""Objects of the program as a test sees them: what is done to them happens there, and what comes of it is data."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Generator
from typing import Any, NoReturn, Protocol

from bilora.sandbox.operations import BASES, BINARY, DECIDING, INPLACE, OPERATIONS, TELLING
from bilora.sandbox.values import Unspeakable, encode


class Undecidable(BaseException):
    """This test cannot run apart from the program; a test does not catch it by accident."""


class Performer(Protocol):
    """Does operations on objects of the program; `trusted` is False once one of them could give a verdict."""

    trusted: bool

    def perform(self, operation: str, /, *arguments: Any, **keywords: Any) -> Any:
        """Do an operation there and return its value."""
        ...


_TYPES: tuple[Any, ...] = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.GeneratorType),
    *(types.CoroutineType, types.AsyncGeneratorType, map, filter, zip, enumerate, reversed),
    *(type(iter([])), type(iter(())), type(iter("")), type(iter(b"")), type(iter(set())), type(iter({}))),
    *(type(iter(range(1))), type({}.values()), type(re.compile("")), slice, property, classmethod, staticmethod),
)
_COMBINING = ("add", "mul", "matmul", "pow", "and", "or", "lshift", "rshift")
_KINDS: dict[str, type] = {kind.__name__: kind for kind in _TYPES}
_BASES = {base.__name__: base for base in BASES}


class Remote:
    """One object of the program, by number; of a class that extends a builtin one, `base` is that one's name."""

    __slots__ = ("_bilora_base", "_bilora_kind", "_bilora_number", "_bilora_program")

    def __init__(self, program: Performer, number: int, kind: str, base: str) -> None:
        for name, value in zip(Remote.__slots__, (base, kind, number, program), strict=True):
            object.__setattr__(self, name, value)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise Undecidable("a class of the test extends one of the program")

    @property  # type: ignore[misc]  # as in unittest.mock: `isinstance` asks it
    def __class__(self) -> type:
        """The type that it says it is, where Python has one of that name that is no plain data: for `isinstance`."""
        return _BASES.get(self._bilora_base) or _KINDS.get(self._bilora_kind) or type(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_bilora"):
            raise AttributeError(name)
        return self._bilora_program.perform("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._bilora_program.perform("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._bilora_program.perform("delattr", self, name)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise Undecidable("the test copies an object of the program")

    def __dir__(self) -> list[str]:
        return list(self._bilora_program.perform("dir", self))

    def __repr__(self) -> str:
        return str(self._bilora_program.perform("repr", self))

    def __str__(self) -> str:
        return str(self._bilora_program.perform("str", self))

    def __format__(self, form: str) -> str:
        return str(self._bilora_program.perform("format", self, form))

    def __hash__(self) -> int:
        return int(self._bilora_program.perform("hash", self))

    def __eq__(self, other: object) -> Any:
        return _equal("eq", self, other)

    def __ne__(self, other: object) -> Any:
        return _equal("ne", self, other)

    def __instancecheck__(self, other: Any) -> Any:
        return _decided_there(self, "isinstance", other, self)

    def __subclasscheck__(self, other: Any) -> Any:
        return _decided_there(self, "issubclass", other, self)

    def _bilora_content(self) -> Any:
        return self._bilora_program.perform("content", self)


def _equal(operation: str, one: Remote, other: Any) -> Any:
    """Compare two objects there; to plain data one is equal only if it extends a builtin class, by its content."""
    if isinstance(other, type) and issubclass(other, Remote):
        raise Undecidable("the test compares classes of the program")
    if one._bilora_base:
        held = other._bilora_content() if getattr(other, "_bilora_base", "") else other
        return OPERATIONS[operation](one._bilora_content(), held)
    if is_remote(other):
        return _decided_there(one, operation, one, other)
    try:
        encode(other)
    except Unspeakable:
        raise Undecidable(
            f"the test compares an object of type {type(other).__name__} with one of the program"
        ) from None
    return operation == "ne"


def _decided_there(remote: Any, operation: str, *arguments: Any) -> Any:
    remote._bilora_program.trusted = False
    return remote._bilora_program.perform(operation, *arguments)


def is_remote(value: Any) -> bool:
    """Whether a value is one of the program's objects, whatever it says its class is."""
    return type(value) in _MADE


def proxy_of(value: Any) -> Any:
    """Return the proxy that a value is or has, else None."""
    if is_remote(value):
        return value
    return vars(value).get("_bilora_remote") if type(value) in _EXTENDED else None


def _telling(name: str) -> Callable[..., Any]:
    return lambda self, *arguments: self._bilora_program.perform(name, self, *arguments)


def _calling(self: Any, /, *arguments: Any, **keywords: Any) -> Any:
    return self._bilora_program.perform("call", self, *arguments, **keywords)


def _awaiting(name: str) -> Callable[..., Any]:
    async def wait(self: Any, *arguments: Any) -> Any:
        return self._bilora_program.perform(name, self, *arguments)

    return wait


def _exit(self: Any, kind: Any, error: Any, trace: Any) -> Any:
    """Leave a `with` block; if that silences an assert, the program has had a say."""
    silenced = self._bilora_program.perform("exit", self, kind, error, None)
    if silenced and isinstance(error, AssertionError):
        self._bilora_program.trusted = False
    return silenced


def _await(self: Any) -> Generator[Any, None, Any]:
    return self._bilora_program.perform("await", self)
    yield  # makes this a generator, as `await` wants


def _deciding(name: str, reflected: bool = False) -> Callable[..., Any]:
    """Do there what could give a verdict. What makes another object of the program, as `v + w` does, has given none.

    Where a value of the test takes part, only operations that no test compares by make an object without a verdict.
    """
    harmless = name.removeprefix("i") in _COMBINING

    def method(self: Any, other: Any) -> Any:
        program = self._bilora_program
        value = program.perform(name, *((other, self) if reflected else (self, other)))
        if proxy_of(value) is None or not (harmless or proxy_of(other) is not None):
            program.trusted = False
        return value

    return method


def _of_content(name: str, reflected: bool = False) -> Callable[..., Any]:
    """Do here what the builtin class that an object extends does with its content."""

    def method(self: Any, other: Any) -> Any:
        if name in INPLACE:
            self._bilora_program.perform(name, self, other)
            return self
        held = self._bilora_content()
        other = other._bilora_content() if getattr(other, "_bilora_base", "") else other
        return OPERATIONS[name](*((other, held) if reflected else (held, other)))

    return method


_OTHERS: dict[str, Callable[..., Any]] = {"call": _calling, "await": _await, "exit": _exit}


def _special(name: str) -> dict[str, Callable[..., Any]]:
    """Return the methods that stand for one of the program's special methods."""
    if name in _OTHERS:
        return {f"__{name}__": _OTHERS[name]}
    if name in ("anext", "aenter", "aexit"):
        return {f"__{name}__": _awaiting(name)}
    if name not in DECIDING:
        return {f"__{name}__": _telling(name)}
    found = {f"__{name}__": _deciding(name)}
    if name in BINARY:
        found[f"__r{name}__"] = _deciding(name, reflected=True)
    return found


def _attribute(name: str, self: Any) -> Any:
    return self._bilora_program.perform("getattr", self, name)


@functools.cache
def _made(kind: str, base: str, special: tuple[str, ...]) -> type[Remote]:
    """Make the class of proxies for objects that have these special methods."""
    methods: dict[str, Any] = {"__slots__": ()}
    if base:
        methods |= {f"__{name}__": _telling(name) for name in TELLING if hasattr(_BASES[base], f"__{name}__")}
        methods |= {f"__{name}__": _of_content(name) for name in DECIDING if hasattr(_BASES[base], f"__{name}__")}
        methods |= {f"__r{name}__": _of_content(name, True) for name in BINARY if f"__{name}__" in methods}
    for name in special:
        if name not in ("repr", "str", "format", "hash"):
            methods |= _special(name)
    for name in ("__doc__", "__module__"):
        methods[name] = property(functools.partial(_attribute, name))
    made = type(kind, (Remote,), methods)
    _MADE.add(made)
    return made


_MADE: set[type] = set()
_EXTENDED: set[type] = set()


def remote(program: Performer, number: int, kind: str, special: list[str], base: str) -> Any:
    """Make the proxy of an object; a coroutine's is a coroutine, for event loops take nothing else."""
    known = tuple(name for name in (*TELLING, *DECIDING) if name in special)
    made = _made(kind, base if base in _BASES else "", known)
    return made(program, number, kind, base if base in _BASES else "")


_HERE = ("hash", "lt", "le", "gt", "ge", "contains", "index", "int", "float", "complex", "bool", "bytes")
"""Special methods of a class that extends plain data which have no say: the plain data has."""


@functools.cache
def _extension(kind: str, base: type, special: tuple[str, ...]) -> type:
    """Make a class of values that extend `base` there: compared as `base` here, with their own attributes there."""

    def attribute(self: Any, name: str) -> Any:
        if name == "_bilora_remote":
            raise AttributeError(name)
        return getattr(self._bilora_remote, name)

    def forward(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, /, *arguments, **keywords: method(self._bilora_remote, *arguments, **keywords)

    methods: dict[str, Any] = {"__getattr__": attribute, "__hash__": base.__hash__}
    for name in special:
        if name not in _HERE:
            methods |= {one: forward(method) for one, method in _special(name).items()}
    made = type(kind, (base,), methods)
    _EXTENDED.add(made)
    return made


def extended(program: Performer, number: int, kind: str, special: list[str], value: Any) -> Any:
    """Make a value whose class extends that of plain `value` in the program."""
    if type(value) not in (int, float, complex, str, bytes, tuple, frozenset):
        return value
    known = tuple(name for name in (*TELLING, *DECIDING) if name in special)
    base: Any = type(value)
    made = _extension(kind, base, known)(value)
    made._bilora_remote = remote(program, number, kind, special, "")
    return made
