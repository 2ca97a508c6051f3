"""MBPP's test rows in two forms of prompt: the project's own, and that of lm_eval's task `mbpp`.

    python studies/mbpp.py [--adapter adapters/codegen] [--params params.yaml] [--data ../shared/data/mbpp/mbpp.jsonl]
                           [--kept data/splits/codegen/test.jsonl] [--engine torch] [--rows N]

Base and adapter answer greedily; engine, extraction and sandbox are the project's, and all tests of a row must pass.
`project` is the chat that the task codegen sends: description, signature, one test; up to 300 tokens. `lm_eval` is the
form of lm-evaluation-harness (lm_eval/tasks/mbpp/mbpp.yaml, version 1.0): a text that is continued without a chat
template, as is the harness's default; three worked examples (tasks 2, 3 and 4), three tests shown, an answer ends at
[DONE] or after 256 tokens. Rows are all 500 test rows, and of them those that the processing rules kept. The intervals
are the benchmark's; the difference is the adapter's pass@1 less the base's, row by row.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bilora.cli.progress import bar
from bilora.errors import BadData
from bilora.evaluation.statistics import score_difference, score_interval
from bilora.inference.engines import ENGINES, EngineOptions, LocalEngine, load_local_engine
from bilora.params import Generation
from bilora.protocols import Referees, Sandbox
from bilora.records import Completion, Drop, Interval, Sample
from bilora.requests import Request, SamplingParams
from bilora.sources.kinds.files import mbpp_split
from bilora.storage import read_records, read_rows
from bilora.tasks.codegen import TASK
from bilora.workspace import Workspace

EXAMPLES = (2, 3, 4)
BATCH = 32
PROJECT = Generation(max_new_tokens=300, batch_size=BATCH)
LM_EVAL = SamplingParams(max_tokens=256, stop=("[DONE]",))


@dataclass(frozen=True)
class Problem:
    """One row of MBPP: as the task codegen reads it, and the text, code and tests that lm_eval shows as they are."""

    number: int
    sample: Sample
    text: str
    code: str
    tests: Sequence[str]


@dataclass(frozen=True)
class Answered:
    """A system's answers to all problems in one form, and whether each passes; None where nothing was decided."""

    completions: Sequence[Completion]
    passed: Sequence[float | None]


def read_problems(path: Path) -> dict[int, Problem]:
    """Read MBPP's JSON lines, by `task_id`.

    Raises:
        BadData: the task codegen refuses a row.
    """
    problems = {}
    for line, row in read_rows(path):
        number = int(row["task_id"])
        sample = TASK.sample({**row, "source": f"mbpp:{number}", "group": str(number), "licence": "CC-BY-4.0"})
        if isinstance(sample, Drop):
            raise BadData(path, f"the row is refused by rule {sample.rule!r} ({sample.detail}).", line)
        problems[number] = Problem(number, sample, row["text"], row["code"], row["test_list"])
    return problems


def lm_eval_prompt(problem: Problem, examples: Sequence[Problem]) -> str:
    """Return the text that lm_eval has continued: the solved examples, then the problem."""
    solved = (f"{_question(one)}{one.code}\n[DONE]\n\n" for one in examples)
    return "".join(solved) + _question(problem)


def _question(problem: Problem) -> str:
    tests = "\n".join(problem.tests[:3])
    return (
        f"You are an expert Python programmer, and here is your task: {problem.text} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def requests(problems: Sequence[Problem], examples: Sequence[Problem]) -> dict[str, list[Request]]:
    """Return the requests of both forms."""
    return {
        "project": TASK.requests([one.sample for one in problems], PROJECT, 0),
        "lm_eval": [Request(one.sample.id, (), LM_EVAL, lm_eval_prompt(one, examples)) for one in problems],
    }


def score(problems: Sequence[Problem], completions: Sequence[Completion], system: str, referees: Referees) -> Answered:
    """Run the program of each answer."""
    pairs = [
        (one.sample, TASK.read_answer(completion.text, one.sample.prompt))
        for one, completion in zip(problems, completions, strict=True)
    ]
    scores = TASK.metrics[0].score(pairs, referees, system=system)
    return Answered(completions, [found[0].value for found in scores])


def table(answered: Mapping[tuple[str, str], Answered], sets: Mapping[str, Sequence[int]], seed: int) -> Iterator[str]:
    """Yield the lines of the table.

    Args:
        answered: by form and system.
        sets: the positions of the problems of each row set.
    """
    yield "| prompt | rows | n | system | pass@1 | 95 % | tokens | ended by themselves | difference to the base |"
    yield "|---|---|---:|---|---:|---:|---:|---:|---:|"
    for (form, system), found in answered.items():
        base = answered[form, "base"]
        for name, places in sets.items():
            values = [value for place in places if (value := found.passed[place]) is not None]
            made = [found.completions[place] for place in places]
            cells = [
                f"{sum(values) / len(values):.1%}" if values else "unscored",
                _shares(score_interval(values, seed=seed)),
                f"{sum(one.output_tokens or 0 for one in made):,}",
                f"{sum(one.finish == 'stop' for one in made) / len(made):.1%}",
                "" if system == "base" else _gain(found, base, places, seed),
            ]
            yield f"| {form} | {name} | {len(values)} | {system} | {' | '.join(cells)} |"


def _gain(new: Answered, old: Answered, places: Sequence[int], seed: int) -> str:
    """Write the paired difference in points."""
    both = ((new.passed[place], old.passed[place]) for place in places)
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    if len(pairs) < 2:
        return "too few rows"
    gain = score_difference([a for a, _ in pairs], [b for _, b in pairs], seed=seed)
    return f"{gain.mean * 100:+.1f} [{gain.low * 100:+.1f}, {gain.high * 100:+.1f}]"


def _shares(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.1%} to {interval.high:.1%}"


def answers(
    engine: LocalEngine,
    systems: Sequence[str],
    problems: Sequence[Problem],
    examples: Sequence[Problem],
    sandbox: Sandbox,
) -> dict[tuple[str, str], Answered]:
    """Answer all problems in both forms and run the answers, by form and system."""
    found = {}
    for form, asked in requests(problems, examples).items():
        for system in systems:
            with bar(f"{form}, {system}", len(asked), "answers") as tick:
                completions = engine.generate(system, asked, progress=tick)
            found[form, system] = score(problems, completions, system, Referees(sandbox))
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="folder of an adapter; without it the base alone is measured")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the params that describe the base")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mbpp/mbpp.jsonl"))
    parser.add_argument("--kept", type=Path, help="the test split of the profile smollm2-mbpp")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="torch")
    parser.add_argument("--rows", type=int, help="the first N test rows only")
    chosen = parser.parse_args()
    workspace = Workspace(Path())
    params = workspace.read_params(chosen.params)
    by_number = read_problems(chosen.data)
    problems = [one for number, one in sorted(by_number.items()) if mbpp_split(number) == "test"][: chosen.rows]
    sets = {"all": list(range(len(problems)))}
    if chosen.kept:
        kept = {sample.id for sample in read_records(chosen.kept, Sample)}
        sets["kept"] = [place for place, one in enumerate(problems) if one.sample.id in kept]
    options = EngineOptions(
        batch_size=BATCH, cache=workspace.cache("gguf"), quantization=params.inference.quantization, progress_bars=bar
    )
    adapters = {"adapter": chosen.adapter} if chosen.adapter else {}
    engine = load_local_engine(chosen.engine, workspace.base(params), adapters, options)
    examples = [by_number[number] for number in EXAMPLES]
    with workspace.sandbox() as sandbox:
        found = answers(engine, ["base", *adapters], problems, examples, sandbox)
    print(f"{workspace.base(params).id}, engine {chosen.engine}, greedy", *table(found, sets, params.seed), sep="\n")


if __name__ == "__main__":
    main()
