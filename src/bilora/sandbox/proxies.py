"""Proxies of the program's objects, for tests. Operations run in the program's process and return data."""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from bilora.sandbox.operations import BINARY, CONTAINER_TYPES, DECISIVE, INPLACE, NEUTRAL, REMOTE_OPERATIONS
from bilora.sandbox.values import NotSerializable, encode_value

if TYPE_CHECKING:
    from typing import TypeGuard


class Undecidable(BaseException):
    """The test cannot run outside the program's process. Not an Exception, so that tests do not catch it."""


class OperationExecutor(Protocol):
    """Performs operations on the program's objects; `trusted` is False once an operation could decide an assert."""

    trusted: bool

    def perform(self, operation: str, /, *arguments: object, **keywords: object) -> Any:
        """Perform an operation in the program's process and return its value."""
        ...


_TYPES: tuple[type, ...] = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.GeneratorType),
    *(types.CoroutineType, types.AsyncGeneratorType, map, filter, zip, enumerate, reversed),
    *(type(iter([])), type(iter(())), type(iter("")), type(iter(b"")), type(iter(set())), type(iter({}))),
    *(type(iter(range(1))), type({}.values()), type(re.compile("")), slice, property, classmethod, staticmethod),
)
_COMBINING = ("add", "mul", "matmul", "pow", "and", "or", "lshift", "rshift")
_KINDS: dict[str, type] = {kind.__name__: kind for kind in _TYPES}
_BASES = {base.__name__: base for base in CONTAINER_TYPES}


class Remote:
    """Proxy of one object of the program, by number; `base` names the mutable builtin class that its class extends.

    The attributes are declared in `__init__`, because tests must not find `__annotations__` on the class.
    """

    __slots__ = ("_bilora_base", "_bilora_kind", "_bilora_number", "_bilora_program")

    def __init__(self, program: OperationExecutor, number: int, kind: str, base: str) -> None:
        self._bilora_base: str
        self._bilora_kind: str
        self._bilora_number: int
        self._bilora_program: OperationExecutor
        for name, value in zip(Remote.__slots__, (base, kind, number, program), strict=True):
            object.__setattr__(self, name, value)

    def __mro_entries__(self, bases: tuple[object, ...]) -> NoReturn:
        raise Undecidable("a class of the test extends one of the program")

    @property  # type: ignore[misc]  # as in unittest.mock: `isinstance` reads it
    def __class__(self) -> type:
        """The Python type of the name that the object's class claims, if it is not a type of plain data."""
        return _BASES.get(self._bilora_base) or _KINDS.get(self._bilora_kind) or type(self)

    def __getattr__(self, name: str) -> object:
        if name.startswith("_bilora"):
            raise AttributeError(name)
        return self._bilora_program.perform("getattr", self, name)

    def __setattr__(self, name: str, value: object) -> None:
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

    def __instancecheck__(self, other: object) -> object:
        return _perform_untrusted(self, "isinstance", other, self)

    def __subclasscheck__(self, other: object) -> object:
        return _perform_untrusted(self, "issubclass", other, self)

    def _bilora_content(self) -> object:
        return self._bilora_program.perform("content", self)


def _equal(operation: str, left: Remote, right: object) -> object:
    """Compare two objects of the program in its process.

    An object equals plain data only if its class extends a builtin; then its builtin content is compared here.
    """
    if isinstance(right, type) and issubclass(right, Remote):
        raise Undecidable("the test compares classes of the program")
    if left._bilora_base:
        content = _content_if_remote(right)
        return REMOTE_OPERATIONS[operation](left._bilora_content(), content)
    if is_remote(right):
        return _perform_untrusted(left, operation, left, right)
    try:
        encode_value(right)
    except NotSerializable:
        raise Undecidable(
            f"the test compares an object of type {type(right).__name__} with one of the program"
        ) from None
    return operation == "ne"


def _content_if_remote(value: Any) -> object:
    return value._bilora_content() if getattr(value, "_bilora_base", "") else value


def _perform_untrusted(remote: Remote, operation: str, *arguments: object) -> object:
    remote._bilora_program.trusted = False
    return remote._bilora_program.perform(operation, *arguments)


def is_remote(value: object) -> TypeGuard[Remote]:
    """Return whether a value is a proxy, whatever its `__class__` claims."""
    return type(value) in _PROXY_CLASSES


def proxy_of(value: object) -> Remote | None:
    """Return the proxy that a value is or contains, else None."""
    if is_remote(value):
        return value
    if type(value) not in _EXTENDED_CLASSES:
        return None
    proxy: Remote | None = vars(value).get("_bilora_remote")
    return proxy


def _neutral_method(name: str) -> Callable[..., object]:
    return lambda self, *arguments: self._bilora_program.perform(name, self, *arguments)


def _call(self: Remote, /, *arguments: object, **keywords: object) -> object:
    return self._bilora_program.perform("call", self, *arguments, **keywords)


def _asynchronous(name: str) -> Callable[..., object]:
    async def wait(self: Remote, *arguments: object) -> object:
        return self._bilora_program.perform(name, self, *arguments)

    return wait


def _exit(self: Remote, kind: object, error: object, trace: object) -> object:
    """Leave a `with` block. If that suppresses an AssertionError, the program has decided an assert."""
    suppressed = self._bilora_program.perform("exit", self, kind, error, None)
    if suppressed and isinstance(error, AssertionError):
        self._bilora_program.trusted = False
    return suppressed


def _await(self: Remote) -> Generator[object, None, object]:
    return self._bilora_program.perform("await", self)
    yield  # makes this a generator, as `await` requires


def _decisive_method(name: str, reflected: bool = False) -> Callable[..., object]:
    """Return a special method that can decide an assert.

    It has not decided one if its result is another object of the program, as in `v + w`. If the other operand is a
    value of the test, that is so only for operations that tests do not use to compare.
    """
    harmless = name.removeprefix("i") in _COMBINING

    def method(self: Remote, other: object) -> object:
        program = self._bilora_program
        value = program.perform(name, *((other, self) if reflected else (self, other)))
        if proxy_of(value) is None or not (harmless or proxy_of(other) is not None):
            program.trusted = False
        return value

    return method


def _content_method(name: str, reflected: bool = False) -> Callable[..., object]:
    """Return a special method that applies the builtin class's method to the object's content, in this process."""

    def method(self: Remote, other: object) -> object:
        if name in INPLACE:
            self._bilora_program.perform(name, self, other)
            return self
        content = self._bilora_content()
        other = _content_if_remote(other)
        return REMOTE_OPERATIONS[name](*((other, content) if reflected else (content, other)))

    return method


_EXCEPTIONAL: dict[str, Callable[..., object]] = {"call": _call, "await": _await, "exit": _exit}


def _proxy_methods(name: str) -> dict[str, Callable[..., object]]:
    """Return a proxy's methods for one special method of the program's class."""
    if name in _EXCEPTIONAL:
        return {f"__{name}__": _EXCEPTIONAL[name]}
    if name in ("anext", "aenter", "aexit"):
        return {f"__{name}__": _asynchronous(name)}
    if name not in DECISIVE:
        return {f"__{name}__": _neutral_method(name)}
    methods = {f"__{name}__": _decisive_method(name)}
    if name in BINARY:
        methods[f"__r{name}__"] = _decisive_method(name, reflected=True)
    return methods


def _known_special_methods(special: list[str]) -> tuple[str, ...]:
    return tuple(name for name in (*NEUTRAL, *DECISIVE) if name in special)


def _attribute(name: str, self: Remote) -> object:
    return self._bilora_program.perform("getattr", self, name)


_PROXY_CLASSES: set[type] = set()
_EXTENDED_CLASSES: set[type] = set()


@functools.cache
def _proxy_class(kind: str, base: str, special: tuple[str, ...]) -> type[Remote]:
    """Return the proxy class for objects with these special methods."""
    methods: dict[str, object] = {"__slots__": ()}
    if base:
        methods |= {f"__{name}__": _neutral_method(name) for name in NEUTRAL if hasattr(_BASES[base], f"__{name}__")}
        methods |= {f"__{name}__": _content_method(name) for name in DECISIVE if hasattr(_BASES[base], f"__{name}__")}
        methods |= {f"__r{name}__": _content_method(name, True) for name in BINARY if f"__{name}__" in methods}
    for name in special:
        if name not in ("repr", "str", "format", "hash"):
            methods |= _proxy_methods(name)
    for name in ("__doc__", "__module__"):
        methods[name] = property(functools.partial(_attribute, name))
    proxy_class = type(kind, (Remote,), methods)
    _PROXY_CLASSES.add(proxy_class)
    return proxy_class


def make_proxy(program: OperationExecutor, number: int, kind: str, special: list[str], base: str) -> Remote:
    """Return the proxy of an object whose class is named `kind` and has these special methods."""
    base = base if base in _BASES else ""
    return _proxy_class(kind, base, _known_special_methods(special))(program, number, kind, base)


_ANSWERED_BY_BUILTIN = ("hash", "lt", "le", "gt", "ge", "contains", "index", "int", "float", "complex", "bool", "bytes")
"""Special methods that use the builtin type, not the program's subclass of it."""


class _Extended(Protocol):
    _bilora_remote: Remote


@functools.cache
def _extended_class(kind: str, base: type, special: tuple[str, ...]) -> Callable[[object], _Extended]:
    """Return a class of values that compare as `base` does and have the attributes of the program's object."""

    def attribute(self: _Extended, name: str) -> object:
        if name == "_bilora_remote":
            raise AttributeError(name)
        return getattr(self._bilora_remote, name)

    def forward(method: Callable[..., object]) -> Callable[..., object]:
        return lambda self, /, *arguments, **keywords: method(self._bilora_remote, *arguments, **keywords)

    methods: dict[str, object] = {"__getattr__": attribute, "__hash__": base.__hash__}
    for name in special:
        if name not in _ANSWERED_BY_BUILTIN:
            methods |= {special_name: forward(method) for special_name, method in _proxy_methods(name).items()}
    extended_class = type(kind, (base,), methods)
    _EXTENDED_CLASSES.add(extended_class)
    return extended_class


def extend_value(program: OperationExecutor, number: int, kind: str, special: list[str], value: object) -> object:
    """Return a value that compares as plain `value` does and has the attributes of the program's object."""
    base: type = type(value)
    if base not in (int, float, complex, str, bytes, tuple, frozenset):
        return value
    extended = _extended_class(kind, base, _known_special_methods(special))(value)
    extended._bilora_remote = make_proxy(program, number, kind, special, "")
    return extended
