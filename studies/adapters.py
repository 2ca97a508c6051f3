"""Scores of the profile's adapters over several seeds, on their own test splits and on MBPP and CodeXGLUE.

    python studies/adapters.py [--profile smollm2-full] [--seeds 1 2 3] [--keep FOLDER] [--mbpp mbpp.jsonl]
                               [--codexglue python-valid.jsonl.gz]

Each seed runs the pipeline up to `evaluate` in a copy of the checkout. With --keep the copies stay in that folder, as
seed-1 and so on, and a second run goes on from them. Where files are given, the same adapters are evaluated again: on
MBPP's official test split with tests shown and hidden, and on those rows of CodeXGLUE that pass the task's rules. It
prints the median, the minimum and the maximum over the seeds. No hyperparameter is selected by these numbers.
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
Numbers = dict[str, tuple[int, float]]
"""Per line of the table: the number of rows, which may differ between seeds, and the mean."""


def run(folder: Path, *command: str) -> None:
    """Run a command of the project in a copy of the checkout."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(folder / "src")}
    subprocess.run(command, cwd=folder, env={**os.environ, **own}, stdout=sys.stderr, check=True)


def means(data: str, rows: Iterable[EvalRow]) -> Iterator[tuple[str, tuple[int, float]]]:
    """Yield name and value of each mean, by dataset, tier and system, in percent.

    They are the headline, the share of answers that ended by themselves, and a guard's tokens as a share of the base's.
    Last, if there are trivial answers, the adapter's difference to the best of them.
    """
    rows = list(rows)
    headline = load_task(rows[0].task).headline
    places = {"test": data, "hidden": f"{data}, tests hidden"}
    places |= {guard_dataset(name): f"{data}, guard {name}" for name in known_guards()}
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    tokens: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if not (where := places.get(row.dataset)):
            continue
        system = "adapter" if row.completion.system == row.task else row.completion.system
        value = next(score.value for score in row.scores if score.metric == headline)
        if value is None:
            raise SystemExit(f"{row.sample.id} is unscored: {row.scores[0].reason}")
        found[where, headline, system].append(value)
        if row.sample.tier:
            found[f"{where}, {row.sample.tier}", headline, system].append(value)
        if system in ("base", "adapter"):
            found[where, "ended by themselves", system].append(row.completion.finish == "stop")
            tokens[where, system] += row.completion.output_tokens or 0
    percent = {name: 100 * statistics.fmean(values) for name, values in found.items()}
    for name in sorted(found, key=lambda name: name[:2]):
        yield f"| {' | '.join(name)} |", (len(found[name]), percent[name])
    for where in dict.fromkeys(where for where, _ in tokens):
        count = len(found[where, headline, "adapter"])
        share = 100 * tokens[where, "adapter"] / tokens[where, "base"]
        yield f"| {where} | output tokens | adapter, share of the base's |", (count, share)
    if trivial_scores := [
        value for (where, _, system), value in percent.items() if where == data and system.startswith(TRIVIAL_PREFIX)
    ]:
        own = data, headline, "adapter"
        yield (
            f"| {data} | {headline} | adapter minus the best trivial answer |",
            (len(found[own]), percent[own] - max(trivial_scores)),
        )


def foreign_samples(task: str, path: Path) -> list[Sample]:
    """Return the rows of a file as the task's samples; for MBPP its official test split."""
    source = FilesSettings(
        kind="files", paths=[str(path)], licence="per row", splits="mbpp" if task == "codegen" else "row"
    )
    read = [load_task(task).sample(row) for row in Files(source).rows()]
    samples = [one for one in read if isinstance(one, Sample) and one.split in (None, "test")]
    print(f"{path.name}: {len(samples)} of {len(read)} rows are evaluated", file=sys.stderr)
    return samples


def measured(folder: Path, seed: int, files: dict[str, Path]) -> Numbers:
    """Train and evaluate in a copy of the checkout."""
    params = folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(re.sub(r"(?m)^seed: \d+$", f"seed: {seed}", text), encoding="utf-8")
    run(folder, "dvc", "repro", "evaluate")
    found: Numbers = {}
    for task in ("codegen", "docstring"):
        rows = Layout(folder).evaluation(task)
        found |= means(f"{task}, own test split", read_records(rows, EvalRow))
        if task in files:
            samples = foreign_samples(task, files[task])
            write_records(Layout(folder).split(task, "test"), samples)
            hidden = re.sub(r"(?m)^  hidden_tests: \d+$", f"  hidden_tests: {len(samples)}", params.read_text("utf-8"))
            params.write_text(hidden, encoding="utf-8")
            run(folder, "bilora", "evaluate", task, "--max-samples", str(len(samples)))
            found |= means(files[task].name.partition(".")[0], read_records(rows, EvalRow))
    return found


def table(seeds: Sequence[Numbers]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| data | metric | system | rows | median | lowest | highest |\n|---|---|---|---:|---:|---:|---:|"
    for name in seeds[0]:
        counts, values = zip(*(numbers[name] for numbers in seeds if name in numbers), strict=True)
        rows = " to ".join(map(str, sorted({min(counts), max(counts)})))
        yield f"{name} {rows} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |"


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smollm2-full")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--keep", type=Path, help="keep each seed's copy of the checkout here")
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--codexglue", type=Path)
    chosen = parser.parse_args()
    files = {"codegen": chosen.mbpp, "docstring": chosen.codexglue}
    given = {task: path.resolve() for task, path in files.items() if path}
    found = []
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory(prefix="bilora-seed-") as name:
            folder = chosen.keep.resolve() / f"seed-{seed}" if chosen.keep else Path(name) / "checkout"
            if not (folder / "params.yaml").exists():
                copy_checkout(ROOT, folder, Path(f"profiles/{chosen.profile}.yaml"))
            found.append(measured(folder, seed, given))
            print(f"seed {seed}", *table(found[-1:]), sep="\n", file=sys.stderr)  # kept if a later seed fails
    print(*table(found), sep="\n")


if __name__ == "__main__":
    main()
