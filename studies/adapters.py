"""Scores of a profile's adapters over several seeds, on their test splits and on MBPP and CodeXGLUE.

    python studies/adapters.py [--profile smollm2-full] [--seeds 1 2 3] [--keep FOLDER] [--mbpp mbpp.jsonl]
                               [--codexglue python-valid.jsonl.gz]

Each seed runs the pipeline up to `evaluate` in a copy of the workspace. With --keep the copies stay in that folder, as
seed-1 and so on, and a second run continues from them. With --mbpp and --codexglue the same adapters are also evaluated
on MBPP's official test split, with tests in the prompt and hidden, and on the rows of CodeXGLUE that pass the task's
rules. It prints the median, the minimum and the maximum over the seeds. No hyperparameter is selected by these numbers.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bilora.evaluation.run import TRIVIAL_PREFIX
from bilora.guards import known_guards
from bilora.layout import Layout
from bilora.records import EvalRow, Sample, guard_dataset
from bilora.sources.kinds.files import Files, FilesSettings
from bilora.storage import read_records, write_records
from bilora.tasks import load_task
from bilora.tracking.checkout import copy_checkout

ROOT = Path(__file__).resolve().parents[1]
TableRows = dict[str, tuple[int, float]]
"""Per line of the table: the number of samples, which may differ between seeds, and the mean."""


def run(folder: Path, *command: str) -> None:
    """Run a command in a copy of the workspace, with the copy's sources."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder / "src")}
    subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=True)


def means(data: str, rows: Iterable[EvalRow]) -> Iterator[tuple[str, tuple[int, float]]]:
    """Yield name and value of each mean, by dataset, tier and system, in percent.

    The means are the headline metric, the share of answers that ended by themselves, and the adapter's output tokens as
    a share of the base's. Last, if the task has trivial baselines, the adapter's difference to the best of them.
    """
    rows = list(rows)
    headline = load_task(rows[0].task).headline
    titles = {"test": data, "hidden": f"{data}, tests hidden"}
    titles |= {guard_dataset(name): f"{data}, guard {name}" for name in known_guards()}
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    tokens: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if not (title := titles.get(row.dataset)):
            continue
        system = "adapter" if row.completion.system == row.task else row.completion.system
        value = next(score.value for score in row.scores if score.metric == headline)
        if value is None:
            raise SystemExit(f"{row.sample.id} is unscored: {row.scores[0].reason}")
        scores[title, headline, system].append(value)
        if row.sample.tier:
            scores[f"{title}, {row.sample.tier}", headline, system].append(value)
        if system in ("base", "adapter"):
            scores[title, "ended by themselves", system].append(row.completion.finish == "stop")
            tokens[title, system] += row.completion.output_tokens or 0
    percent = {name: 100 * statistics.fmean(values) for name, values in scores.items()}
    for name in sorted(scores, key=lambda name: name[:2]):
        yield f"| {' | '.join(name)} |", (len(scores[name]), percent[name])
    for title in dict.fromkeys(title for title, _ in tokens):
        count = len(scores[title, headline, "adapter"])
        share = 100 * tokens[title, "adapter"] / tokens[title, "base"]
        yield f"| {title} | output tokens | adapter, share of the base's |", (count, share)
    trivial_scores = [
        value for (title, _, system), value in percent.items() if title == data and system.startswith(TRIVIAL_PREFIX)
    ]
    if trivial_scores:
        adapter = data, headline, "adapter"
        yield (
            f"| {data} | {headline} | adapter minus the best trivial baseline |",
            (len(scores[adapter]), percent[adapter] - max(trivial_scores)),
        )


def read_samples(task: str, path: Path) -> list[Sample]:
    """Return the rows of a file as the task's samples; for MBPP its official test split."""
    source = FilesSettings(
        kind="files", paths=[str(path)], licence="per row", splits="mbpp" if task == "codegen" else "row"
    )
    results = [load_task(task).sample(row) for row in Files(source).rows()]
    samples = [result for result in results if isinstance(result, Sample) and result.split in (None, "test")]
    print(f"{path.name}: {len(samples)} of {len(results)} rows are evaluated", file=sys.stderr)
    return samples


def measure_seed(folder: Path, seed: int, files: dict[str, Path]) -> TableRows:
    """Train and evaluate with one seed in a copy of the workspace; return the lines of the table."""
    params = folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(re.sub(r"(?m)^seed: \d+$", f"seed: {seed}", text), encoding="utf-8")
    run(folder, "dvc", "repro", "evaluate")
    table_rows: TableRows = {}
    for task in ("codegen", "docstring"):
        rows = Layout(folder).evaluation(task)
        table_rows |= means(f"{task}, its test split", read_records(rows, EvalRow))
        if task in files:
            samples = read_samples(task, files[task])
            write_records(Layout(folder).split(task, "test"), samples)
            hidden = re.sub(r"(?m)^  hidden_tests: \d+$", f"  hidden_tests: {len(samples)}", params.read_text("utf-8"))
            params.write_text(hidden, encoding="utf-8")
            run(folder, "bilora", "evaluate", task, "--max-samples", str(len(samples)))
            table_rows |= means(files[task].name.partition(".")[0], read_records(rows, EvalRow))
    return table_rows


def table(seeds: Sequence[TableRows]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| data | metric | system | rows | median | lowest | highest |\n|---|---|---|---:|---:|---:|---:|"
    for name in seeds[0]:
        counts, values = zip(*(table_rows[name] for table_rows in seeds if name in table_rows), strict=True)
        rows = " to ".join(map(str, sorted({min(counts), max(counts)})))
        yield f"{name} {rows} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |"


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smollm2-full")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--keep", type=Path, help="folder in which the copy of each seed is kept")
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--codexglue", type=Path)
    options = parser.parse_args()
    files = {"codegen": options.mbpp, "docstring": options.codexglue}
    files = {task: path.resolve() for task, path in files.items() if path}
    seeds = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="bilora-seed-") as name:
            folder = options.keep.resolve() / f"seed-{seed}" if options.keep else Path(name) / "checkout"
            if not (folder / "params.yaml").exists():
                copy_checkout(ROOT, folder, Path(f"profiles/{options.profile}.yaml"))
            seeds.append(measure_seed(folder, seed, files))
            print(f"seed {seed}", *table(seeds[-1:]), sep="\n", file=sys.stderr)  # in case a later seed fails
    print(*table(seeds), sep="\n")


if __name__ == "__main__":
    main()
