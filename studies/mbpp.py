"""MBPP's test rows with two prompts: BiLoRA's and that of lm_eval's task `mbpp`.

    python studies/mbpp.py [--adapter adapters/codegen] [--params params.yaml] [--data ../shared/data/mbpp/mbpp.jsonl]
                           [--kept data/splits/codegen/test.jsonl] [--engine torch] [--rows N]

Base and adapter answer greedily; engine, extraction and sandbox are BiLoRA's, and an answer must pass all tests of its
row. `project` is the chat of the task codegen: description, signature, one test; up to 300 tokens. `lm_eval` is the
prompt of lm-evaluation-harness (lm_eval/tasks/mbpp/mbpp.yaml, version 1.0): a text that is continued without a chat
template, which is the harness's default, with three worked examples (tasks 2, 3 and 4) and three tests; an answer ends
at [DONE] or after 256 tokens. It measures all 500 test rows, and those that the processing rules keep. The intervals
are the benchmark's; the difference is the adapter's pass@1 minus the base's, paired by row.
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
BATCH_SIZE = 32
PROJECT = Generation(max_new_tokens=300, batch_size=BATCH_SIZE)
LM_EVAL = SamplingParams(max_tokens=256, stop=("[DONE]",))


@dataclass(frozen=True)
class Problem:
    """One row of MBPP: the sample of the task codegen, and the text, code and tests for lm_eval's prompt."""

    number: int
    sample: Sample
    text: str
    code: str
    tests: Sequence[str]


@dataclass(frozen=True)
class Result:
    """A system's answers to all problems with one prompt, and whether each passes (None: unscored)."""

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
    """Return lm_eval's prompt: the solved examples, then the problem."""
    solved = (f"{_question(example)}{example.code}\n[DONE]\n\n" for example in examples)
    return "".join(solved) + _question(problem)


def _question(problem: Problem) -> str:
    tests = "\n".join(problem.tests[:3])
    return (
        f"You are an expert Python programmer, and here is your task: {problem.text} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def requests(problems: Sequence[Problem], examples: Sequence[Problem]) -> dict[str, list[Request]]:
    """Return the requests with both prompts."""
    return {
        "project": TASK.requests([problem.sample for problem in problems], PROJECT, 0),
        "lm_eval": [Request(problem.sample.id, (), LM_EVAL, lm_eval_prompt(problem, examples)) for problem in problems],
    }


def score(problems: Sequence[Problem], completions: Sequence[Completion], system: str, referees: Referees) -> Result:
    """Run the program of each answer."""
    pairs = [
        (problem.sample, TASK.read_answer(completion.text, problem.sample.prompt))
        for problem, completion in zip(problems, completions, strict=True)
    ]
    scores = TASK.metrics[0].score(pairs, referees, system=system)
    return Result(completions, [sample_scores[0].value for sample_scores in scores])


def table(results: Mapping[tuple[str, str], Result], sets: Mapping[str, Sequence[int]], seed: int) -> Iterator[str]:
    """Yield the lines of the table.

    Args:
        results: keyed by prompt and system.
        sets: the indices of the problems in each set of rows.
    """
    yield "| prompt | rows | n | system | pass@1 | 95 % | tokens | ended by themselves | difference to the base |"
    yield "|---|---|---:|---|---:|---:|---:|---:|---:|"
    for (prompt, system), result in results.items():
        base = results[prompt, "base"]
        for name, indices in sets.items():
            values = [value for index in indices if (value := result.passed[index]) is not None]
            completions = [result.completions[index] for index in indices]
            cells = [
                f"{sum(values) / len(values):.1%}" if values else "unscored",
                _format_interval(score_interval(values, seed=seed)),
                f"{sum(completion.output_tokens or 0 for completion in completions):,}",
                f"{sum(completion.finish == 'stop' for completion in completions) / len(completions):.1%}",
                "" if system == "base" else _difference(result, base, indices, seed),
            ]
            yield f"| {prompt} | {name} | {len(values)} | {system} | {' | '.join(cells)} |"


def _difference(new: Result, old: Result, indices: Sequence[int], seed: int) -> str:
    """Return the paired difference in points with its interval."""
    both = ((new.passed[index], old.passed[index]) for index in indices)
    pairs = [(a, b) for a, b in both if a is not None and b is not None]
    if len(pairs) < 2:
        return "too few rows"
    difference = score_difference([a for a, _ in pairs], [b for _, b in pairs], seed=seed)
    return f"{difference.mean * 100:+.1f} [{difference.low * 100:+.1f}, {difference.high * 100:+.1f}]"


def _format_interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.1%} to {interval.high:.1%}"


def evaluate(
    engine: LocalEngine,
    systems: Sequence[str],
    problems: Sequence[Problem],
    examples: Sequence[Problem],
    sandbox: Sandbox,
) -> dict[tuple[str, str], Result]:
    """Answer all problems with both prompts and run the answers; return results keyed by prompt and system."""
    results = {}
    for prompt, prompt_requests in requests(problems, examples).items():
        for system in systems:
            with bar(f"{prompt}, {system}", len(prompt_requests), "answers") as progress:
                completions = engine.generate(system, prompt_requests, progress=progress)
            results[prompt, system] = score(problems, completions, system, Referees(sandbox))
    return results


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="folder of an adapter; without it only the base is measured")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the params that describe the base")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mbpp/mbpp.jsonl"))
    parser.add_argument("--kept", type=Path, help="the test split of the profile smollm2-mbpp")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="torch")
    parser.add_argument("--rows", type=int, help="the first N test rows only")
    options = parser.parse_args()
    workspace = Workspace(Path())
    params = workspace.read_params(options.params)
    by_number = read_problems(options.data)
    test_problems = [problem for number, problem in sorted(by_number.items()) if mbpp_split(number) == "test"]
    problems = test_problems[: options.rows]
    sets = {"all": list(range(len(problems)))}
    if options.kept:
        split_ids = {sample.id for sample in read_records(options.kept, Sample)}
        sets["kept"] = [index for index, problem in enumerate(problems) if problem.sample.id in split_ids]
    engine_options = EngineOptions(
        batch_size=BATCH_SIZE,
        cache=workspace.cache("gguf"),
        quantization=params.inference.quantization,
        progress_bars=bar,
    )
    adapters = {"adapter": options.adapter} if options.adapter else {}
    engine = load_local_engine(options.engine, workspace.base(params), adapters, engine_options)
    examples = [by_number[number] for number in EXAMPLES]
    with workspace.sandbox() as sandbox:
        results = evaluate(engine, ["base", *adapters], problems, examples, sandbox)
    print(f"{workspace.base(params).id}, engine {options.engine}, greedy", *table(results, sets, params.seed), sep="\n")


if __name__ == "__main__":
    main()
