"""Run an answer with its question's asserts in the sandbox, while the page stays usable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from bilora.errors import BiloraError
from bilora.records import Outcome, Program


@dataclass(frozen=True)
class AssertResult:
    """The verdict of an answer's asserts, and a sentence about it. "unknown": the asserts decided nothing."""

    verdict: Literal["passes", "fails", "unknown"]
    sentence: str


class AssertRunner:
    """Runs answers in the sandbox on background threads."""

    def __init__(self, run: Callable[[Program], Outcome]) -> None:
        """Set the function that runs one program in the sandbox; it must be thread-safe."""
        self._run = run

    def start(self, code: str, asserts: Sequence[str]) -> Future[AssertResult]:
        """Start a run of an answer's code with its question's asserts."""
        program, result = Program(code=code, tests=tuple(asserts)), Future[AssertResult]()
        # A daemon thread: when the page ends, the process must not wait for the program.
        threading.Thread(target=self._finish, args=(program, result), name="asserts", daemon=True).start()
        return result

    def _finish(self, program: Program, result: Future[AssertResult]) -> None:
        try:
            result.set_result(assert_result(self._run(program)))
        except (BiloraError, OSError) as error:  # this machine cannot confine the program, or failed
            asserts = _count_asserts(program.tests)
            result.set_result(AssertResult("unknown", f"The answer was not run with {asserts}: {error}"))
        except BaseException as error:
            result.set_exception(error)  # otherwise the page would wait forever


def assert_result(outcome: Outcome) -> AssertResult:
    """Return the result of a sandbox run, in words for the user who wrote the asserts."""
    asserts = _count_asserts(outcome.results)
    detail = outcome.detail.strip().rpartition("\n")[2]
    because = f": {detail}" if detail else "."
    match outcome.status:
        case "passed":
            return AssertResult("passes", f"Passes {asserts}.")
        case "passed-in-process":
            return AssertResult("passes", f"Passes {asserts}, but the answer's own process could influence the result.")
        case "timeout":
            return AssertResult("fails", f"Timed out with {asserts}{because}")
        case "missing-module":
            return AssertResult("unknown", f"The answer could not be run with {asserts}{because}")
        case "untested":
            return AssertResult("unknown", f"The answer defines no function that {asserts} would call.")
        case "infrastructure":
            return AssertResult("unknown", f"The sandbox failed, so {asserts} decided nothing{because}")
    passed = sum(result is True for result in outcome.results)
    if passed:
        return AssertResult("fails", f"Passes only {passed} of {asserts}{because}")
    return AssertResult("fails", f"Fails {asserts}{because}")


def _count_asserts(asserts: Sequence[object]) -> str:
    return "your assert" if len(asserts) == 1 else f"your {len(asserts)} asserts"
