"""The type of a task. Everything a task *does* is in its own file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bilora.extraction.typed import Insertion
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

    `sample` turns a raw row into a sample or says which rule refused it. `forms` are the shapes of row that
    it reads: a source keeps their columns, and says so if no row has them. `answer` renders a
    reference as the assistant's turn, `extract` reads an assistant's turn back:
    `extract(answer(target)) == target` for every sample. `extract_for_prompt` is for a task in which the prompt
    decides what the answer is; all callers use `read_answer`, which chooses between them.
    The first number of `metrics[0]` is the headline.
    `floors` are trivial answers any useful model must beat. `well_formed` says whether an extracted answer
    has the form of one, right or wrong. `hide_tests` makes the sample that shows none of its tests.
    For people at a page: `description` says in one sentence what the adapter does, `problem` why a typed text is
    nothing that this task can be asked (empty if it is), `ask` makes the prompt of it, `apply` puts an answer into it,
    and `language` is what answers are written in.
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
    floors: Mapping[str, Callable[[Sample], str]] = field(default_factory=dict)
    well_formed: Callable[[str], bool] = bool
    hide_tests: Callable[[Sample], Sample] | None = None
    extract_for_prompt: Callable[[str, str], str] | None = None
    description: str = ""
    problem: Callable[[str], str] = no_problem
    ask: Callable[[str], str] = str.strip
    apply: Callable[[str, str], Insertion] | None = None
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
