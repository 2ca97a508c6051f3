"""Types of the messages between the sandbox's processes. Only the type checker reads this module.

A message from a candidate's process may violate its declared type: its readers must handle anything.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict, final

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

ClassFields: TypeAlias = "tuple[str, str, int, list[ClassFields]]"
"""An exception's class: its module, name and number, and its bases in the same form."""

Description: TypeAlias = tuple[Literal["plain", "object", "exception"], Json]
"""What a name of the program refers to. Plain data has no payload: its value is looked up at every use."""


class ProgramFields(TypedDict):
    """From the launcher to the referee: the fields of a `records.Program`."""

    code: str
    setup: str
    tests: list[str]


class OutcomeFields(TypedDict):
    """The fields of a `records.Outcome`."""

    status: str
    results: list[bool | None]
    detail: str
    isolation: str
    asserts: int
    outside: int


class TrialReport(TypedDict):
    """From the referee to the launcher; `starved` says whether it reached `wall_s` because it waited for a core."""

    outcome: OutcomeFields
    starved: bool


class LayerReport(TypedDict):
    """From a zygote to the referee and on to the launcher: the fields of a `confinement.Layers`."""

    on: list[str]
    off: dict[str, str]


class ExitReport(TypedDict):
    """From a zygote to the referee: how a forked process exited.

    `by_itself` says whether it had exited before it was killed, `status` is its wait status, and `left_behind`
    counts its child processes that were still running.
    """

    by_itself: bool
    status: int
    cpu_s: float
    left_behind: int


@final
class ExecuteStatements(TypedDict):
    """From the referee to the candidate: run these statements."""

    id: str
    statements: str


@final
class EvaluateExpression(TypedDict):
    """From the referee to the candidate: return the value of this expression."""

    id: str
    expression: str


@final
class DescribeNames(TypedDict):
    """From the tester to the candidate: describe what each name of the program refers to."""

    id: str
    names: list[str]


@final
class PerformOperation(TypedDict):
    """From the tester to the candidate: see `Objects.perform`."""

    id: str
    operation: str
    arguments: list[Json]
    keywords: dict[str, Json]
    number: int
    printing: bool
    updates: list[tuple[int, Json]]


CandidateRequest: TypeAlias = ExecuteStatements | EvaluateExpression | DescribeNames | PerformOperation


@final
class CallbackResult(TypedDict):
    """From the tester to the candidate: what a function of the test `returned`, or the exception that it raised.

    `changed` lists the positional arguments that it changed in place, by index.
    """

    id: str
    returned: NotRequired[Json]
    raising: NotRequired[Json]
    changed: list[tuple[int, Json]]


RequestOrResult: TypeAlias = ExecuteStatements | EvaluateExpression | DescribeNames | PerformOperation | CallbackResult


class CandidateReply(TypedDict, total=False):
    """From the candidate: one of `value`, `raised`, `failure` and `callback`, and the side effects.

    Fields:
        id: id of the last request received.
        value: value of the expression or operation, or one description per name.
        raised: exception of the operation.
        failure: why there is no value.
        callback: number of the test's function to call, its arguments and keywords.
        printed: output of the program.
        changed: arguments changed in place: number of the operation, index or keyword, new content.
        shared: number of the returned container, if the program still refers to it.
    """

    id: str
    value: Json | list[Description | None]
    raised: Json
    failure: str
    callback: tuple[int, list[Json], dict[str, Json]]
    printed: str
    changed: list[tuple[int, int | str, Json]]
    shared: int


class TestReport(TypedDict):
    """From the tester to the referee: a test's result; `inside` says why it must run in the program's process."""

    passed: bool
    detail: str
    inside: str
    counted: int
    outside: int
