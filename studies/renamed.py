"""Does the codegen adapter depend on what a function is called? Held-out exercises with other names, paired.

    python studies/renamed.py [--checkout .] [--adapter FOLDER] [--samples 300]

Every test sample of the checkout is asked three times, greedily, with the checkout's decoding: as it is; with a random
name, made of words that only test samples use; and with a misleading one, which names what another sample computes
(`sorted_letters` for a function that counts words). Prompt, reference and tests are renamed together, so the
right program is otherwise the same. The table has pass@1 of each and the paired difference to the first, in points
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
from bilora.sources.exercises.names import name_by_words
from bilora.storage import adapter_sha256
from bilora.workspace import Workspace

TASK = "codegen"
BATCH = 32
Namer = Callable[[Sample], str]


def renamed(sample: Sample, name: str) -> Sample:
    """Return the sample with another name for its function."""
    if not (found := re.search(r"Signature: def (\w+)\(", sample.prompt)):
        raise SystemExit(f"{sample.id} shows no signature; only generated exercises can be renamed.")
    own = re.compile(rf"\b{found[1]}\b")
    texts = {key: own.sub(name, getattr(sample, key)) for key in ("prompt", "target", "setup")}
    return sample.model_copy(update={**texts, "tests": tuple(own.sub(name, test) for test in sample.tests)})


def namers(samples: Sequence[Sample], seed: int) -> dict[str, Namer]:
    """Return the ways to name a sample's function, by their titles in the table."""
    groups = sorted({sample.group for sample in samples})

    def random_name(sample: Sample) -> str:
        return name_by_words("test", random.Random(f"{seed}:{sample.id}"))[0]

    def misleading(sample: Sample) -> str:
        others = [group for group in groups if not set(group.split("+")) & set(sample.group.split("+"))]
        return random.Random(f"{seed}:{sample.id}").choice(others).replace("+", "_")

    return {"random": random_name, "misleading": misleading}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=Path())
    parser.add_argument("--adapter", type=Path, help="default: the checkout's own")
    parser.add_argument("--samples", type=int, default=300)
    chosen = parser.parse_args()
    workspace = Workspace(chosen.checkout)
    settings, task = workspace.task(TASK)
    folder, seed = chosen.adapter or workspace.checked_adapter(TASK), workspace.params.seed
    samples = workspace.split_samples(TASK, "test")[: chosen.samples]
    sets = {"their own": samples}
    sets |= {title: [renamed(one, name(one)) for one in samples] for title, name in namers(samples, seed).items()}
    options = EngineOptions(batch_size=BATCH, cache=workspace.cache("gguf"), progress_bars=bar)
    engine = load_local_engine("torch", workspace.base(), {TASK: folder}, options)
    passed: dict[str, list[float]] = {}
    with workspace.sandbox() as sandbox:
        measurement = EvalConfig(task, adapter_sha256(folder), settings.generation, seed, Referees(sandbox=sandbox))
        for title, asked in sets.items():
            with bar(f"Names: {title}", len(asked), "answers") as tick:
                rows = evaluate(measurement, {"test": EvalSet(asked)}, {TASK: engine}, progress=tick)
            scores = [score for row in rows for score in row.scores if score.metric == task.headline]
            passed[title] = [score.value for score in scores if score.value is not None]
            if len(passed[title]) < len(samples):
                raise SystemExit("Some answers are unscored; see `bilora doctor`.")
    print("| names | samples | pass@1 | difference |\n|---|---:|---:|---:|")
    own = passed.pop("their own")
    print(f"| their own | {len(own)} | {statistics.fmean(own):.1%} | |")
    for title, values in passed.items():
        gain = score_difference(values, own, seed=seed)
        points = f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
        print(f"| {title} | {len(values)} | {statistics.fmean(values):.1%} | {points} |")


if __name__ == "__main__":
    main()
