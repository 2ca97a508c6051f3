"""Types of the messages between the sandbox's processes. Only the type checker reads this module.

A message from a candidate's process may not have its declared type: readers have to survive anything.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias, TypedDict, final

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

ClassFields: TypeAlias = "tuple[str, str, int, list[ClassFields]]"
"""An exception's class: its module, name and number, and its bases, which are described alike."""

Description: TypeAlias = tuple[Literal["plain", "object", "exception"], Json]
"""What the program has under a name. Plain data is not described: it is looked up whenever it is used."""


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


class Judgement(TypedDict):
    """From the referee to the launcher; `starved` programs ran out of wall time with processor time to spare."""

    outcome: OutcomeFields
    starved: bool


class LayerReport(TypedDict):
    """From a zygote to the referee and on to the launcher: the fields of a `confinement.Layers`."""

    on: list[str]
    off: dict[str, str]


class Ending(TypedDict):
    """From a zygote to the referee: how a forked process ended.

    `gone` says whether it had ended by itself, `status` is its wait status, and `left_behind` counts the processes
    that it started and that were still running.
    """

    gone: bool
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
    """From the tester to the candidate: describe what the program has under each name."""

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


Question: TypeAlias = ExecuteStatements | EvaluateExpression | DescribeNames | PerformOperation


@final
class CallbackResult(TypedDict):
    """From the tester to the candidate: what a function of the test did, by `returned` or `raising`.

    `changed` has the positional arguments that it changed in place, by index.
    """

    id: str
    returned: NotRequired[Json]
    raising: NotRequired[Json]
    changed: list[tuple[int, Json]]


QuestionOrResult: TypeAlias = ExecuteStatements | EvaluateExpression | DescribeNames | PerformOperation | CallbackResult


class CandidateReply(TypedDict, total=False):
    """From the candidate: one of `value`, `raised`, `failure` and `callback`, and what happened besides.

    Fields:
        id: of the last question that was received.
        value: of the expression or the operation, or one description per name.
        failure: why there is no value.
        callback: the number of a function of the test to call, its arguments and keywords.
        printed: what the program printed.
        changed: arguments changed in place: number of the operation, index or keyword, new content.
        lent: number under which the program keeps the container that it returned.
    """

    id: str
    value: Json | list[Description | None]
    raised: Json
    failure: str
    callback: tuple[int, list[Json], dict[str, Json]]
    printed: str
    changed: list[tuple[int, int | str, Json]]
    lent: int


class TestReport(TypedDict):
    """From the tester to the referee: how a test went; `inside` says why it has to run in the program's process."""

    passed: bool
    detail: str
    inside: str
    counted: int
    outside: int
