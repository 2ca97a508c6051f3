"""The program as a test sees it: its functions and objects live in another process and are known by number here.

Only data comes back from there. Operations in which the program could decide (comparing one of its objects with what
the test expects) are noted, so that such an assert is distinguished from one that was decided here.
"""

from __future__ import annotations

import asyncio
import builtins
import functools
import inspect
import operator
import sys
import types
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from bilora.sandbox.objects import BUILTIN_NAMES, MUTABLE, replace
from bilora.sandbox.proxies import Undecidable, extend_value, is_remote, make_proxy, proxy_of
from bilora.sandbox.values import NotSerializable, Readers, decode_value, encode_value

if TYPE_CHECKING:
    from bilora.sandbox.messages import CandidateReply, ClassFields, Json

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
_LAST_REFERENCES = 3
"""References to a lent container that the test has let go: the table's, a variable's and a call's."""

_TEST_PACKAGES = ("unittest", "bilora", "doctest")
"""Packages whose exceptions mean more to a test runner than a failure: the program can raise none of them."""


class RemoteProgram:
    """The program, in its own process.

    `operations` counts the operations that it has performed. `trusted` is False once one of its objects has met a
    value of the test in an operation that could decide an assert.
    """

    def __init__(self, exchange: Callable[[Mapping[str, object]], CandidateReply]) -> None:
        """Take a function that sends one message and returns the reply; of that, only the id has been checked."""
        self._exchange = exchange
        self._callbacks: list[Callable[..., object]] = []
        self._errors: list[BaseException] = []
        self._classes: dict[int, type[BaseException]] = {}
        self._coroutines: dict[int, tuple[object, int]] = {}
        self._lent: dict[int, tuple[object, Json]] = {}  # containers of the program, and how they were last sent
        self._proxies: dict[int, object] = {}
        self._given: dict[int, Mapping[int | str, object]] = {}  # by operation: arguments that may change in place
        self._stdout = sys.stdout
        self.operations = 0
        self.trusted = True
        self._readers: Readers = {
            "ref": lambda parts: self._object(*parts),
            "extends": lambda parts: extend_value(self, parts[0], parts[1], parts[2], self.read(parts[3])),
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
            "exception": lambda parts: self._error(*parts),
            "test's": lambda number: self._errors[number],
        }

    def bind(self, names: list[str]) -> tuple[dict[str, object], list[str]]:
        """Return what the program has under each name, and the names that have to be looked up at every use."""
        bound: dict[str, object] = {}
        fresh = []
        descriptions: Any = self._ask({"names": names})["value"]
        for name, description in zip(names, descriptions, strict=True):
            if description is None:
                continue
            kind, payload = description
            if kind == "plain":
                bound[name] = self._lookup(name)
                fresh.append(name)
            else:
                bound[name] = self._class(*payload) if kind == "exception" else self.read(payload)
        return bound, fresh

    def perform(self, operation: str, /, *arguments: object, **keywords: object) -> object:
        """Perform an operation in the program and return its value.

        Arguments that the program changed in place, in this or an earlier operation, are changed here too.
        """
        self.operations += 1
        number = self.operations
        question = {
            "operation": operation,
            "arguments": [self.write(argument) for argument in arguments],
            "keywords": {key: self.write(argument) for key, argument in keywords.items()},
            "number": number,
            "updates": self._updates(),
            "printing": sys.stdout is not self._stdout,
        }
        given: list[tuple[int | str, object]] = [*enumerate(arguments), *keywords.items()]
        mutable = {key: value for key, value in given if isinstance(value, MUTABLE) and not is_remote(value)}
        if mutable:
            self._given[number] = mutable
        reply = self._ask(question)
        for earlier, key, changed in reply.get("changed", ()):
            replace(self._given[earlier][key], self.read(changed))
        if reply.get("printed"):
            print(reply["printed"], end="")  # noqa: T201 - the test captures standard output
        if "raised" in reply:
            self._raise(reply["raised"], operation)
        value = self.read(reply["value"])
        if "lent" in reply:
            self._lent[reply["lent"]] = value, self.write(value)
        return value

    def _updates(self) -> list[tuple[int, Json]]:
        """Return the changes of the test to containers that the program lent it, and forget those no longer used."""
        updates = []
        for number, (value, before) in list(self._lent.items()):
            after = self.write(value)
            if after != before:
                updates.append((number, after))
                self._lent[number] = value, after
            if sys.getrefcount(value) <= _LAST_REFERENCES:
                del self._lent[number]
        return updates

    def write(self, value: object) -> Json:
        """Turn a value of the test into tagged data."""
        try:
            return encode_value(value, self._write_object)
        except NotSerializable as error:
            raise Undecidable(f"the program cannot be given {error}") from None

    def read(self, tagged: object) -> Any:
        """Turn tagged data of the program into a value."""
        return decode_value(tagged, self._readers)

    def _ask(self, question: Mapping[str, object]) -> CandidateReply:
        """Send a question, and serve the calls of the test's own functions that come before the reply."""
        reply = self._exchange(question)
        while "callback" in reply:
            reply = self._exchange(self._called(*reply["callback"]))
        if "value" not in reply and "raised" not in reply:
            raise NotSerializable(str(reply.get("failure"))[:300])
        return reply

    def _called(self, number: int, positional: list[Json], keywords: dict[str, Json]) -> dict[str, object]:
        """Call a function of the test for the program; return a `CallbackResult` without its id."""
        arguments = [self.read(argument) for argument in positional]
        before = [self.write(argument) for argument in arguments]
        answer: dict[str, object]
        try:
            function = self._callbacks[number]
            value = function(*arguments, **{key: self.read(argument) for key, argument in keywords.items()})
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
            answer = {"returned": self.write(value)}
        except Exception as error:
            self.trusted &= not isinstance(error, AssertionError)  # the program may catch it
            answer = {"raising": self._error_of_the_test(error)}
        after = [self.write(argument) for argument in arguments]
        changed = [[index, new] for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        return {**answer, "changed": changed}

    def _raise(self, tagged: Json, operation: str) -> NoReturn:
        error = self.read(tagged)
        if not isinstance(error, BaseException):
            raise NotSerializable("raised what is no exception")
        if isinstance(error, StopIteration) and operation not in ("next", "anext"):
            self.trusted = False  # it could end a loop of the test
        raise error from error.__cause__

    def _class(self, module: str, name: str, number: int, bases: list[ClassFields]) -> type[BaseException]:
        """Return the class of an exception: the library's, or one that is made here and stands for the program's."""
        exception = _library_class(module, name)
        if exception is None and number in self._classes:
            exception = self._classes[number]
        if exception is None:
            above = tuple(self._class(*base) for base in bases) or (Exception,)
            perform = self.perform
            methods: dict[str, object] = {
                "__getattr__": lambda error, key: _attribute(perform, error, key),
                "__str__": lambda error: error._bilora_text,
                "__new__": lambda kind, *arguments, **keywords: perform("call", kind, *arguments, **keywords),
                "__init__": lambda *_, **__: None,
                "_bilora_class": number,
            }
            exception = self._classes[number] = type(name, above, methods)
        return exception

    def _error(
        self, kind: ClassFields, number: int, text: str, args: Json, attributes: Json, cause: Json
    ) -> BaseException:
        """Rebuild an exception of the program; its class may refuse the arguments that it had."""
        exception = self._class(*kind)
        arguments = self.read(args) if args is not None else [text]
        error: BaseException
        try:
            if "_bilora_class" in vars(exception):
                raise TypeError  # its constructor would call the program
            error = exception(*arguments)
        except Exception:
            try:
                error = BaseException.__new__(exception)
            except TypeError:
                error = Exception(text)
            error.args = tuple(arguments)
        vars(error).update(self.read(attributes) if attributes is not None else {})
        vars(error).update(_bilora_text=text, _bilora_number=number, shown_as=f"{kind[1]}: {text}".removesuffix(": "))
        error.__cause__ = self.read(cause) if cause is not None else None
        return error

    def _object(self, number: int, kind: str, special: list[str], base: str) -> object:
        """Return the proxy of an object; a coroutine's is a coroutine, the only thing that event loops accept."""
        if number in self._proxies:
            return self._proxies[number]
        proxy = make_proxy(self, number, kind, special, base)
        if kind != "coroutine":
            self._proxies[number] = proxy
            return proxy

        async def wait() -> object:
            return await proxy  # type: ignore[misc]  # its class has `__await__`

        coroutine: Coroutine[object, object, object] = wait()
        self._coroutines[id(coroutine)] = coroutine, number
        return coroutine

    def here_or_there(self, function: Callable[..., object]) -> Callable[..., object]:
        """Make a function of the library run in the program's process if its first argument is an object there."""
        return lambda subject, *arguments, **keywords: (
            self.perform(function.__name__, subject, *arguments, **keywords)
            if is_remote(subject)
            else function(subject, *arguments, **keywords)
        )

    def _lookup(self, name: str) -> Callable[[], object]:
        return lambda: self.perform("name", name)

    def _write_object(self, value: object, plain: Json) -> Json:
        proxy = proxy_of(value)
        if proxy is not None:
            return ["ref", proxy._bilora_number]
        if BUILTIN_NAMES.get(id(value)):
            return ["builtin", BUILTIN_NAMES[id(value)]]
        if type(value) is range:
            return ["range", [value.start, value.stop, value.step]]
        if type(value) is slice:
            return ["slice", [self.write(part) for part in (value.start, value.stop, value.step)]]
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

    def _callback(self, function: Callable[..., object]) -> int:
        if function not in self._callbacks:
            self._callbacks.append(function)
        return self._callbacks.index(function)

    def _error_of_the_test(self, error: BaseException) -> Json:
        number: int | None = getattr(error, "_bilora_number", None)
        if number is not None:
            return ["ref", number]
        self._errors.append(error)
        base = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        return ["error", [type(error).__name__, base, self.write(list(error.args)), len(self._errors) - 1]]


def _library_class(module: str, name: str) -> type[BaseException] | None:
    """Return an exception's class that is Python's own, if the program may raise it."""
    if module != "builtins" and (module.partition(".")[0] in _TEST_PACKAGES or module == "__main__"):
        return None
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, type) or not issubclass(found, BaseException):
        return None
    return found if module == "builtins" or issubclass(found, Exception) else None


def _attribute(perform: Callable[..., object], error: BaseException, name: str) -> object:
    number = vars(error).get("_bilora_number")
    if number is None or name.startswith(("_bilora", "__", "shown_as")):
        raise AttributeError(name)
    return perform("attribute", number, name)
