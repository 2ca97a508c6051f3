"""The test's side of a program that runs elsewhere: its functions and objects, held by number.

Only data comes back from there. What would let the program decide (comparing one of its objects with what the
test expects) is noticed, so that such an assert is distinguished from one that was decided here.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import inspect
import operator
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from bilora.sandbox.objects import BUILTINS, MUTABLE, replace
from bilora.sandbox.proxies import Undecidable, extended, is_remote, proxy_of, remote
from bilora.sandbox.values import Readers, Unspeakable, decode, encode

_FUNCTIONS = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodDescriptorType, type(len)),
    *(
        functools.partial,
        operator.itemgetter,
        operator.attrgetter,
        operator.methodcaller,
        type(functools.lru_cache(len)),
    ),
)
_FORGOTTEN = 3
"""References to a container that nothing but the table of lent ones, a variable and a call still has."""

_JUDGES = ("unittest", "bilora", "doctest")
"""Packages whose exceptions tell a test runner more than that something failed: the program raises none of them."""


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
        self._errors: list[BaseException] = []
        self._classes: dict[int, type[BaseException]] = {}
        self._coroutines: dict[int, tuple[Any, int]] = {}
        self._lent: dict[int, tuple[Any, Any]] = {}
        self._proxies: dict[int, Any] = {}
        self._given: dict[int, dict[Any, Any]] = {}
        self._stdout = sys.stdout
        self.operations = 0
        self.trusted = True
        self._readers: Readers = {
            "ref": lambda parts: self._remote(*parts),
            "extends": lambda parts: extended(self, parts[0], parts[1], parts[2], self.read(parts[3])),
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
            "exception": lambda parts: self._error(*parts),
            "test's": lambda number: self._errors[number],
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
            else:
                found[name] = self._class(*payload) if kind == "exception" else self.read(payload)
        return found, fresh

    def perform(self, operation: str, /, *arguments: Any, **keywords: Any) -> Any:
        """Do an operation there and return its value; what it changed in place of the test's is changed here."""
        self.operations += 1
        number = self.operations
        question = {
            "operation": operation,
            "arguments": [self.write(one) for one in arguments],
            "keywords": {key: self.write(one) for key, one in keywords.items()},
            "number": number,
            "updates": self._updates(),
            "printing": sys.stdout is not self._stdout,
        }
        given: dict[Any, Any] = {**dict(enumerate(arguments)), **keywords}
        mutable = {key: value for key, value in given.items() if isinstance(value, MUTABLE) and not is_remote(value)}
        if mutable:
            self._given[number] = mutable
        reply = self._ask(question)
        for earlier, key, changed in reply.get("changed", ()):
            replace(self._given[earlier][key], self.read(changed))
        if reply.get("printed"):
            print(reply["printed"], end="")  # noqa: T201 - where the test captures what the program prints
        if "raised" in reply:
            self._raise(reply["raised"], operation)
        value = self.read(reply["value"])
        if "lent" in reply:
            self._lent[reply["lent"]] = value, self.write(value)
        return value

    def _updates(self) -> list[Any]:
        """Return what the test changed of containers that the program lent it; those that it let go are forgotten."""
        found = []
        for number, (value, before) in list(self._lent.items()):
            after = self.write(value)
            if after != before:
                found.append([number, after])
                self._lent[number] = value, after
            if sys.getrefcount(value) <= _FORGOTTEN:
                del self._lent[number]
        return found

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
            reply = self._exchange(self._called(*reply["callback"]))
        if "value" not in reply and "raised" not in reply:
            raise Unspeakable(str(reply.get("failure"))[:300])
        return reply

    def _called(self, number: int, positional: list[Any], keywords: dict[str, Any]) -> dict[str, Any]:
        """Call a function of the test for the program; say what it returned, raised and changed in place."""
        arguments = [self.read(one) for one in positional]
        before = [self.write(one) for one in arguments]
        try:
            function = self._callbacks[number]
            value = function(*arguments, **{key: self.read(one) for key, one in keywords.items()})
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
            answer = {"returned": self.write(value)}
        except Exception as error:
            self.trusted &= not isinstance(error, AssertionError)  # the program may catch it
            answer = {"raising": self._error_of_the_test(error)}
        after = [self.write(one) for one in arguments]
        changed = [[index, new] for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        return {**answer, "changed": changed}

    def _raise(self, tagged: Any, operation: str) -> NoReturn:
        error = self.read(tagged)
        if not isinstance(error, BaseException):
            raise Unspeakable("raised what is no exception")
        if isinstance(error, StopIteration) and operation not in ("next", "anext"):
            self.trusted = False  # it could end a loop of the test
        raise error from error.__cause__

    def _class(self, module: str, name: str, number: int, bases: list[Any]) -> type[BaseException]:
        """Return the class of an exception: a module's own, or one made here that stands for the program's."""
        found = _library(module, name)
        if found is None and number in self._classes:
            found = self._classes[number]
        if found is None:
            above = tuple(self._class(*base) for base in bases) or (Exception,)
            perform = self.perform
            methods = {
                "__getattr__": lambda error, key: _attribute(perform, error, key),
                "__str__": lambda error: error._bilora_text,
                "__new__": lambda kind, *arguments, **keywords: perform("call", kind, *arguments, **keywords),
                "__init__": lambda *_, **__: None,
                "_bilora_class": number,
            }
            found = self._classes[number] = type(name, above, methods)
        return found

    def _error(self, kind: list[Any], number: int, text: str, args: Any, attributes: Any, cause: Any) -> BaseException:
        found = self._class(*kind)
        arguments = self.read(args) if args is not None else [text]
        error: BaseException
        try:
            if "_bilora_class" in vars(found):
                raise TypeError  # its constructor asks the program
            error = found(*arguments)
        except Exception:
            try:
                error = BaseException.__new__(found)
            except TypeError:
                error = Exception(text)
            error.args = tuple(arguments)
        vars(error).update(self.read(attributes) if attributes is not None else {})
        vars(error).update(_bilora_text=text, _bilora_number=number, shown_as=f"{kind[1]}: {text}".removesuffix(": "))
        error.__cause__ = self.read(cause) if cause is not None else None
        return error

    def _remote(self, number: int, kind: str, special: list[str], base: str) -> Any:
        if number in self._proxies:
            return self._proxies[number]
        made = remote(self, number, kind, special, base)
        if kind != "coroutine":
            self._proxies[number] = made
            return made

        async def wait() -> Any:
            return await made

        coroutine = wait()
        self._coroutines[id(coroutine)] = coroutine, number
        return coroutine

    def here_or_there(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function of the library that does its work where its first argument is."""
        return lambda one, *arguments, **keywords: (
            self.perform(function.__name__, one, *arguments, **keywords)
            if is_remote(one)
            else function(one, *arguments, **keywords)
        )

    def _lookup(self, name: str) -> Callable[[], Any]:
        return lambda: self.perform("name", name)

    def _written(self, value: Any, plain: Any) -> Any:
        proxy = proxy_of(value)
        if proxy is not None:
            return ["ref", proxy._bilora_number]
        if BUILTINS.get(id(value)):
            return ["builtin", BUILTINS[id(value)]]
        if type(value) is range:
            return ["range", [value.start, value.stop, value.step]]
        if type(value) is slice:
            return ["slice", [self.write(one) for one in (value.start, value.stop, value.step)]]
        if isinstance(value, type) and "_bilora_class" in vars(value):
            return ["ref", vars(value)["_bilora_class"]]
        if id(value) in self._coroutines:
            return ["ref", self._coroutines[id(value)][1]]
        if isinstance(value, BaseException):
            return self._error_of_the_test(value)
        if isinstance(value, types.TracebackType):
            return None
        if plain is not None and type(value).__module__ != "__main__":
            return plain
        if isinstance(value, Iterator) and not hasattr(value, "read"):
            return ["iterator", self._callback(value.__next__)]
        if isinstance(value, _FUNCTIONS):
            name, doc = getattr(value, "__name__", "call"), getattr(value, "__doc__", None)
            return ["callback", [self._callback(value), name, doc, inspect.iscoroutinefunction(value)]]
        raise Undecidable(f"the program cannot be given an object of type {type(value).__name__}")

    def _callback(self, function: Callable[..., Any]) -> int:
        if function not in self._callbacks:
            self._callbacks.append(function)
        return self._callbacks.index(function)

    def _error_of_the_test(self, error: BaseException) -> Any:
        number = getattr(error, "_bilora_number", None)
        if number is not None:
            return ["ref", number]
        self._errors.append(error)
        base = next(one.__name__ for one in type(error).__mro__ if one.__module__ == "builtins")
        return ["error", [type(error).__name__, base, self.write(list(error.args)), len(self._errors) - 1]]


def _library(module: str, name: str) -> type[BaseException] | None:
    """Return a class of exceptions of Python's own."""
    if module != "builtins" and (module.partition(".")[0] in _JUDGES or module == "__main__"):
        return None
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, type) or not issubclass(found, BaseException):
        return None
    return found if module == "builtins" or issubclass(found, Exception) else None


def _attribute(perform: Callable[..., Any], error: Any, name: str) -> Any:
    number = vars(error).get("_bilora_number")
    if number is None or name.startswith(("_bilora", "__", "shown_as")):
        raise AttributeError(name)
    return perform("attribute", number, name)
