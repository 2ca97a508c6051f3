"""The type of a task. Everything a task *does* is in its own file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bilora.extraction.user_function import Insertion
from bilora.params import Generation
from bilora.protocols import Metric
from bilora.python_code.source import parse as parse
from bilora.records import Drop, Message, Row, Sample, Scale
from bilora.requests import Request
from bilora.rows import RowForm


def no_problem(typed: str) -> str:
    """Accept any typed text."""
    return ""


@dataclass(frozen=True)
class Task:
    """One thing an adapter learns to do.

    Attributes:
        sample: turns a raw row into a sample, or into the `Drop` that names the rule which refused it.
        answer: writes a reference as the assistant's turn.
        extract: reads an assistant's turn: `extract(answer(target)) == target` for every sample.
        metrics: the first score of the first metric is the headline.
        forms: the row forms that `sample` reads. A source loads their columns, and refuses rows that match none.
        trivial_answers: answers without a model, which a useful adapter beats.
        well_formed: whether an extracted answer has the right form, whatever its content.
        hide_tests: returns the sample without the tests in its prompt.
        extract_for_prompt: replaces `extract` where the prompt decides what the answer is.

    For user-facing pages:
        description: what the adapter does, in one sentence.
        input_problem: why this task cannot use the typed text; empty if it can.
        make_prompt: turns the typed text into a prompt.
        insert_answer: puts an answer into the typed text.
        language: the language of the answers, for highlighting.
    """

    name: str
    title: str
    system: str
    sample: Callable[[Row], Sample | Drop]
    answer: Callable[[str], str]
    extract: Callable[[str], str]
    metrics: tuple[Metric, ...]
    example: str
    forms: tuple[type[RowForm], ...] = ()
    trivial_answers: Mapping[str, Callable[[Sample], str]] = field(default_factory=dict)
    well_formed: Callable[[str], bool] = bool
    hide_tests: Callable[[Sample], Sample] | None = None
    extract_for_prompt: Callable[[str, str], str] | None = None
    description: str = ""
    input_problem: Callable[[str], str] = no_problem
    make_prompt: Callable[[str], str] = str.strip
    insert_answer: Callable[[str, str], Insertion] | None = None
    language: str | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of all scores of an answer, the headline first."""
        return tuple(self.scales)

    @property
    def scales(self) -> dict[str, Scale]:
        """How each of `metric_names` is written for people."""
        return {name: scale for metric in self.metrics for name, scale in metric.scales.items()}

    @property
    def headline(self) -> str:
        """The metric that decides checkpoints and the gate."""
        return next(iter(self.metrics[0].scales))

    @property
    def execution_metric(self) -> str | None:
        """The metric that is 1.0 for an answer that passes when it is run; None if answers are not run."""
        return next((next(iter(metric.scales)) for metric in self.metrics if metric.runs_answers), None)

    def read_answer(self, text: str, prompt: str) -> str:
        """Read an assistant's turn back, as evaluation, page, feedback and training all do."""
        return self.extract_for_prompt(text, prompt) if self.extract_for_prompt else self.extract(text)

    def messages(self, prompt: str) -> tuple[Message, ...]:
        """Return the chat that training, evaluation, app and server all send."""
        return (Message(role="system", content=self.system), Message(role="user", content=prompt))

    def requests(self, samples: Sequence[Sample], generation: Generation, seed: int) -> list[Request]:
        """Return one request per sample, the same for training's choice of a checkpoint as for the benchmark."""
        return [Request(sample.id, self.messages(sample.prompt), generation.sampling(seed=seed)) for sample in samples]
