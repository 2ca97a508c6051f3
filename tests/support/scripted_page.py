"""The page with a fake engine, so that tests of the layout need no model. Streamlit runs this file."""

from __future__ import annotations

import atexit
import time
from collections.abc import Generator

import streamlit as st

from bilora.app.assert_runs import AssertRunner
from bilora.app.conversation import Backend
from bilora.app.page import draw_page
from bilora.params import Generation
from bilora.records import Completion
from bilora.requests import Request
from bilora.sandbox import ProcessSandbox
from bilora.tasks import load_task
from support.fakes import FakeEngine

ENDLESS = "never end"  # a question that contains this gets a program that does not end
CPU_S = 5.0


class ScriptedEngine:
    """Streams a fixed answer that depends on the question and the system."""

    def stream(self, system: str, request: Request) -> Generator[str, None, Completion]:
        question = request.messages[-1].content
        if "```" in question:
            answer = "Return the area of a circle of the given radius."
        elif ENDLESS in question:
            answer = "def sum_even(numbers):\n    while True:\n        pass"
        elif system == "base":
            answer = "def sum_even(numbers):\n    return sum(numbers)"
        else:
            answer = "def sum_even(numbers):\n    return sum(n for n in numbers if n % 2 == 0)"
        first, *words = answer.split(" ")
        completion = yield from FakeEngine(first, *(f" {word}" for word in words)).stream(system, request)
        time.sleep(0.05)
        return completion


@st.cache_resource
def _runner() -> AssertRunner:
    sandbox = ProcessSandbox(workers=2, cpu_s=CPU_S, wall_s=2 * CPU_S)
    atexit.register(sandbox.close)
    return AssertRunner(sandbox.run)


def draw() -> None:
    """Draw the page."""
    st.set_page_config(page_title="BiLoRA", layout="wide")
    tasks = {name: load_task(name) for name in ("codegen", "docstring")}
    generation = {name: Generation(max_new_tokens=64, batch_size=1) for name in tasks}
    backend = Backend(
        engine=ScriptedEngine(),
        adapters={name: letter * 64 for name, letter in zip(tasks, "ab", strict=True)},
        base="a scripted base",
        base_revision="0" * 40,
        location="in this process",
    )
    draw_page(backend, tasks, generation, _runner(), lambda question, answer, entered: "01J00000000000000000000000")


if __name__ == "__main__":
    draw()
