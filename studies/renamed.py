"""Dependence of the codegen adapter on function names: held-out exercises with renamed functions, paired.

    python studies/renamed.py [--checkout .] [--adapter FOLDER] [--samples 300]

The adapter answers every test sample of the workspace three times, greedily, with the task's decoding: unchanged; with
a random name, composed of words that only test samples use; and with a misleading name, which describes another sample
(`sorted_letters` for a function that counts words). Prompt, reference and tests are renamed together, so the correct
program is otherwise the same. The table contains pass@1 of each and the paired difference to the first, in points
with its 95 % interval.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from bilora.cli.progress import bar
from bilora.evaluation.run import EvalConfig, EvalSet, evaluate
from bilora.evaluation.statistics import score_difference
from bilora.inference.engines import EngineOptions, load_local_engine
from bilora.protocols import Referees
from bilora.records import Sample
from bilora.sources.exercises.names import draw_names
from bilora.storage import adapter_sha256
from bilora.workspace import Workspace

TASK = "codegen"
BATCH_SIZE = 32
Namer = Callable[[Sample], str]


def rename_function(sample: Sample, name: str) -> Sample:
    """Return the sample with another name for its function."""
    if not (signature := re.search(r"Signature: def (\w+)\(", sample.prompt)):
        raise SystemExit(f"{sample.id} shows no signature; only generated exercises can be renamed.")
    old_name = re.compile(rf"\b{signature[1]}\b")
    texts = {key: old_name.sub(name, getattr(sample, key)) for key in ("prompt", "target", "setup")}
    return sample.model_copy(update={**texts, "tests": tuple(old_name.sub(name, test) for test in sample.tests)})


def namers(samples: Sequence[Sample], seed: int) -> dict[str, Namer]:
    """Return the functions that choose a new name, keyed by their titles in the table."""
    groups = sorted({sample.group for sample in samples})

    def random_name(sample: Sample) -> str:
        return draw_names("test", random.Random(f"{seed}:{sample.id}"))[0]

    def misleading(sample: Sample) -> str:
        others = [group for group in groups if not set(group.split("+")) & set(sample.group.split("+"))]
        return random.Random(f"{seed}:{sample.id}").choice(others).replace("+", "_")

    return {"random": random_name, "misleading": misleading}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--adapter", type=Path, help="default: the workspace's adapter")
    parser.add_argument("--samples", type=int, default=300)
    options = parser.parse_args()
    workspace = Workspace(options.checkout)
    settings, task = workspace.task(TASK)
    folder, seed = options.adapter or workspace.checked_adapter(TASK), workspace.params.seed
    samples = workspace.split_samples(TASK, "test")[: options.samples]
    sets = {"unchanged": samples}
    for title, choose_name in namers(samples, seed).items():
        sets[title] = [rename_function(sample, choose_name(sample)) for sample in samples]
    engine_options = EngineOptions(batch_size=BATCH_SIZE, cache=workspace.cache("gguf"), progress_bars=bar)
    engine = load_local_engine("torch", workspace.base(), {TASK: folder}, engine_options)
    passed: dict[str, list[float]] = {}
    with workspace.sandbox() as sandbox:
        config = EvalConfig(task, adapter_sha256(folder), settings.generation, seed, Referees(sandbox=sandbox))
        for title, renamed_samples in sets.items():
            with bar(f"Names: {title}", len(renamed_samples), "answers") as progress:
                rows = evaluate(config, {"test": EvalSet(renamed_samples)}, {TASK: engine}, progress=progress)
            scores = [score for row in rows for score in row.scores if score.metric == task.headline]
            passed[title] = [score.value for score in scores if score.value is not None]
            if len(passed[title]) < len(samples):
                raise SystemExit("Some answers are unscored; see `bilora doctor`.")
    print("| names | samples | pass@1 | difference |\n|---|---:|---:|---:|")
    unchanged = passed.pop("unchanged")
    print(f"| unchanged | {len(unchanged)} | {statistics.fmean(unchanged):.1%} | |")
    for title, values in passed.items():
        difference = score_difference(values, unchanged, seed=seed)
        points = f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
        print(f"| {title} | {len(values)} | {statistics.fmean(values):.1%} | {points} |")


if __name__ == "__main__":
    main()
