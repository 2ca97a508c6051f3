"""The tester's side of the program, whose functions and objects are in another process and have numbers here.

The program's process returns only data. An operation by which the program could decide an assert, such as the
comparison of its object with the expected value, is recorded.
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

from bilora.sandbox.objects import BUILTIN_NAMES, MUTABLE, replace_content
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
"""References to a shared container that the test no longer uses: the table's, a variable's and a call's."""

_TEST_PACKAGES = ("unittest", "bilora", "doctest")
"""Packages whose exceptions the program cannot raise: to a test runner they mean more than a failure."""


class RemoteProgram:
    """The program, which runs in another process.

    `operations` counts the operations performed. `trusted` is False once an operation on one of its objects and a
    value of the test could decide an assert.
    """

    def __init__(self, exchange: Callable[[Mapping[str, object]], CandidateReply]) -> None:
        """Take a function that sends one message and returns the reply, of which it checks only the id."""
        self._exchange = exchange
        self._callbacks: list[Callable[..., object]] = []
        self._errors: list[BaseException] = []
        self._classes: dict[int, type[BaseException]] = {}
        self._coroutines: dict[int, tuple[object, int]] = {}
        self._shared: dict[int, tuple[object, Json]] = {}  # containers, content last sent
        self._proxies: dict[int, object] = {}
        self._mutable_arguments: dict[int, Mapping[int | str, object]] = {}  # by number of the operation
        self._stdout = sys.stdout
        self.operations = 0
        self.trusted = True
        self._readers: Readers = {
            "ref": lambda parts: self._proxy(*parts),
            "extends": lambda parts: extend_value(self, parts[0], parts[1], parts[2], self.read(parts[3])),
            "builtin": lambda name: getattr(builtins, name),
            "range": lambda parts: range(*parts),
            "exception": lambda parts: self._program_exception(*parts),
            "test's": lambda number: self._errors[number],
        }

    def bind(self, names: list[str]) -> tuple[dict[str, object], list[str]]:
        """Return the values of the program's names, and the names of plain data, looked up at every use."""
        bound: dict[str, object] = {}
        dynamic_names = []
        descriptions: Any = self._request({"names": names})["value"]
        for name, description in zip(names, descriptions, strict=True):
            if description is None:
                continue
            kind, payload = description
            if kind == "plain":
                bound[name] = self._lookup(name)
                dynamic_names.append(name)
            else:
                bound[name] = self._exception_class(*payload) if kind == "exception" else self.read(payload)
        return bound, dynamic_names

    def perform(self, operation: str, /, *arguments: object, **keywords: object) -> object:
        """Perform an operation in the program's process and return its value.

        Arguments of this or an earlier operation that the program changed in place are changed here too.
        """
        self.operations += 1
        number = self.operations
        request = {
            "operation": operation,
            "arguments": [self.write(argument) for argument in arguments],
            "keywords": {key: self.write(argument) for key, argument in keywords.items()},
            "number": number,
            "updates": self._updates(),
            "printing": sys.stdout is not self._stdout,
        }
        named_arguments: list[tuple[int | str, object]] = [*enumerate(arguments), *keywords.items()]
        mutable = {key: value for key, value in named_arguments if isinstance(value, MUTABLE) and not is_remote(value)}
        if mutable:
            self._mutable_arguments[number] = mutable
        reply = self._request(request)
        for earlier, key, changed in reply.get("changed", ()):
            replace_content(self._mutable_arguments[earlier][key], self.read(changed))
        if reply.get("printed"):
            print(reply["printed"], end="")  # noqa: T201 - the test captures standard output
        if "raised" in reply:
            self._raise_from_program(reply["raised"], operation)
        value = self.read(reply["value"])
        if "shared" in reply:
            self._shared[reply["shared"]] = value, self.write(value)
        return value

    def _updates(self) -> list[tuple[int, Json]]:
        """Return the test's changes to shared containers, and forget the containers that it no longer uses."""
        updates = []
        for number, (value, before) in list(self._shared.items()):
            after = self.write(value)
            if after != before:
                updates.append((number, after))
                self._shared[number] = value, after
            if sys.getrefcount(value) <= _LAST_REFERENCES:
                del self._shared[number]
        return updates

    def write(self, value: object) -> Json:
        """Encode a value of the test as tagged data."""
        try:
            return encode_value(value, self._write_object)
        except NotSerializable as error:
            raise Undecidable(f"the test passes the program {error}") from None

    def read(self, tagged: object) -> Any:
        """Decode tagged data of the program."""
        return decode_value(tagged, self._readers)

    def _request(self, request: Mapping[str, object]) -> CandidateReply:
        """Send a request, run the callbacks that precede the reply, and return the reply."""
        reply = self._exchange(request)
        while "callback" in reply:
            reply = self._exchange(self._run_callback(*reply["callback"]))
        if "value" not in reply and "raised" not in reply:
            raise NotSerializable(str(reply.get("failure"))[:300])
        return reply

    def _run_callback(self, number: int, positional: list[Json], keywords: dict[str, Json]) -> dict[str, object]:
        """Call a function of the test for the program; return a `CallbackResult` without its id."""
        arguments = [self.read(argument) for argument in positional]
        before = [self.write(argument) for argument in arguments]
        outcome: dict[str, object]
        try:
            function = self._callbacks[number]
            value = function(*arguments, **{key: self.read(argument) for key, argument in keywords.items()})
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
            outcome = {"returned": self.write(value)}
        except Exception as error:
            self.trusted &= not isinstance(error, AssertionError)  # the program may catch it
            outcome = {"raising": self._write_test_exception(error)}
        after = [self.write(argument) for argument in arguments]
        changed = [[index, new] for index, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        return {**outcome, "changed": changed}

    def _raise_from_program(self, tagged: Json, operation: str) -> NoReturn:
        error = self.read(tagged)
        if not isinstance(error, BaseException):
            raise NotSerializable("raised a value that is not an exception")
        if isinstance(error, StopIteration) and operation not in ("next", "anext"):
            self.trusted = False  # it could end a loop in the test
        raise error from error.__cause__

    def _exception_class(self, module: str, name: str, number: int, bases: list[ClassFields]) -> type[BaseException]:
        """Return an exception's class: the library's, or a class made here for a class of the program."""
        exception = _library_class(module, name)
        if exception is None and number in self._classes:
            exception = self._classes[number]
        if exception is None:
            base_classes = tuple(self._exception_class(*base) for base in bases) or (Exception,)
            perform = self.perform
            methods: dict[str, object] = {
                "__getattr__": lambda error, key: _attribute(perform, error, key),
                "__str__": lambda error: error._bilora_text,
                "__new__": lambda kind, *arguments, **keywords: perform("call", kind, *arguments, **keywords),
                "__init__": lambda *_, **__: None,
                "_bilora_class": number,
            }
            exception = self._classes[number] = type(name, base_classes, methods)
        return exception

    def _program_exception(
        self, kind: ClassFields, number: int, text: str, args: Json, attributes: Json, cause: Json
    ) -> BaseException:
        """Return an exception of the program; its class may refuse the original arguments."""
        exception = self._exception_class(*kind)
        arguments = self.read(args) if args is not None else [text]
        error: BaseException
        try:
            if "_bilora_class" in vars(exception):
                raise TypeError  # the constructor would call the program
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

    def _proxy(self, number: int, kind: str, special: list[str], base: str) -> object:
        """Return the proxy of an object; a coroutine's proxy is a coroutine, because event loops accept no other."""
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

    def dispatch(self, function: Callable[..., object]) -> Callable[..., object]:
        """Return a library function that runs in the program's process if its first argument is an object there."""
        return lambda subject, *arguments, **keywords: (
            self.perform(function.__name__, subject, *arguments, **keywords)
            if is_remote(subject)
            else function(subject, *arguments, **keywords)
        )

    def _lookup(self, name: str) -> Callable[[], object]:
        return lambda: self.perform("name", name)

    def _write_object(self, value: object, builtin_value: Json) -> Json:
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
            return self._write_test_exception(value)
        if isinstance(value, types.TracebackType):
            return None
        if builtin_value is not None and type(value).__module__ != "__main__":
            return builtin_value
        if isinstance(value, Iterator) and not hasattr(value, "read"):
            return ["iterator", self._callback(value.__next__)]
        if isinstance(value, _FUNCTIONS):
            name, doc = getattr(value, "__name__", "call"), getattr(value, "__doc__", None)
            return ["callback", [self._callback(value), name, doc, inspect.iscoroutinefunction(value)]]
        raise Undecidable(f"the test passes the program an object of type {type(value).__name__}")

    def _callback(self, function: Callable[..., object]) -> int:
        if function not in self._callbacks:
            self._callbacks.append(function)
        return self._callbacks.index(function)

    def _write_test_exception(self, error: BaseException) -> Json:
        number: int | None = getattr(error, "_bilora_number", None)
        if number is not None:
            return ["ref", number]
        self._errors.append(error)
        base = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
        return ["error", [type(error).__name__, base, self.write(list(error.args)), len(self._errors) - 1]]


def _library_class(module: str, name: str) -> type[BaseException] | None:
    """Return the class of a library exception that the program may raise, else None."""
    if module != "builtins" and (module.partition(".")[0] in _TEST_PACKAGES or module == "__main__"):
        return None
    attribute = getattr(sys.modules.get(module), name, None)
    if not isinstance(attribute, type) or not issubclass(attribute, BaseException):
        return None
    return attribute if module == "builtins" or issubclass(attribute, Exception) else None


def _attribute(perform: Callable[..., object], error: BaseException, name: str) -> object:
    number = vars(error).get("_bilora_number")
    if number is None or name.startswith(("_bilora", "__", "shown_as")):
        raise AttributeError(name)
    return perform("attribute", number, name)
