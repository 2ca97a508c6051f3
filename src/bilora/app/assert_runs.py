"""Run an answer with the asserts of its question, in the sandbox and in the background of the page."""

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
    """What came of an answer's asserts: whether it passes, and that in a sentence. "unknown" says nothing of it."""

    verdict: Literal["passes", "fails", "unknown"]
    sentence: str


class AssertRunner:
    """Starts runs in the sandbox and returns at once; each ends within the sandbox's limits."""

    def __init__(self, run: Callable[[Program], Outcome]) -> None:
        """Take what runs one program in the sandbox; several threads call it."""
        self._run = run

    def start(self, code: str, asserts: Sequence[str]) -> Future[AssertResult]:
        """Run an answer's code with its question's asserts."""
        program, result = Program(code=code, tests=tuple(asserts)), Future[AssertResult]()
        # A daemon, for the process must not wait for a program when the page ends.
        threading.Thread(target=self._finish, args=(program, result), name="asserts", daemon=True).start()
        return result

    def _finish(self, program: Program, result: Future[AssertResult]) -> None:
        try:
            result.set_result(assert_result(self._run(program)))
        except (BiloraError, OSError) as error:  # this machine cannot confine it, or failed
            yours = _yours(program.tests)
            result.set_result(AssertResult("unknown", f"The answer was not run with {yours}: {error}"))
        except BaseException as error:
            result.set_exception(error)  # or the page would wait without end


def assert_result(outcome: Outcome) -> AssertResult:
    """Return what an outcome of the sandbox means to the person who typed the asserts."""
    yours = _yours(outcome.results)
    detail = outcome.detail.strip().rpartition("\n")[2]
    because = f": {detail}" if detail else "."
    match outcome.status:
        case "passed":
            return AssertResult("passes", f"Passes {yours}.")
        case "passed-in-process":
            return AssertResult("passes", f"Passes {yours}, but the answer's own process had a say in that.")
        case "timeout":
            return AssertResult("fails", f"Timed out with {yours}{because}")
        case "missing-module":
            return AssertResult("unknown", f"The answer was not tried with {yours}{because}")
        case "untested":
            return AssertResult("unknown", f"The answer defines nothing that {yours} would call.")
        case "infrastructure":
            return AssertResult("unknown", f"The sandbox failed, so nothing is known of {yours}{because}")
    passed = sum(result is True for result in outcome.results)
    if passed:
        return AssertResult("fails", f"Passes only {passed} of {yours}{because}")
    return AssertResult("fails", f"Fails {yours}{because}")


def _yours(asserts: Sequence[object]) -> str:
    return "your assert" if len(asserts) == 1 else f"your {len(asserts)} asserts"
