"""What the profile's adapters reach over several seeds, on their own test splits and on data made by others.

    python studies/adapters.py [--seeds 1 2 3] [--mbpp mbpp.jsonl] [--codexglue python-valid.jsonl.gz] [--card CARD]

Each seed gets a copy of the checkout, the pipeline up to the evaluation, and, where files are given, a second
evaluation of the same adapters: MBPP's official test split with its tests shown and hidden, and those rows of
CodeXGLUE that the task's rules take and the base's context holds. Printed: the median over the seeds, the
lowest and the highest; with --card they are also put at the end of the base's card. Nothing is chosen by these
numbers.
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
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from bilora.evaluation.run import FLOOR
from bilora.layout import Layout
from bilora.params import FilesSource
from bilora.records import Sample, Scored
from bilora.sources.files import Files
from bilora.storage import read_records, write_records
from bilora.tasks import load_task
from bilora.tracking.checkout import copy_checkout

ROOT = Path(__file__).resolve().parents[1]
PROMPT_TOKENS = 850
"""A prompt of so many leaves room for an answer in the base's 1,024 tokens."""
SECTION = "## What adapters on it reach"
Numbers = dict[str, tuple[int, float]]
"""Of each line of the table: over how many rows, which may differ from seed to seed, and the mean."""


def run(folder: Path, *command: str) -> None:
    """Run a command of the project in a copy of the checkout."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(folder / "src")}
    subprocess.run(command, cwd=folder, env={**os.environ, **own}, stdout=sys.stderr, check=True)


def means(data: str, rows: Iterable[Scored]) -> Iterator[tuple[str, tuple[int, float]]]:
    """Yield the name and value of each mean: the headline by data set, tier and system, and who ended by itself.

    Last, where there are floors, how far above the best of them the adapter stands.
    """
    rows = list(rows)
    headline = load_task(rows[0].task).headline
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        if row.dataset not in ("test", "hidden"):
            continue
        system = "adapter" if row.completion.system == row.task else row.completion.system
        where = data if row.dataset == "test" else f"{data}, tests hidden"
        value = next(score.value for score in row.scores if score.metric == headline)
        if value is None:
            raise SystemExit(f"{row.sample.id} is unscored: {row.scores[0].reason}")
        found[where, headline, system].append(value)
        if row.sample.tier:
            found[f"{where}, {row.sample.tier}", headline, system].append(value)
        if system == "adapter":
            found[where, "stopped", system].append(row.completion.finish == "stop")
    percent = {name: 100 * statistics.fmean(values) for name, values in found.items()}
    for name in sorted(found, key=lambda name: name[:2]):
        yield f"| {' | '.join(name)} |", (len(found[name]), percent[name])
    if floors := [value for (where, _, system), value in percent.items() if where == data and system.startswith(FLOOR)]:
        own = data, headline, "adapter"
        yield f"| {data} | {headline} | adapter less the best floor |", (len(found[own]), percent[own] - max(floors))


def foreign(task: str, path: Path) -> list[Sample]:
    """Return the rows of a file as the task's samples; for MBPP its official test split."""
    source = FilesSource(
        kind="files", paths=[str(path)], licence="per row", splits="mbpp" if task == "codegen" else "row"
    )
    read = [load_task(task).sample(row) for row in Files(source).rows()]
    samples = [one for one in read if isinstance(one, Sample) and one.split in (None, "test")]
    tokenizer = Tokenizer.from_file(str(ROOT / "models/nano/tokenizer.json"))
    kept = [one for one in samples if len(tokenizer.encode(one.prompt).ids) <= PROMPT_TOKENS]
    print(f"{path.name}: {len(kept)} of {len(read)} rows are asked", file=sys.stderr)
    return kept


def measured(folder: Path, seed: int, files: dict[str, Path]) -> Numbers:
    """Train and evaluate in a copy of the checkout."""
    params = folder / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(re.sub(r"(?m)^seed: \d+$", f"seed: {seed}", text), encoding="utf-8")
    run(folder, "dvc", "repro", "evaluate")
    found: Numbers = {}
    for task in ("codegen", "docstring"):
        rows = Layout(folder).evaluation(task)
        found |= means(f"{task}, own test split", read_records(rows, Scored))
        if task in files:
            samples = foreign(task, files[task])
            write_records(Layout(folder).split(task, "test"), samples)
            hidden = re.sub(r"(?m)^  hidden_tests: \d+$", f"  hidden_tests: {len(samples)}", params.read_text("utf-8"))
            params.write_text(hidden, encoding="utf-8")
            run(folder, "bilora", "evaluate", task, "--max-samples", str(len(samples)))
            found |= means(files[task].name.partition(".")[0], read_records(rows, Scored))
    return found


def table(seeds: Sequence[Numbers]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| data | metric | system | rows | median | lowest | highest |\n|---|---|---|---:|---:|---:|---:|"
    for name in seeds[0]:
        counts, values = zip(*(numbers[name] for numbers in seeds if name in numbers), strict=True)
        rows = " to ".join(map(str, sorted({min(counts), max(counts)})))
        yield f"{name} {rows} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |"


def put_into(card: Path, lines: Sequence[str], seeds: Sequence[int]) -> None:
    """Write the table as the card's last section, in place of an earlier one."""
    text = card.read_text(encoding="utf-8").partition(f"\n{SECTION}\n")[0]
    said = f"`python studies/adapters.py`, seeds {', '.join(map(str, seeds))}; percent, BLEU as CodeXGLUE counts it."
    card.write_text("\n".join((text, SECTION, said, "", *lines, "")), encoding="utf-8")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--mbpp", type=Path)
    parser.add_argument("--codexglue", type=Path)
    parser.add_argument("--card", type=Path)
    chosen = parser.parse_args()
    files = {"codegen": chosen.mbpp, "docstring": chosen.codexglue}
    given = {task: path.resolve() for task, path in files.items() if path}
    found = []
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory(prefix="bilora-seed-") as name:
            copy_checkout(ROOT, Path(name), Path("params.yaml"))
            found.append(measured(Path(name), seed, given))
            print(f"seed {seed}", *table(found[-1:]), sep="\n", file=sys.stderr)  # what is measured is not lost
    lines = "\n".join(table(found)).splitlines()
    print(*lines, sep="\n")
    if chosen.card:
        put_into(chosen.card, lines, chosen.seeds)


if __name__ == "__main__":
    main()
